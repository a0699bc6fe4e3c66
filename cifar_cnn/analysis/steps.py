"""What a run notes of the operations of a network."""

from dataclasses import dataclass

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.field import Field
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
