"""What the user's class or factory takes, and the network that it returns."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from cifar_cnn.errors import ModelError, did_you_mean, one_line
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import copy_network

NUM_CLASSES = 10
"""Outputs of a network that needs a number and is given none."""

CLASSES = ("num_classes", "n_classes", "classes")
"""Parameters of a user's class or factory that take the number of classes."""


def construct(
    spec: str,
    factory: object,
    num_classes: int | None,
    dropout: float | None,
    arguments: Mapping[str, Any],
) -> nn.Module:
    """Return the network that the user's class or factory makes, or a copy of the user's instance.

    Besides the `arguments`, a parameter `dropout` and one of the names `CLASSES` are filled in.
    """
    check_arguments(spec, factory, dropout, arguments)
    if isinstance(factory, nn.Module):
        return copy_network(factory)
    assert callable(factory)
    with guarded(f"model {spec!r} cannot be built", ModelError):
        try:
            model = factory(**{**_filled_in(factory, num_classes, dropout), **arguments})
        except TypeError as error:
            if "required" not in str(error):  # of what the factory calls
                raise
            raise ModelError(
                f"model {spec!r} needs arguments ({one_line(error)}): "
                "give them defaults, or name a function that fills them in"
            ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {spec!r} returns {type(model).__name__}, not a torch.nn.Module")
    return model


def check_arguments(
    spec: str, factory: object, dropout: float | None, arguments: Mapping[str, Any]
) -> None:
    """Refuse arguments that a class or factory does not have, and the lack of one that it needs."""
    if isinstance(factory, nn.Module):
        if arguments:
            raise ModelError(f"model {spec!r} is an instance, built already: {_TAKES_NONE}")
        return
    if not callable(factory):
        raise ModelError(
            f"model {spec!r} is {type(factory).__name__} data, not a class or factory: "
            "name something that returns the network when called without arguments"
        )
    unknown = unknown_arguments(factory, arguments)
    if unknown:
        known = parameters(factory)
        has = f"it has {', '.join(known)}" if known else _TAKES_NONE
        raise ModelError(
            f"model {spec!r} has no argument {unknown[0]!r}{did_you_mean(unknown[0], known)}: {has}"
        )
    given = arguments if dropout is None else {"dropout": dropout, **arguments}
    missing = missing_arguments(factory, given)
    if missing:
        in_train = " (to train, dropout by --dropout VALUE)" if "dropout" in missing else ""
        raise ModelError(
            f"model {spec!r} needs arguments ({', '.join(missing)}): "
            f"give them, as --model-arg {missing[0]}=VALUE{in_train}, or give them defaults"
        )


_TAKES_NONE = "leave --model-arg out"


def missing_arguments(factory: object, arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of the parameters that only the user could fill in, and has not."""
    named = parameters(factory).items()
    return [
        name
        for name, p in named
        if p.default is p.empty and name not in CLASSES and name not in arguments
    ]


def unknown_arguments(factory: object, arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of the arguments that the class or factory does not have."""
    if takes_any(factory):
        return []  # calling it tells
    return [name for name in arguments if name not in parameters(factory)]


def takes_any(factory: object) -> bool:
    """Return whether a class or factory has `**kwargs`, or does not say what it takes."""
    signature = _signature(factory)
    kinds = [p.kind for p in signature.parameters.values()] if signature else []
    return signature is None or inspect.Parameter.VAR_KEYWORD in kinds


def parameters(factory: object) -> dict[str, inspect.Parameter]:
    """Return the parameters that can be given by name, and those that have to be by place."""
    signature = _signature(factory)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = signature.parameters.items() if signature else ()
    return {name: p for name, p in named if p.kind not in kinds}


def _signature(factory: object) -> inspect.Signature | None:
    if not callable(factory) or isinstance(factory, nn.Module):
        return None
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # a builtin may have none
        return None


def _filled_in(
    factory: object, num_classes: int | None, dropout: float | None
) -> dict[str, object]:
    """Return what the factory takes of the two; a number of classes also where it needs one."""
    given: dict[str, object] = {}
    for name, parameter in parameters(factory).items():
        if name == "dropout" and dropout is not None:
            given[name] = dropout
        if name in CLASSES and parameter.default is parameter.empty:
            given[name] = NUM_CLASSES if num_classes is None else num_classes
        elif name in CLASSES and num_classes is not None and _is_number(parameter.default):
            given[name] = num_classes
    return given


def _is_number(default: object) -> bool:
    """Say whether a default is a number of classes, or None for one: not a list of their names."""
    return default is None or type(default) is int
