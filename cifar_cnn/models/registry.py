"""How a name becomes a network."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.errors import ModelError, did_you_mean
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.compact import Compact
from cifar_cnn.models.factory import (
    CLASSES,
    NUM_CLASSES,
    check_arguments,
    construct,
    parameters,
    takes_any,
)
from cifar_cnn.models.output import check_output
from cifar_cnn.models.own_file import attribute_of, defined_in, only_network, split
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
    arguments = _arguments(spec, model_arg)
    if spec in BUILT_IN:
        with torch.device(device):
            return BUILT_IN[spec](
                num_classes=NUM_CLASSES if num_classes is None else num_classes,
                dropout=dropout or 0.0,
            )
    factory = _load_attribute(spec, model_arg)
    with torch.device(device):
        return construct(spec, factory, num_classes, dropout, arguments)


def build_for(settings: Settings, num_classes: int | None) -> nn.Module:
    """Build the network that the settings say, for so many classes."""
    return build_model(settings.model, num_classes, settings.dropout, model_arg=settings.model_arg)


def build_checked(settings: Settings, num_classes: int | None) -> tuple[nn.Module, Tensor]:
    """Build that network, and return it with its output for a black image: it fits both.

    Lazy layers have taken their shape then. None is any number of classes.
    """
    model = build_for(settings, num_classes)
    mended = _how_to_mend_outputs(settings, num_classes)
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
    one, the same of those that take `dropout` besides. Where nothing does, it is the only class or
    function, whose arguments are wrong.
    """
    arguments = _arguments(spec, model_arg)
    source, attribute = split(spec)
    if not source or attribute:
        return spec
    return f"{spec}:{only_network(spec, arguments)}"


def source_file(spec: str, model_arg: Sequence[str] = ()) -> Path | None:
    """Return the file that the user's network stands in; None for a built-in one, or one in none.

    Of a module's class or function, that is the file in which it is defined.
    """
    check_spec(spec)
    source, _ = split(spec)
    if spec in BUILT_IN or source.endswith(".py"):
        return None if spec in BUILT_IN else Path(source)
    return defined_in(full_spec(spec, model_arg))


def check_heard(settings: Settings) -> None:
    """Refuse settings that the user's own network would not hear of."""
    spec = settings.model
    arguments = _arguments(spec, settings.model_arg)
    if spec in BUILT_IN:
        return
    if settings.ghost_batch_size:
        raise ModelError(f"ghost_batch_size is for built-in networks, {spec} is none: leave it out")
    factory = _load_attribute(spec, settings.model_arg)
    check_arguments(spec, factory, settings.dropout, arguments)
    if settings.dropout and "dropout" in arguments:
        raise ModelError("dropout is given by --dropout and by --model-arg: leave one out")
    if settings.dropout and "dropout" not in parameters(factory):
        raise ModelError(
            f"dropout does not reach {spec}, which has no parameter of that name: "
            "leave it out, or add the parameter"
        )


def is_built_in(spec: str) -> bool:
    """Say whether `spec` names one of the tool's own networks (no code of the user's runs)."""
    return spec in BUILT_IN


def is_own(model: nn.Module) -> bool:
    """Say whether `model` is one of the tool's own networks, which keep nothing between layers."""
    return type(model) in BUILT_IN.values()


def in_layout(model: nn.Module, images: Tensor) -> Tensor:
    """Return the images channels-last for one of the tool's own networks, else contiguous."""
    layout = torch.channels_last if is_own(model) else torch.contiguous_format
    return images.contiguous(memory_format=layout)


def _arguments(spec: str, model_arg: Sequence[str]) -> dict[str, Any]:
    """Return the arguments by name; refuse a spec that names no network, or one without any."""
    check_spec(spec)
    if model_arg and spec in BUILT_IN:
        raise ModelError(f"{spec} is built in and takes no arguments: leave --model-arg out")
    try:
        return parse_arguments(model_arg)
    except ValueError as error:
        raise ModelError(f"model argument {error}") from error


def _how_to_mend_outputs(settings: Settings, num_classes: int | None) -> str:
    """Return what to do where the network has another number of outputs; "" for a built-in one."""
    if settings.model in BUILT_IN:
        return ""
    factory = _load_attribute(settings.model, settings.model_arg)
    taken = parameters(factory)
    name = next((each for each in CLASSES if each in taken), None)
    if name:
        return f": --model-arg {name}={num_classes} makes it so"
    if takes_any(factory) and not isinstance(factory, nn.Module):
        return f": --model-arg num_classes={num_classes} makes it so, if it passes that on"
    return ": change its last layer, or give it a parameter num_classes, which is filled in"


def _load_attribute(spec: str, model_arg: Sequence[str]) -> object:
    return attribute_of(full_spec(spec, model_arg))
