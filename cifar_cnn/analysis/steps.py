"""What a run notes of a network's operations, and which of them depend on which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.layout import reduce

Pair = tuple[int, int]


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
    """The answer of a rule: the fields of an operation's outputs, and what it reads of a map.

    A single field is that of all outputs. `spans` says that a statistic over space was passed
    through, `covers` that it is a pool whose one window is the whole map.
    """

    fields: tuple[Field, ...]
    window: Window = POINT
    spans: bool = False
    covers: bool = False


Rule = Callable[..., Field | Outcome]
"""Called with the shape of the first output, and the operation's arguments, tensors as fields.

It returns the field of all outputs, or an outcome.
"""
AnyRule = TypeVar("AnyRule", bound=Rule)
RULES: dict[str, tuple[Kind, Rule]] = {}
"""The rules of ATen operations by name; an operation in place has the name of the other."""
FUNCTIONS: dict[str, tuple[Kind, Rule]] = {}
"""Rules of whole functions. The operations of these do not tell how they are meant: products
flatten a map, RMS is a mean of squares, wrapping pads copy, and unpooling has no windows any more.
"""


def rule(kind: Kind, operations: str = "", functions: str = "") -> Callable[[AnyRule], AnyRule]:
    """Return a decorator that registers a rule for the operations and functions of these names."""

    def register(chosen: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(operations.split(), (kind, chosen)))
        FUNCTIONS.update(dict.fromkeys(functions.split(), (kind, chosen)))
        return chosen

    return register


class UnsupportedError(Exception):
    """A known operation in a form that no rule covers; the text says which."""


@dataclass(frozen=True, eq=False)
class Value:
    """What a tensor sees, and the step that made it; -1 is the image."""

    field: Field
    made: int


@dataclass(frozen=True)
class Filter:
    """The weight of a convolution: its shape, its groups, and whether it is learned."""

    shape: tuple[int, ...]
    groups: int
    is_transposed: bool
    is_learned: bool

    @classmethod
    def of(cls, args: Any) -> "Filter":
        """Return the filter of a convolution with these arguments."""
        weight, is_transposed, groups = args[1], args[6], args[8]
        is_learned = isinstance(weight, nn.Parameter) or weight.requires_grad
        return cls(tuple(weight.shape), groups, is_transposed, is_learned)

    @property
    def is_by_channel(self) -> bool:
        """Whether each group has one channel of its input, or of its output if it is transposed."""
        return self.groups > 1 and self.shape[1] == 1


@dataclass(frozen=True, eq=False)
class Step:
    """An operation that depends on the image, and those of its inputs that do."""

    op: str
    kind: Kind
    outcome: Outcome
    call: Call
    inputs: tuple[Value, ...]
    filter: Filter | None = None
    reads: tuple[StorageWeakRef, ...] = ()  # memory that depends on the image
    writes: tuple[tuple[StorageWeakRef, int], ...] = ()  # with its elements
    weights: tuple[Tensor, ...] = ()  # inputs that do not depend on the image

    @property
    def field(self) -> Field:
        """What its first output sees."""
        return self.outcome.fields[0]


def used_steps(steps: Sequence[Step], output: Value) -> set[int]:
    """Return the steps that the output depends on."""
    used = {output.made}
    for index in reversed(range(len(steps))):
        if index in used:
            used.update(value.made for value in steps[index].inputs)
    return used


def closed_steps(steps: Sequence[Step]) -> set[int]:
    """Return the pools over a whole map that nothing spatial follows, and all steps behind them.

    Such a pool is global pooling: its one unit is no map any more.
    """
    pools = (index for index, step in enumerate(steps) if step.outcome.covers)
    closed = (_reached_from(steps, at) for at in pools if not is_map_behind(steps, at))
    return set().union(*closed)


def is_map_behind(steps: Sequence[Step], index: int) -> bool:
    """Return whether a step behind a pool over the whole map works on a map again.

    It has a window, or it joins a map from elsewhere.
    """
    behind = _reached_from(steps, index)
    pools = (at for at, step in enumerate(steps) if step.outcome.covers)
    pooled = behind.union(*(_reached_from(steps, at) for at in pools))
    return any(
        max(steps[i].outcome.window.kernel) > 1
        or any(has_places(v.field) for v in steps[i].inputs if v.made not in pooled)
        for i in behind - {index}
    )


def _reached_from(steps: Sequence[Step], index: int) -> set[int]:
    """Return a step and all that depend on it."""
    reached = {index}
    for later in range(index + 1, len(steps)):
        if any(value.made in reached for value in steps[later].inputs):
            reached.add(later)
    return reached


def has_places(field: Field) -> bool:
    """Return whether elements of one channel see different pixels."""
    if any(family.dim is not None for family in field.families):
        return True
    merged = reduce(field, [1]) if len(field.shape) > 1 else field
    return any(family.low.size > 1 for family in merged.families)
