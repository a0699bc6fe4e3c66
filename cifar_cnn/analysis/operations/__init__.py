"""What is known of each operation: one entry each, by the operation's one name."""

from collections.abc import Callable, Collection
from typing import Any

from cifar_cnn.analysis.operations import (
    columns,
    convolution,
    elementwise,
    indexing,
    mixing,
    pooling,
    reduction,
    resampling,
    shape,
)
from cifar_cnn.analysis.operations.entry import Entry

OPERATIONS: dict[str, Entry] = {
    **elementwise.ENTRIES,
    **reduction.ENTRIES,
    **mixing.ENTRIES,
    **shape.ENTRIES,
    **indexing.ENTRIES,
    **columns.ENTRIES,
    **convolution.ENTRIES,
    **pooling.ENTRIES,
    **resampling.ENTRIES,
}
_ARITHMETIC = ("add", "sub", "mul", "div", "truediv", "floordiv", "pow", "mod", "matmul")
SYNONYMS = {
    **{f"{form}{op}": op for form in "ri" for op in _ARITHMETIC},
    "concat": "cat",
    "concatenate": "cat",
    "T": "t",
    "mT": "adjoint",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "clip": "clamp",
}


def operation_name(func: Callable[..., Any]) -> str:
    """Return the operation's name: without underscores; in-place and attribute forms are alike."""
    name = func.__name__
    if name == "__get__":
        name = func.__self__.__name__  # type: ignore[attr-defined]
    name = name.strip("_") or name
    return SYNONYMS.get(name, name)


def entry_of(op: str, vouched: Collection[str]) -> Entry:
    """Return what is known of an operation; the user may vouch that it is pointwise."""
    return elementwise.POINTWISE if op in vouched else OPERATIONS[op]
