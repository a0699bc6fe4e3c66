"""How a name becomes a network."""

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from cifar_cnn.errors import ModelError, did_you_mean, one_line
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.compact import Compact
from cifar_cnn.models.own_code import import_source
from cifar_cnn.settings import Settings

BUILT_IN: dict[str, Callable[..., nn.Module]] = {"baseline": Baseline, "compact": Compact}


NUM_CLASSES = 10
"""Outputs of a network that needs a number and is given none."""

CLASSES = ("num_classes", "n_classes", "classes")
"""Parameters of a user's class or factory that take the number of classes."""


def build_model(
    spec: str, num_classes: int | None = None, dropout: float | None = None, *, device: str = "cpu"
) -> nn.Module:
    """Build the network that `spec` names.

    Args:
        spec: a built-in name (`baseline`), `path.py`, `path.py:attr` or `module:attr`. The others
            name a class or factory, or an instance, which is copied; see `full_spec`.
        num_classes: outputs of a built-in network (10 unless said), and what a parameter of the
            user's class or factory gets that has one of the names `CLASSES`.
        dropout: dropout probability of a built-in network (0 unless said), and of the user's where
            its class or factory has a parameter of that name.
        device: where the weights are made; `meta` gives shapes without memory.

    Raises:
        ModelError: the name is unknown, or what it names cannot be imported or built.
    """
    check_spec(spec)
    if spec in BUILT_IN:
        with torch.device(device):
            return BUILT_IN[spec](
                num_classes=NUM_CLASSES if num_classes is None else num_classes,
                dropout=dropout or 0.0,
            )
    factory = _load_attribute(spec)
    with torch.device(device):
        return _construct(spec, factory, num_classes, dropout)


def check_spec(spec: str) -> None:
    """Refuse what names no network at first sight, before anything is loaded for it.

    Raises:
        ModelError: it is no built-in name, nor of the form of the others, or its file is missing.
    """
    source, _ = _split(spec)
    if not source and spec not in BUILT_IN:
        known = ", ".join(BUILT_IN)
        raise ModelError(
            f"unknown model {spec!r}{did_you_mean(spec, BUILT_IN)}: "
            f"give one of {known}, or module:attr, or path.py:attr"
        )
    if source.endswith(".py") and not Path(source).is_file():
        raise ModelError(f"model file {source} does not exist")


def full_spec(spec: str) -> str:
    """Return `path.py:attr` for a `path.py`: the one network in it; other specs as they are.

    That is the only class of a network that needs no arguments; without one, the only network that
    stands there ready; without one, the only function that needs no arguments.

    Raises:
        ModelError: the file cannot be imported, or has no such network or several.
    """
    check_spec(spec)
    source, attribute = _split(spec)
    if not source or attribute:
        return spec
    found = _networks(_import(spec, source))
    if len(found) == 1:
        return f"{spec}:{found[0]}"
    if found:
        raise ModelError(
            f"{spec} has several networks: name one, as {spec}:{found[0]} ({', '.join(found)})"
        )
    raise ModelError(
        f"{spec} has no class or factory of a network that needs no arguments: "
        f"name what there is, as {spec}:attr"
    )


def check_heard(settings: Settings) -> None:
    """Refuse settings that the user's own network would not hear of.

    Raises:
        ModelError: there is one, or the network is unknown or cannot be imported.
    """
    spec = settings.model
    check_spec(spec)
    if spec in BUILT_IN:
        return
    if settings.ghost_batch_size:
        raise ModelError(f"ghost_batch_size is for built-in networks, {spec} is none: leave it out")
    if settings.dropout and "dropout" not in _parameters(_load_attribute(spec)):
        raise ModelError(
            f"dropout does not reach {spec}, which has no parameter of that name: "
            "leave it out, or add the parameter"
        )


def is_built_in(spec: str) -> bool:
    """Say whether `spec` names one of the tool's own networks (no code of the user's runs)."""
    return spec in BUILT_IN


def is_own(model: nn.Module) -> bool:
    """Say whether `model` is one of the tool's own networks, which keep nothing between layers."""
    return isinstance(model, (Baseline, Compact))


def _split(spec: str) -> tuple[str, str]:
    """Return module or file, and attribute; both empty for a plain name."""
    if spec.endswith(".py"):
        return spec, ""
    source, _, attribute = spec.rpartition(":")
    return source, attribute


def _load_attribute(spec: str) -> object:
    source, attribute = _split(full_spec(spec))
    target: object = _import(spec, source)
    for part in attribute.split("."):
        if not hasattr(target, part):
            hint = did_you_mean(part, dir(target))
            raise ModelError(f"model {spec!r}: {source} has no {attribute!r}{hint}")
        target = getattr(target, part)
    return target


def _import(spec: str, source: str) -> ModuleType:
    try:
        return import_source(source)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ModelError(
            f"model {spec!r}: importing {source} failed: {type(error).__name__}: {one_line(error)}"
        ) from error


def _networks(module: ModuleType) -> list[str]:
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }
    classes = [
        name
        for name, value in own.items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and not _required(value)
    ]
    ready = [name for name, value in vars(module).items() if isinstance(value, nn.Module)]
    functions = [
        name for name, value in own.items() if inspect.isfunction(value) and not _required(value)
    ]
    return classes or ready or functions


def _construct(
    spec: str, factory: object, num_classes: int | None, dropout: float | None
) -> nn.Module:
    if isinstance(factory, nn.Module):
        return copy.deepcopy(factory)
    if not callable(factory):
        raise ModelError(
            f"model {spec!r} is {type(factory).__name__} data, not a class or factory: "
            "name something that returns the network when called without arguments"
        )
    required = _required(factory)
    if required:
        raise _needs(spec, ", ".join(required))
    try:
        model = factory(**_arguments(factory, num_classes, dropout))
    except (Exception, SystemExit) as error:  # a user's constructor may raise anything
        if isinstance(error, TypeError) and "required" in str(error):  # of what the factory calls
            raise _needs(spec, one_line(error)) from error
        raise ModelError(
            f"model {spec!r} cannot be built: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {spec!r} returns {type(model).__name__}, not a torch.nn.Module")
    return model


def _needs(spec: str, what: str) -> ModelError:
    return ModelError(
        f"model {spec!r} needs arguments ({what}): "
        "give them defaults, or name a function that fills them in"
    )


def _arguments(
    factory: Callable[..., object], num_classes: int | None, dropout: float | None
) -> dict[str, object]:
    """Return what the factory takes of the two; a number of classes also where it needs one."""
    given: dict[str, object] = {}
    for name, parameter in _parameters(factory).items():
        if name == "dropout" and dropout is not None:
            given[name] = dropout
        if name in CLASSES and parameter.default is parameter.empty:
            given[name] = NUM_CLASSES if num_classes is None else num_classes
        elif name in CLASSES and num_classes is not None and type(parameter.default) is int:
            given[name] = num_classes
    return given


def _required(factory: Callable[..., object]) -> list[str]:
    """Return the names of the arguments that only the user could give."""
    named = _parameters(factory).items()
    return [name for name, p in named if p.default is p.empty and name not in CLASSES]


def _parameters(factory: object) -> Mapping[str, inspect.Parameter]:
    """Return the parameters that can be given by name, and those that have to be by place."""
    if not callable(factory) or isinstance(factory, nn.Module):
        return {}
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # builtins without a signature: calling them tells
        return {}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in parameters.items() if p.kind not in kinds}
