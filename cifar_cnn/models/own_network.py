"""What a spec names: a class or factory of networks, or a network; and how it is built."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cifar_cnn.errors import ModelError, did_you_mean, first_few
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import copy_network
from cifar_cnn.models.own_code import import_source

NUM_CLASSES = 10
"""Outputs of a network that needs a number of classes if nothing says it."""
CLASSES = ("num_classes", "n_classes", "classes")
"""Parameters of a class or factory that take the number of classes."""


Arguments = Mapping[str, Any]


class Definition:
    """What a spec names, and the arguments that the user passes to it."""

    def __init__(
        self, spec: str, target: object, arguments: Arguments, module: ModuleType | None = None
    ) -> None:
        self.spec, self.target, self.arguments, self.module = spec, target, arguments, module
        self.name = spec.rpartition(":")[2]
        self.parameters, self.takes_any = _read_parameters(target)

    @property
    def file(self) -> Path | None:
        """The Python file that defines the user's network; None if there is none."""
        module: object = self.module
        if module and (inspect.isclass(self.target) or inspect.isfunction(self.target)):
            module = sys.modules.get(self.target.__module__, module)
        file = getattr(module, "__file__", None) or ""
        return Path(file) if file.endswith(".py") else None

    def find_missing(self, *filled: str) -> list[str]:
        """Return the parameters that only the user can fill in, and has not."""
        known = {*CLASSES, *self.arguments, *filled}
        return [n for n, p in self.parameters.items() if p.default is p.empty and n not in known]

    def find_unknown(self) -> list[str]:
        """Return the arguments that it does not take."""
        return [n for n in self.arguments if not (self.takes_any or n in self.parameters)]

    def is_buildable(self, *filled: str) -> bool:
        """Return whether it can be built with its arguments and those that are filled in."""
        return not self.find_missing(*filled) and not self.find_unknown()

    def check(self, dropout: float | None) -> None:
        """Refuse what cannot be built, arguments that it does not take, and missing ones."""
        problem = None
        if not callable(self.target):
            problem = (
                f"is {type(self.target).__name__} data, not a class or factory: "
                "name something that returns the network when called without arguments"
            )
        elif unknown := self.find_unknown():
            hint = did_you_mean(unknown[0], self.parameters)
            has = f"it has {', '.join(self.parameters)}" if self.parameters else ""
            problem = f"has no argument {unknown[0]!r}{hint}: {has or 'leave --model-arg out'}"
        elif missing := self.find_missing(*([] if dropout is None else ["dropout"])):
            in_train = " (to train, dropout by --dropout VALUE)" if "dropout" in missing else ""
            problem = (
                f"needs arguments ({', '.join(missing)}): "
                f"give them, as --model-arg {missing[0]}=VALUE{in_train}, or give them defaults"
            )
        if problem:
            raise ModelError(f"model {self.spec!r} {problem}")

    def build(self, num_classes: int | None, dropout: float | None) -> nn.Module:
        """Return what the class or factory makes of its arguments, or a copy of the instance."""
        self.check(dropout)
        if isinstance(self.target, nn.Module):
            return copy_network(self.target)
        assert callable(self.target)
        defaults: dict[str, object] = {}
        if dropout is not None and "dropout" in self.parameters:
            defaults["dropout"] = dropout
        for name in self.parameters.keys() & {*CLASSES}:
            default = self.parameters[name].default
            if default is inspect.Parameter.empty:
                defaults[name] = NUM_CLASSES if num_classes is None else num_classes
            elif num_classes is not None and (default is None or type(default) is int):
                defaults[name] = num_classes  # never in place of a list of names
        with guarded(f"model {self.spec!r} cannot be built", ModelError):
            model = self.target(**defaults | dict(self.arguments))
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise ModelError(f"model {self.spec!r} returns {kind}, not a torch.nn.Module")
        return model

    def describe_remedy(self, num_classes: int | None) -> str:
        """Return what to do if the network has another number of outputs than classes."""
        takes = [n for n in CLASSES if n in self.parameters] + ["num_classes"] * self.takes_any
        if takes:
            return f": --model-arg {takes[0]}={num_classes} makes it so"
        return ": change its last layer, or give it a parameter num_classes, which is filled in"


