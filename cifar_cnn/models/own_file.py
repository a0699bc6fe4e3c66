"""What a spec names in the user's code: which network of a file, and where it is defined."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cifar_cnn.errors import ModelError, did_you_mean
from cifar_cnn.models.factory import missing_arguments, parameters, unknown_arguments
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.own_code import import_source

MOST_LISTED = 12
"""Names in a file that a message lists."""


def split(spec: str) -> tuple[str, str]:
    """Return module or file, and attribute; both empty for a plain name."""
    if spec.endswith(".py"):
        return spec, ""
    source, _, attribute = spec.rpartition(":")
    return source, attribute


def attribute_of(spec: str) -> object:
    """Return what `path.py:attr` or `module:attr` names."""
    source, attribute = split(spec)
    target: object = _import(spec, source)

    with guarded(f"model {spec!r}: reading {attribute!r} failed", ModelError):
        for part in attribute.split("."):
            if not hasattr(target, part):
                hint = did_you_mean(part, dir(target))
                networks = [name for kind in _own(_import(spec, source)) for name in kind]
                more = ", …" if len(networks) > MOST_LISTED else ""
                has = f"; it has {', '.join(networks[:MOST_LISTED])}{more}" if networks else ""
                raise ModelError(f"model {spec!r}: {source} has no {attribute!r}{hint}{has}")
            target = getattr(target, part)
    return target


def defined_in(spec: str) -> Path | None:
    """Return the Python file of a class or function; of something else, its module's."""
    target = attribute_of(spec)
    module: object = _import(spec, split(spec)[0])
    if inspect.isclass(target) or inspect.isfunction(target):
        module = sys.modules.get(target.__module__, module)
    file = getattr(module, "__file__", None) or ""
    return Path(file) if file.endswith(".py") else None


def only_network(spec: str, arguments: Mapping[str, Any]) -> str:
    """Return the name of the one network in the file `spec`: see `full_spec`."""
    found = _networks(_import(spec, spec), arguments)
    if not found:
        raise ModelError(
            f"{spec} has no class or factory of a network: name what there is, as {spec}:attr"
        )
    first, *others = found
    if not others:
        return first
    if any(missing_arguments(each, arguments) for each in found.values()):
        raise ModelError(_which_needs_what(spec, found, arguments))
    raise ModelError(
        f"{spec} has several networks: name one, as {spec}:{first} ({', '.join(found)})"
    )


def _import(spec: str, source: str) -> ModuleType:
    with guarded(f"model {spec!r}: importing {source} failed", ModelError):
        return import_source(source)


def _which_needs_what(spec: str, found: Mapping[str, object], arguments: Mapping[str, Any]) -> str:
    """Return the line on a file's networks, each of which lacks an argument."""
    known = {name for each in found.values() for name in parameters(each)}
    unknown = [
        f"none has {name!r}{did_you_mean(name, known)}" for name in arguments if name not in known
    ]
    needs = [f"{name} ({', '.join(parameters(each))})" for name, each in found.items()]
    said = "; ".join([f"each network of {spec} needs arguments, {', '.join(needs)}", *unknown])
    return f"{said}: name one, as {spec}:{[*found][-1]}, and give its own by --model-arg NAME=VALUE"


def _own(module: ModuleType) -> tuple[Mapping[str, object], ...]:
    """Return a module's own classes of networks, its own functions, and the networks in it."""
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }
    classes = {
        name: value
        for name, value in own.items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    }
    functions = {name: value for name, value in own.items() if inspect.isfunction(value)}
    ready = {name: value for name, value in vars(module).items() if isinstance(value, nn.Module)}
    return classes, functions, ready


def _networks(module: ModuleType, arguments: Mapping[str, Any]) -> Mapping[str, object]:
    """Return what may be the network of a file, by name: see `full_spec`."""
    classes, functions, ready = _own(module)

    def buildable(named: Mapping[str, object]) -> dict[str, object]:
        return {n: each for n, each in named.items() if not missing_arguments(each, arguments)}

    def taking(named: Mapping[str, object], given: Mapping[str, Any]) -> dict[str, object]:
        return {
            name: each
            for name, each in named.items()
            if not missing_arguments(each, given) and not unknown_arguments(each, given)
        }

    with_dropout = {"dropout": None, **arguments}
    tiers: tuple[Mapping[str, object], ...] = (
        taking(classes, arguments),
        {} if arguments else ready,
        taking(functions, arguments),
        buildable(classes),
        taking(classes, with_dropout),
        taking(functions, with_dropout),
        classes,
        functions,
        ready,
    )
    return next(filter(None, tiers), {})
