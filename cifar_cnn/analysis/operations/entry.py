"""What an entry says of an operation, and what a rule answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cifar_cnn.analysis.field import Field

Pair = tuple[int, int]
Shapes = Sequence[tuple[int, ...]]
Size = int | Sequence[int]


@dataclass(frozen=True)
class Window:
    """What a layer reads of its input's map, as (vertical, horizontal)."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)


POINT = Window()


@dataclass(frozen=True)
class Outcome:
    """The answer of a rule; `spans` says that a statistic over space was passed through."""

    fields: tuple[Field, ...]
    window: Window = POINT
    spans: bool = False


Rule = Callable[..., Outcome]
"""Called with the outputs' shapes, then the operation's own arguments, tensors as Fields."""
Additive = Callable[..., Any]
"""Called with the operation's function, then with its own arguments."""


class UnsupportedError(Exception):
    """A known operation in a form that no rule covers; the text says which."""


class Kind(StrEnum):
    """What an operation does to the elements of its tensors."""

    ELEMENT_WISE = "element-wise"
    NORMALIZATION = "normalization"
    MIXING = "mixing"
    """Each output reads all of a dimension: sums, products, softmax, attention."""
    WINDOW = "window"
    SHAPE = "shape"
    """Elements are moved about, and nothing is computed."""
    RESAMPLING = "resampling"


def as_it_is(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run what is additive already."""
    return func(*args, **kwargs)


@dataclass(frozen=True)
class Entry:
    """All that is known of an operation.

    Args:
        kind: what it does to the elements.
        rule: how the fields of its outputs follow.
        additive: how it runs in the proof: positive and equal weights, sums in place of maxima and
            products (see `analysis.additive`).
        weighted: its first argument is the data; other tensors are weights, and each of them, if it
            is made from the image, is seen by every unit.
        shares: its output may share its first argument's memory, so that what is written into one
            is in both.
    """

    kind: Kind
    rule: Rule
    additive: Additive = as_it_is
    weighted: bool = False
    shares: bool = False


def sizes(size: Size, rank: int) -> list[int]:
    """Return one number for each dimension of a map."""
    if isinstance(size, int):
        return [size] * rank
    return list(size) * rank if len(size) == 1 else list(size)
