"""Choose the rule of an operation: its own, that of its tag, or none."""

import inspect
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from cifar_cnn.analysis.calls import leaves, map_leaves, tensors_in
from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.memory import Memory
from cifar_cnn.analysis.moves import move_by_numbers, read_views
from cifar_cnn.analysis.rules import pointwise, reduction
from cifar_cnn.analysis.steps import RULES, Kind, Outcome, Rule, UnsupportedError
from cifar_cnn.analysis.windows import Shape, adaptive_window

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
    """An ATen operation and its arguments, and the function that the network called."""

    func: Any
    args: Any
    kwargs: dict[str, Any]
    function: str

    @cached_property
    def op(self) -> str:
        """Its name; in place it has the same."""
        name: str = self.func.overloadpacket.__name__
        return name.removesuffix("_") if self.is_write else name

    @cached_property
    def is_write(self) -> bool:
        """Whether it writes into one of its arguments."""
        arguments = self.func._schema.arguments  # noqa: SLF001
        return any(a.alias_info and a.alias_info.is_write for a in arguments)

    @property
    def is_view(self) -> bool:
        """Whether its results share the memory of an argument."""
        returns = (r.alias_info for r in self.func._schema.returns)  # noqa: SLF001
        is_new = any(alias and not alias.is_write for alias in returns)
        return is_new or torch.Tag.inplace_view in self.func.tags or self.op in CUTS

    def is_decision(self, values: Memory) -> bool:
        """Return whether values computed from the image decide a shape or a Python value."""
        tags = self.func.tags
        if self.op == "index":
            masks = [t for t in tensors_in(self.args[1]) if t.dtype in {torch.bool, torch.uint8}]
            return any(values[mask] for mask in masks)
        decides_shape = torch.Tag.dynamic_output_shape in tags and not self.op.startswith("index")
        return decides_shape or torch.Tag.data_dependent_output in tags

    def arguments(self, args: Any) -> dict[str, Any]:
        """Return positional arguments by name; `args` may stand for the operation's own."""
        names = [argument.name for argument in self.func._schema.arguments]  # noqa: SLF001
        return dict(zip(names, args, strict=False))

    def rule(self, assume_pointwise: set[str]) -> tuple[Kind, Rule] | None:
        """Return the kind of the operation and its rule, or None if it is unknown."""
        if self.op in RULES:
            return RULES[self.op]
        if self.op in NUMBERED:
            return Kind.MOVE, partial(_follow_numbers, self)
        if self.is_view:
            return Kind.MOVE, partial(_follow_view, self)
        names = {self.op, self.func.__name__, self.function}
        if torch.Tag.pointwise in self.func.tags or names & assume_pointwise:
            return Kind.POINTWISE, pointwise
        if torch.Tag.reduction in self.func.tags:
            return Kind.MIXING, partial(_reduce, self)
        return None


def _follow_view(of: Operation, _: Shape, x: Field, *__: Any, **___: Any) -> Outcome:
    """Follow elements by the strides of a view."""
    try:
        with _disable_current_modes():
            return Outcome(read_views(lambda base: of.func(base, *of.args[1:], **of.kwargs), x))
    except RuntimeError as error:  # a view as another type
        raise UnsupportedError(f"({of.func})") from error


def _follow_numbers(of: Operation, out: Shape, *args: Any, **_: Any) -> Field | Outcome:
    """Run the operation on element numbers to see where each element goes."""
    arguments = of.arguments(args)
    is_data = [name in MOVED and isinstance(each, Field) for name, each in arguments.items()]
    data = [each for each, is_moved in zip(args, is_data, strict=True) if is_moved]
    index = [each for each, is_moved in zip(args, is_data, strict=True) if not is_moved]
    by_image = [leaf for leaf in leaves(index) if isinstance(leaf, Field) and leaf.families]
    if by_image and of.op == "index_put" and by_image[0].shape == args[0].shape:
        return pointwise(out, *data, *by_image)  # a mask
    if by_image or (of.op == "index_put" and of.args[3:] == (True,)):
        raise UnsupportedError("with an index whose numbers come from the image")

    def move(*numbers: Tensor) -> Any:
        left, both = iter(numbers), zip(of.args, is_data, strict=True)
        return of.func(
            *[next(left) if is_moved else _on_cpu(a) for a, is_moved in both], **of.kwargs
        )

    with _disable_current_modes():
        return Outcome(tuple(move_by_numbers(move, data)))


def _on_cpu(argument: Any) -> Any:
    """Return an index argument with its tensors on the CPU."""
    return map_leaves(argument, lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf)


def _reduce(of: Operation, out: Shape, x: Field, *_: Any, **__: Any) -> Outcome:
    """Reduce over the operation's `dim`, or over everything."""
    dim = {**of.kwargs, **of.arguments(of.args)}.get("dim")
    outcome = Outcome((reduction(out, x, dim),))
    if of.function.startswith("adaptive_avg_pool") and len(x.shape) > 3:
        rank = int(of.function[-2])
        return replace(outcome, window=adaptive_window(x.shape[-rank:], out[-rank:]))
    return outcome


def positional(name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return a function's arguments without their names."""
    if not kwargs:
        return args
    if name in {"linear", "matmul"}:  # of no Python signature
        return (*args, *kwargs.values())
    return inspect.signature(func).bind(*args, **kwargs).args
