"""What a rule answers of an operation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cifar_cnn.analysis.field import Field

Pair = tuple[int, int]
Shapes = Sequence[tuple[int, ...]]
Ints = Sequence[int]


class Kind(StrEnum):
    """What an operation does to the elements of its tensors."""

    POINTWISE = "pointwise"
    NORMALIZATION = "normalization"
    MIXING = "mixing"
    """Each output reads all of a dimension: sums, products, softmax."""
    WINDOW = "window"
    MOVE = "move"
    """Elements are moved about, and nothing is computed."""


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
    """The answer of a rule.

    Args:
        fields: of the outputs.
        window: what it reads of a map.
        spans: a statistic over space was passed through.
        covers: it is a pool whose one window is the whole map.
    """

    fields: tuple[Field, ...]
    window: Window = POINT
    spans: bool = False
    covers: bool = False


Rule = Callable[..., Outcome]


class UnsupportedError(Exception):
    """A known operation in a form that no rule covers; the text says which."""


def sizes(size: int | Ints, rank: int) -> list[int]:
    """Return one number for each dimension of a map."""
    if isinstance(size, int):
        return [size] * rank
    return list(size) * rank if len(size) == 1 else list(size)
