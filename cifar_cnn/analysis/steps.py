"""What a run notes of the operations of a network, and which of them depend on which."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.layout import reduce
from cifar_cnn.analysis.outcome import Kind, Outcome


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


@dataclass(frozen=True, eq=False)
class Step:
    """An operation that the image has a part in.

    Args:
        op: its ATen name, without the underscore of one in place.
        kind: what it does to the elements.
        outcome: the fields of its outputs, and its window.
        call: what the network called.
        inputs: the tensors it reads that the image has a part in.
        filter: of a convolution.
    """

    op: str
    kind: Kind
    outcome: Outcome
    call: Call
    inputs: tuple[Value, ...]
    filter: Filter | None = None

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
    closed: set[int] = set()
    for index, step in enumerate(steps):
        if step.outcome.covers and not is_map_behind(steps, index):
            closed |= {index, *steps_behind(steps, index)}
    return closed


def is_map_behind(steps: Sequence[Step], index: int) -> bool:
    """Return whether a step behind a pool over the whole map works on a map again.

    It has a window, or it joins a map from elsewhere.
    """
    behind = steps_behind(steps, index)
    pooled = {index, *behind}
    for other, step in enumerate(steps):
        if step.outcome.covers and other not in pooled:
            pooled |= {other, *steps_behind(steps, other)}
    return any(
        max(steps[i].outcome.window.kernel) > 1
        or any(has_places(v.field) for v in steps[i].inputs if v.made not in pooled)
        for i in behind
    )


def steps_behind(steps: Sequence[Step], index: int) -> list[int]:
    """Return the steps that depend on one."""
    reached = {index}
    for later in range(index + 1, len(steps)):
        if any(value.made in reached for value in steps[later].inputs):
            reached.add(later)
    return sorted(reached - {index})


def has_places(field: Field) -> bool:
    """Return whether elements of one channel see different places."""
    if any(family.dim is not None for axis in field.axes for family in axis):
        return True
    merged = reduce(field, [1]) if len(field.shape) > 1 else field
    return any(family.low.size > 1 for axis in merged.axes for family in axis)
