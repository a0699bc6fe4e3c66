"""The user's own network: which one a spec names, what it takes, and how it is built."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cifar_cnn.errors import ModelError, did_you_mean, one_line
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import copy_network
from cifar_cnn.models.own_code import import_source

NUM_CLASSES = 10
"""Outputs of a network that needs a number and is given none."""
CLASSES = ("num_classes", "n_classes", "classes")
"""Parameters of a user's class or factory that take the number of classes."""
MOST_LISTED = 12
"""Names in a file that a message lists."""

Arguments = Mapping[str, Any]


class OwnNetwork:
    """What a spec names in a module: a class or factory of networks, or a network."""

    def __init__(self, spec: str, target: object, module: ModuleType) -> None:
        self.spec, self.target, self.module = spec, target, module
        self.name = spec.rpartition(":")[2]
        self.parameters: dict[str, inspect.Parameter] = {}
        self.takes_any = True
        if callable(target) and not isinstance(target, nn.Module):
            try:
                every = inspect.signature(target).parameters.values()
            except (TypeError, ValueError):  # a builtin may have none
                return
            kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            self.parameters = {each.name: each for each in every if each.kind not in kinds}
            self.takes_any = any(each.kind is each.VAR_KEYWORD for each in every)

    @property
    def file(self) -> Path | None:
        """The Python file that defines it; None if there is none."""
        module: object = self.module
        if inspect.isclass(self.target) or inspect.isfunction(self.target):
            module = sys.modules.get(self.target.__module__, module)
        file = getattr(module, "__file__", None) or ""
        return Path(file) if file.endswith(".py") else None

    def missing(self, arguments: Arguments) -> list[str]:
        """Return the parameters that only the user can fill in, and has not."""
        filled = {*CLASSES, *arguments}
        return [n for n, p in self.parameters.items() if p.default is p.empty and n not in filled]

    def takes(self, arguments: Arguments) -> bool:
        """Return whether it can be built with these arguments and the number of classes."""
        if isinstance(self.target, nn.Module):
            return not arguments
        return not self.missing(arguments) and (
            self.takes_any or arguments.keys() <= self.parameters.keys()
        )

    def check(self, dropout: float | None, arguments: Arguments) -> None:
        """Refuse what cannot be built, arguments that it lacks, and the lack of those it needs."""
        if isinstance(self.target, nn.Module):
            if arguments:
                raise self._error("is an instance, built already: leave --model-arg out")
            return
        if not callable(self.target):
            raise self._error(
                f"is {type(self.target).__name__} data, not a class or factory: "
                "name something that returns the network when called without arguments"
            )
        known = self.parameters
        for name in arguments:
            if self.takes_any or name in known:
                continue
            has = f"it has {', '.join(known)}" if known else "leave --model-arg out"
            raise self._error(f"has no argument {name!r}{did_you_mean(name, known)}: {has}")
        given = arguments if dropout is None else {"dropout": dropout, **arguments}
        if missing := self.missing(given):
            in_train = " (to train, dropout by --dropout VALUE)" if "dropout" in missing else ""
            raise self._error(
                f"needs arguments ({', '.join(missing)}): "
                f"give them, as --model-arg {missing[0]}=VALUE{in_train}, or give them defaults"
            )

    def build(
        self, num_classes: int | None, dropout: float | None, arguments: Arguments
    ) -> nn.Module:
        """Return what the class or factory makes of these, or a copy of the instance."""
        self.check(dropout, arguments)
        if isinstance(self.target, nn.Module):
            return copy_network(self.target)
        assert callable(self.target)
        with guarded(f"model {self.spec!r} cannot be built", ModelError):
            try:
                model = self.target(**self._filled_in(num_classes, dropout) | dict(arguments))
            except TypeError as error:
                if "required" not in str(error):  # of what the factory calls
                    raise
                raise self._error(
                    f"needs arguments ({one_line(error)}): "
                    "give them defaults, or name a function that fills them in"
                ) from error
        if not isinstance(model, nn.Module):
            raise self._error(f"returns {type(model).__name__}, not a torch.nn.Module")
        return model

    def _filled_in(self, num_classes: int | None, dropout: float | None) -> dict[str, object]:
        """Return the arguments for its parameters named after the number of classes and dropout."""
        given: dict[str, object] = {}
        if "dropout" in self.parameters and dropout is not None:
            given["dropout"] = dropout
        for name in self.parameters.keys() & {*CLASSES}:
            default = self.parameters[name].default
            if default is inspect.Parameter.empty:
                given[name] = NUM_CLASSES if num_classes is None else num_classes
            elif num_classes is not None and (default is None or type(default) is int):
                given[name] = num_classes  # never in place of a list of names
        return given

    def _error(self, reason: str) -> ModelError:
        return ModelError(f"model {self.spec!r} {reason}")


