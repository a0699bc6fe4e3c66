"""How a name becomes a network."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.errors import ModelError, did_you_mean
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.compact import Compact
from cifar_cnn.models.output import check_output
from cifar_cnn.models.own_network import CLASSES, NUM_CLASSES, OwnNetwork, find_own, split
from cifar_cnn.settings import Settings, parse_arguments
from cifar_cnn.settings.fields import MODELS

BUILT_IN: dict[str, Callable[..., nn.Module]] = dict(zip(MODELS, (Baseline, Compact), strict=True))


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
            name a class or factory, or an instance, which is copied; see `full_spec`.
        num_classes: outputs of a built-in network (10 unless said), and what a parameter of the
            user's class or factory gets that is named `num_classes`, `n_classes` or `classes`.
        dropout: dropout probability of a built-in network (0 unless said), and of the user's where
            its class or factory has a parameter of that name.
        model_arg: arguments of the user's class or factory, each `NAME=VALUE`, before those two.
        device: where the weights are made; `meta` gives shapes without memory.

    Raises:
        ModelError: the name is unknown, or what it names cannot be imported or built.
    """
    own, arguments = _find(spec, model_arg)
    with torch.device(device):
        if own is not None:
            return own.build(num_classes, dropout, arguments)
        num_classes = NUM_CLASSES if num_classes is None else num_classes
        return BUILT_IN[spec](num_classes=num_classes, dropout=dropout or 0.0)


def build_for(settings: Settings, num_classes: int | None) -> nn.Module:
    """Build the network that the settings say, for so many classes."""
    return build_model(settings.model, num_classes, settings.dropout, model_arg=settings.model_arg)


def build_checked(settings: Settings, num_classes: int | None) -> tuple[nn.Module, Tensor]:
    """Build that network, and return it with its output for a black image: it fits both.

    Lazy layers have taken their shape then. None is any number of classes.
    """
    model = build_for(settings, num_classes)
    own, _ = _find(settings.model, settings.model_arg)
    mended = _how_to_mend_outputs(own, num_classes) if own else ""
    return model, check_output(model, settings.input_size, num_classes, mended=mended)


def check_spec(spec: str) -> None:
    """Refuse what names no network at first sight, before anything is loaded for it."""
    source, _ = split(spec)
    if not source and spec not in BUILT_IN:
        known = ", ".join(BUILT_IN)
        raise ModelError(
            f"unknown model {spec!r}{did_you_mean(spec, BUILT_IN)}: "
            f"give one of {known}, or module:attr, or path.py:attr"
        )
    if source.endswith(".py") and not Path(source).is_file():
        raise ModelError(f"model file {source} does not exist")


def full_spec(spec: str, model_arg: Sequence[str] = ()) -> str:
    """Return `path.py:attr` for a `path.py`: the one network in it; other specs as they are.

    That is the only class of a network that can be built with these arguments; without one, the
    only network that stands there ready; without one, the only function that takes them; without
    one, the same of those that take `dropout` besides. If nothing does, it is the only class or
    function, whose arguments are wrong.
    """
    own, _ = _find(spec, model_arg) if spec.endswith(".py") else (None, {})
    return own.spec if own else spec


def source_file(spec: str, model_arg: Sequence[str] = ()) -> Path | None:
    """Return the file that defines the user's own network; None if no file does."""
    check_spec(spec)
    source, _ = split(spec)
    if source.endswith(".py"):
        return Path(source)
    own, _ = _find(spec, model_arg)
    return own.file if own else None


def check_heard(settings: Settings) -> None:
    """Refuse settings that the user's own network would not hear of."""
    spec, dropout = settings.model, settings.dropout
    own, arguments = _find(spec, settings.model_arg)
    if own is None:
        return
    if settings.ghost_batch_size:
        raise ModelError(f"ghost_batch_size is for built-in networks, {spec} is none: leave it out")
    own.check(dropout, arguments)
    if dropout and "dropout" in arguments:
        raise ModelError("dropout is given by --dropout and by --model-arg: leave one out")
    if dropout and "dropout" not in own.parameters:
        raise ModelError(
            f"dropout does not reach {spec}, which has no parameter of that name: "
            "leave it out, or add the parameter"
        )


def is_built_in(spec: str) -> bool:
    """Return whether `spec` names one of the tool's own networks (no code of the user's runs)."""
    return spec in BUILT_IN


def is_own(model: nn.Module) -> bool:
    """Return whether `model` is one of the tool's networks, which keep nothing between layers."""
    return type(model) in BUILT_IN.values()


def in_layout(model: nn.Module, images: Tensor) -> Tensor:
    """Return the images channels-last for one of the tool's own networks, else contiguous."""
    layout = torch.channels_last if is_own(model) else torch.contiguous_format
    return images.contiguous(memory_format=layout)


def _find(spec: str, model_arg: Sequence[str]) -> tuple[OwnNetwork | None, dict[str, Any]]:
    """Return the user's own network, None for a built-in one, and its arguments by name."""
    check_spec(spec)
    if model_arg and spec in BUILT_IN:
        raise ModelError(f"{spec} is built in and takes no arguments: leave --model-arg out")
    try:
        arguments = parse_arguments(model_arg)
    except ValueError as error:
        raise ModelError(f"model argument {error}") from error
    return None if spec in BUILT_IN else find_own(spec, arguments), arguments


def _how_to_mend_outputs(own: OwnNetwork, num_classes: int | None) -> str:
    """Return what to do if the network has another number of outputs than classes."""
    for name in CLASSES:
        if name in own.parameters:
            return f": --model-arg {name}={num_classes} makes it so"
    if own.takes_any and not isinstance(own.target, nn.Module):
        return f": --model-arg num_classes={num_classes} makes it so, if it passes that on"
    return ": change its last layer, or give it a parameter num_classes, which is filled in"