def _read_parameters(target: object) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return what a class or factory takes, and whether it takes arguments of any name."""
    if isinstance(target, nn.Module) or not callable(target):
        return {}, False
    try:
        every = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a builtin may have none
        return {}, True
    parameters = {p.name: p for p in every if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}}
    return parameters, any(p.kind is p.VAR_KEYWORD for p in every)


def split_spec(spec: str) -> tuple[str, str]:
    """Return module or file, and attribute; both empty for a plain name."""
    if spec.endswith(".py"):
        return spec, ""
    source, _, attribute = spec.rpartition(":")
    return source, attribute


def find_own(spec: str, arguments: Arguments) -> Definition:
    """Return what `path.py:attr` or `module:attr` names, or the only network of a `path.py`."""
    source, attribute = split_spec(spec)
    with guarded(f"model {spec!r}: importing {source} failed", ModelError):
        module = import_source(source)
    if not attribute:
        return _only_network(spec, _find_networks(spec, arguments, module))
    with guarded(f"model {spec!r}: reading {attribute!r} failed", ModelError):
        try:
            return Definition(spec, attrgetter(attribute)(module), arguments, module)
        except AttributeError as error:
            kinds = _find_networks(spec, arguments, module)
            names = [each.name for kind in kinds for each in kind]
            has = f"; it has {first_few(names, 12)}" if names else ""
            hint = did_you_mean(str(error.name), dir(error.obj))
            raise ModelError(f"model {spec!r}: {source} has no {attribute!r}{hint}{has}") from error


def _find_networks(spec: str, arguments: Arguments, module: ModuleType) -> list[list[Definition]]:
    """Return a module's own classes of networks, the networks in it, and its own functions."""

    def is_own(name: str, value: object) -> bool:
        return not name.startswith("_") and getattr(value, "__module__", "") == module.__name__

    values = [(n, v) for n, v in vars(module).items() if isinstance(v, nn.Module) or is_own(n, v)]
    return [
        [Definition(f"{spec}:{n}", v, arguments, module) for n, v in values if is_of_kind(v)]
        for is_of_kind in (
            lambda v: inspect.isclass(v) and issubclass(v, nn.Module),
            lambda v: isinstance(v, nn.Module),
            inspect.isfunction,
        )
    ]


def _only_network(spec: str, kinds: Sequence[list[Definition]]) -> Definition:
    """Return the only network of a file.

    Groups are tried in this order: classes that can be built with the arguments, networks that are
    built already, functions that take the arguments; the same with `dropout` filled in; classes
    that lack no argument; then any class, network or function, whose arguments are wrong. The first
    group with a member must have exactly one.
    """
    tiers = [
        [each for each in kind if each.is_buildable(*filled)]
        for filled in ((), ("dropout",))
        for kind in kinds
    ]
    buildable = [each for each in kinds[0] if not each.find_missing()]
    candidates = next(filter(None, [*tiers, buildable, *kinds]), [])
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ModelError(
            f"{spec} has no class or factory of a network: name what there is, as {spec}:attr"
        )
    takes = {each.name: ", ".join(each.parameters) for each in candidates}
    known = {name for each in candidates for name in each.parameters}
    wrong = [n for n in candidates[0].arguments if n not in known]
    raise ModelError(
        f"{spec} has several networks, {', '.join(f'{n} ({p})' for n, p in takes.items())}"
        f"{''.join(f'; none takes {n!r}{did_you_mean(n, known)}' for n in wrong)}: name one, as "
        f"{spec}:{candidates[-1].name}, and pass its arguments by --model-arg NAME=VALUE"
    )
