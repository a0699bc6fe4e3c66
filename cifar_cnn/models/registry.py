"""How a spec becomes a network: a built-in name, `module:attr`, `path.py` or `path.py:attr`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_cnn.errors import ModelError, did_you_mean
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.compact import Compact
from cifar_cnn.models.output import check_output
from cifar_cnn.models.own_network import Definition, find_own, split_spec
from cifar_cnn.settings import Settings, parse_arguments
from cifar_cnn.settings.fields import MODELS

BUILT_IN: dict[str, type[Baseline] | type[Compact]] = dict(
    zip(MODELS, (Baseline, Compact), strict=True)
)


def build_model(
    spec: str,
    num_classes: int | None = None,
    dropout: float | None = None,
    *,
    model_arg: Sequence[str] = (),
    device: str = "cpu",
) -> nn.Module:
    """Build the network that `spec` names.

    Args:
        spec: a built-in name (`baseline`), `path.py`, `path.py:attr` or `module:attr`. The others
            name a class or factory, or an instance, which is copied; a `path.py` names the only
            network in it.
        num_classes: outputs of a built-in network (10 unless said), and what a parameter of the
            user's class or factory gets that is named `num_classes`, `n_classes` or `classes`.
        dropout: dropout probability of a built-in network (0 unless said), and of the user's where
            its class or factory has a parameter of that name.
        model_arg: arguments of the user's class or factory, each `NAME=VALUE`, before those two.
        device: where the weights are made; `meta` gives shapes without memory.

    Raises:
        ModelError: the name is unknown, or what it names cannot be imported or built.
    """
    definition = find_definition(spec, model_arg)
    with torch.device(device):
        return definition.build(num_classes, dropout)


def build_checked(settings: Settings, num_classes: int | None) -> tuple[nn.Module, Tensor]:
    """Build the network of the settings; return it with its output for a black image.

    Raise a ModelError if it cannot take images of that size, or has not `num_classes` outputs
    (None: any number). Lazy layers have their shape afterwards.
    """
    definition = find_definition(settings.model, settings.model_arg)
    model = definition.build(num_classes, settings.dropout)
    remedy = definition.describe_remedy(num_classes)
    return model, check_output(model, settings.input_size, num_classes, remedy=remedy)


def find_definition(spec: str, model_arg: Sequence[str] = ()) -> Definition:
    """Return what `spec` names, with its arguments; the code of a file or module runs."""
    check_spec(spec)
    try:
        arguments = parse_arguments(model_arg)
    except ValueError as error:
        raise ModelError(f"model argument {error}") from error
    if spec in BUILT_IN:
        return Definition(spec, partial(BUILT_IN[spec], dropout=0.0), arguments)
    return find_own(spec, arguments)


def source_file(spec: str, model_arg: Sequence[str] = ()) -> Path | None:
    """Return the file that defines the user's own network; None if no file does."""
    check_spec(spec)
    source, _ = split_spec(spec)
    return Path(source) if source.endswith(".py") else find_definition(spec, model_arg).file


def check_spec(spec: str) -> None:
    """Refuse an unknown name or a missing file, before anything is loaded for it."""
    source, _ = split_spec(spec)
    if not source and spec not in BUILT_IN:
        raise ModelError(
            f"unknown model {spec!r}{did_you_mean(spec, BUILT_IN)}: "
            f"give one of {', '.join(BUILT_IN)}, or module:attr, or path.py:attr"
        )
    if source.endswith(".py") and not Path(source).is_file():
        raise ModelError(f"model file {source} does not exist")


def check_settings(settings: Settings) -> None:
    """Refuse settings that would not reach the user's own network."""
    spec, dropout = settings.model, settings.dropout
    if is_built_in(spec):
        return
    definition = find_definition(spec, settings.model_arg)
    if settings.ghost_batch_size:
        raise ModelError(f"ghost_batch_size is for built-in networks, {spec} is none: leave it out")
    definition.check(dropout)
    if dropout and "dropout" in definition.arguments:
        raise ModelError("dropout is given by --dropout and by --model-arg: leave one out")
    if dropout and "dropout" not in definition.parameters:
        raise ModelError(
            f"dropout does not reach {spec}, which has no parameter of that name: "
            "leave it out, or add the parameter"
        )


def made_for(recipe: str) -> str | None:
    """Return the built-in network that a recipe was made for; None for a general one."""
    return next((name for name, network in BUILT_IN.items() if network.recipe == recipe), None)


def is_built_in(network: str | nn.Module) -> bool:
    """Return whether a spec or module is one of the tool's own (no code of the user's runs)."""
    if isinstance(network, str):
        return network in BUILT_IN
    return type(network) in BUILT_IN.values()
