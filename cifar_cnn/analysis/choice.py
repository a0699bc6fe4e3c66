"""Choose the rule of an operation: its own, that of its tag, or none."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from cifar_cnn.analysis.calls import leaves, tensors_in
from cifar_cnn.analysis.field import Field, hull, nothing
from cifar_cnn.analysis.layout import reduce
from cifar_cnn.analysis.moves import numbered, views
from cifar_cnn.analysis.outcome import Kind, Outcome, Rule, Shapes, UnsupportedError
from cifar_cnn.analysis.rules import RULES, pointwise, reduction
from cifar_cnn.analysis.windows import adaptive_window

SHAPE_ONLY = {
    *("new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"),
    *("empty_like", "full_like", "ones_like", "zeros_like", "rand_like", "randn_like"),
}
"""Operations that take a tensor's shape and nothing of what is in it."""
NUMBERED = {
    *("index", "index_select", "index_put", "_unsafe_index", "gather", "scatter", "take"),
    *("flip", "roll", "rot90", "repeat", "tril", "triu", "diagonal"),
    *("channel_shuffle", "native_channel_shuffle"),
}
"""Operations that move elements as their arguments say: their numbers tell where to."""
CUTS = {"unsafe_split", "unsafe_split_with_sizes"}
"""Operations that are views, but that torch does not call so."""
MOVED = {"self", "values", "src", "input", "source"}
"""Names of the arguments whose elements an operation moves; others say where to."""


@dataclass(frozen=True)
class Operation:
    """An ATen operation, and what it is given.

    Args:
        name: of the operation, with the underscore of one in place.
        func: the operation itself.
        args: its positional arguments.
        kwargs: its other arguments.
        function: what the network called.
        field_of: gives the field of a tensor; None if the image has no part in it.
    """

    name: str
    func: Any
    args: Any
    kwargs: dict[str, Any]
    function: str
    field_of: Callable[[Tensor], Field | None]

    @cached_property
    def op(self) -> str:
        """Its name; in place it has the same."""
        return self.name.removesuffix("_") if self.is_write else self.name

    @cached_property
    def schema(self) -> Any:
        """Torch's own description of its arguments and results."""
        return self.func._schema  # noqa: SLF001

    @property
    def named(self) -> list[tuple[str, Any]]:
        """Its positional arguments, with their names."""
        names = (argument.name for argument in self.schema.arguments)
        return list(zip(names, self.args, strict=False))

    @cached_property
    def is_write(self) -> bool:
        """Whether it writes into one of its arguments."""
        return any(a.alias_info and a.alias_info.is_write for a in self.schema.arguments)

    @property
    def is_view(self) -> bool:
        """Whether its results share the memory of an argument."""
        returns = (r.alias_info for r in self.schema.returns)
        is_new = any(alias and not alias.is_write for alias in returns)
        return is_new or torch.Tag.inplace_view in self.func.tags or self.op in CUTS

    def rule(self, vouched: set[str]) -> tuple[Kind, Rule] | None:
        """Return what it does to the elements, and its rule; None if it is unknown."""
        for kind, rules in RULES.items():
            if self.op in rules:
                return kind, rules[self.op]
        if self.op in NUMBERED:
            return Kind.MOVE, partial(_numbered, self)
        if self.is_view:
            return Kind.MOVE, partial(_viewed, self)
        names = {self.op, self.func.__name__, self.function}
        if torch.Tag.pointwise in self.func.tags or names & vouched:
            return Kind.POINTWISE, pointwise
        if torch.Tag.reduction in self.func.tags:
            return Kind.MIXING, partial(_reduced, self)
        return None


def anything(out: Shapes, *args: Any, **kwargs: Any) -> Outcome:
    """Let every output see all that is read."""
    fields = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Field)]
    seen = [reduce(field, range(len(field.shape)), keep=False) for field in fields]
    return Outcome(tuple(hull(shape, seen) for shape in out))


def _viewed(of: Operation, out: Shapes, x: Field, *_: Any, **__: Any) -> Outcome:
    """Follow elements by the strides of a view."""
    try:
        with _disable_current_modes():
            places = views(lambda base: of.func(base, *of.args[1:], **of.kwargs), x.shape)
    except RuntimeError as error:  # a view as another type
        raise UnsupportedError(f"({of.func})") from error
    return Outcome(tuple(place.of(x) for place in places))


def _numbered(of: Operation, out: Shapes, *_: Any, **__: Any) -> Outcome:
    """Follow elements by a run on their numbers."""
    data = [a for name, a in of.named if name in MOVED and isinstance(a, Tensor)]
    fields = [of.field_of(tensor) or nothing(tuple(tensor.shape)) for tensor in data]
    index = tensors_in([a for name, a in of.named if name not in MOVED])
    by_image = [field for tensor in index if (field := of.field_of(tensor)) is not None]
    if by_image and of.op == "index_put" and by_image[0].shape == of.args[0].shape:
        return pointwise(out, *fields, *by_image)  # a mask
    if by_image or (of.op == "index_put" and of.args[3:] == (True,)):
        raise UnsupportedError("with an index whose numbers come from the image")

    def run(*numbers: Tensor) -> Any:
        left = iter(numbers)
        is_data = (name in MOVED and isinstance(a, Tensor) for name, a in of.named)
        pairs = zip(is_data, of.args, strict=False)
        given = [next(left) if moved else _on_cpu(a) for moved, a in pairs]
        return of.func(*given, **of.kwargs)

    with _disable_current_modes():
        return Outcome(tuple(numbered(run, fields)))


def _on_cpu(argument: Any) -> Any:
    """Return an index where the numbers are that it chooses from."""
    if isinstance(argument, list):
        return [_on_cpu(each) for each in argument]
    return argument.cpu() if isinstance(argument, Tensor) else argument


def _reduced(of: Operation, out: Shapes, x: Field, *_: Any, **__: Any) -> Outcome:
    """Reduce over the operation's `dim`, or over everything."""
    outcome = reduction(out, x, {**of.kwargs, **dict(of.named)}.get("dim"))
    if of.function.startswith("adaptive_avg_pool") and len(x.shape) > 3:
        rank = int(of.function[-2])
        return replace(outcome, window=adaptive_window(x.shape[-rank:], out[0][-rank:]))
    return outcome


def positional(name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return a function's arguments without their names."""
    if not kwargs:
        return args
    if name in {"linear", "matmul"}:  # of no Python signature
        return (*args, *kwargs.values())
    return inspect.signature(func).bind(*args, **kwargs).args
