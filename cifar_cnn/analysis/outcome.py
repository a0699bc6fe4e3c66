"""What a rule answers: the fields of an operation's outputs, and its window where it has one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cifar_cnn.analysis.field import Field

Pair = tuple[int, int]
Shapes = Sequence[tuple[int, ...]]


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


class UnsupportedError(Exception):
    """A known operation in a form that no rule covers; the text says which."""