def split(spec: str) -> tuple[str, str]:
    """Return module or file, and attribute; both empty for a plain name."""
    if spec.endswith(".py"):
        return spec, ""
    source, _, attribute = spec.rpartition(":")
    return source, attribute


def find_own(spec: str, arguments: Arguments) -> OwnNetwork:
    """Return what `path.py:attr` or `module:attr` names, or the only network of a `path.py`."""
    source, attribute = split(spec)
    with guarded(f"model {spec!r}: importing {source} failed", ModelError):
        module = import_source(source)
    if not attribute:
        return _only_network(spec, _networks(spec, module), arguments)
    target: object = module
    with guarded(f"model {spec!r}: reading {attribute!r} failed", ModelError):
        for part in attribute.split("."):
            if not hasattr(target, part):
                names = [each.name for kind in _networks(spec, module) for each in kind]
                more = ", …" if len(names) > MOST_LISTED else ""
                has = f"; it has {', '.join(names[:MOST_LISTED])}{more}" if names else ""
                hint = did_you_mean(part, dir(target))
                raise ModelError(f"model {spec!r}: {source} has no {attribute!r}{hint}{has}")
            target = getattr(target, part)
    return OwnNetwork(spec, target, module)


def _networks(spec: str, module: ModuleType) -> tuple[list[OwnNetwork], ...]:
    """Return a module's own classes of networks, the networks in it, and its own functions."""
    classes: list[OwnNetwork] = []
    ready: list[OwnNetwork] = []
    functions: list[OwnNetwork] = []
    for name, value in vars(module).items():
        is_own = not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        found = OwnNetwork(f"{spec}:{name}", value, module)
        if isinstance(value, nn.Module):
            ready.append(found)
        elif is_own and inspect.isclass(value) and issubclass(value, nn.Module):
            classes.append(found)
        elif is_own and inspect.isfunction(value):
            functions.append(found)
    return classes, ready, functions


def _only_network(spec: str, kinds: Sequence[list[OwnNetwork]], arguments: Arguments) -> OwnNetwork:
    """Return the only network that fits: see `full_spec`."""
    tiers = [
        [each for each in kind if each.takes(given)]
        for given in (arguments, {"dropout": None, **arguments})
        for kind in kinds
    ]
    buildable = [each for each in kinds[0] if not each.missing(arguments)]
    found = next(filter(None, [*tiers, buildable, *kinds]), [])
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(
            f"{spec} has no class or factory of a network: name what there is, as {spec}:attr"
        )
    names = [each.name for each in found]
    if not any(each.missing(arguments) for each in found):
        raise ModelError(
            f"{spec} has several networks: name one, as {spec}:{names[0]} ({', '.join(names)})"
        )
    known = {name for each in found for name in each.parameters}
    needs = ", ".join(f"{each.name} ({', '.join(each.parameters)})" for each in found)
    unknown = [f"; none has {n!r}{did_you_mean(n, known)}" for n in arguments if n not in known]
    raise ModelError(
        f"each network of {spec} needs arguments, {needs}{''.join(unknown)}: name one, as "
        f"{spec}:{names[-1]}, and give its own by --model-arg NAME=VALUE"
    )
