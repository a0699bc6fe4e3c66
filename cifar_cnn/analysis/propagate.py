"""From a graph to the field of every tensor in it, and to where paths meet misaligned."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction

from cifar_cnn.analysis.field import Family, Field, hull, image_field
from cifar_cnn.analysis.field_layout import reduce
from cifar_cnn.analysis.graph import Graph, Operation, Value, convert
from cifar_cnn.analysis.operations import entry_of
from cifar_cnn.analysis.operations.entry import Kind, Outcome, UnsupportedError, Window
from cifar_cnn.errors import ModelError, one_line

AXIS_NAMES = ("vertically", "horizontally")


@dataclass(frozen=True)
class Step:
    """An operation, what its first output sees, and its window."""

    operation: Operation
    field: Field
    window: Window
    rearranges: bool


@dataclass(frozen=True)
class Propagated:
    """The fields of a whole graph, and what was noticed on the way."""

    steps: tuple[Step, ...]
    fields: dict[Value, Field]
    misaligned: tuple[str, ...]
    gates: tuple[str, ...]
    spanning: tuple[str, ...]


def propagate(graph: Graph, vouched: Collection[str] = ()) -> Propagated:
    """Apply each operation's rule in turn, from the image on.

    Raises:
        ModelError: an operation is used in a form that no rule covers.
    """
    fields = {graph.image: image_field(graph.image.shape)}
    steps, misaligned, gates, spanning = [], [], [], []
    for operation in graph.operations:
        outcome = _apply(operation, fields, vouched)
        fields.update(zip(operation.outputs, outcome.fields, strict=True))
        rearranges = entry_of(operation.op, vouched).kind == Kind.SHAPE
        steps.append(Step(operation, outcome.fields[0], outcome.window, rearranges))
        inputs = [fields[value] for value in operation.inputs]
        if len(inputs) > 1:
            misaligned += _misalignments(operation, inputs)
            gates += [operation.name] if _is_gate(inputs) else []
        spanning += [operation.name] if outcome.spans else []
    return Propagated(tuple(steps), fields, tuple(misaligned), tuple(gates), tuple(spanning))


def local_part(field: Field) -> Field:
    """Return the field without what reaches it through global gates."""
    vertical, horizontal = (
        tuple(f for f in axis if f.dim is not None) or axis for axis in field.axes
    )
    return Field(field.shape, (vertical, horizontal))


def _apply(operation: Operation, fields: dict[Value, Field], vouched: Collection[str]) -> Outcome:
    entry = entry_of(operation.op, vouched)
    shapes = [value.shape for value in operation.outputs]

    def field_of(leaf: object) -> object:
        if not isinstance(leaf, Value):
            return leaf
        return fields[leaf] if leaf.depends else Field(leaf.shape, ((), ()), leaf.numbers)

    args, kwargs = convert((operation.args, operation.kwargs), field_of)
    try:
        outcome = entry.rule(shapes, *args, **kwargs)
    except UnsupportedError as error:
        raise ModelError(
            f"operation {operation.op!r} {error} is not supported {operation.place}"
        ) from error
    except TypeError as error:  # arguments that the rule does not have
        raise ModelError(
            f"operation {operation.op!r} is called in a form that no rule covers "
            f"{operation.place}: {one_line(error)}"
        ) from error
    return _with_weights(outcome, operation, fields) if entry.weighted else outcome


def _with_weights(outcome: Outcome, operation: Operation, fields: dict[Value, Field]) -> Outcome:
    """Weights that are made from the image bring all that they see to every unit."""
    data = operation.args[0] if operation.args else operation.kwargs.get("input")
    weights = [fields[value] for value in operation.inputs if value is not data]
    if not weights:
        return outcome
    seen = [reduce(weight, range(len(weight.shape))) for weight in weights]
    return replace(
        outcome, fields=tuple(hull(field.shape, [field, *seen]) for field in outcome.fields)
    )


Line = tuple[Fraction, tuple[int, ...]]


def _misalignments(operation: Operation, inputs: list[Field]) -> list[str]:
    """Describe where the operation's inputs differ in jump or in center."""
    found: dict[str, list[str]] = {}
    for axis, axis_name in enumerate(AXIS_NAMES):
        of_inputs = (_center_line(field, axis) for field in inputs)
        lines = {line for line in of_inputs if line is not None}
        if len(lines) > 1:
            found.setdefault(" and ".join(sorted(_told_apart(lines))), []).append(axis_name)
    return [
        f"paths meet misaligned at {operation.name} {' and '.join(axes)}: {shown}"
        for shown, axes in found.items()
    ]


def _told_apart(lines: Collection[Line]) -> list[str]:
    """Describe each line by its jump and as many of its centers as it takes to see them differ."""
    count = next(
        n
        for n in itertools.count(1)
        if len({(s, *_centers((s, d), n)) for s, d in lines}) == len(lines)
    )
    which = "first center" if count == 1 else "centers"
    return [
        f"jump {line[0]}, {which} {', '.join(map(str, _centers(line, count)))}" for line in lines
    ]


def _centers(line: Line, count: int) -> list[Fraction]:
    slope, doubled = line
    turns = (divmod(unit, len(doubled)) for unit in range(count))
    return [Fraction(doubled[phase], 2) + slope * len(doubled) * turn for turn, phase in turns]


def _center_line(field: Field, axis: int) -> Line | None:
    """Return jump and doubled centers over one period; None where the channels have no one line."""
    walking = tuple(f for f in field.axes[axis] if f.dim is not None and f.shift)
    lines = {line for family in walking for line in _lines(family)}
    return lines.pop() if len(lines) == 1 else None


def _lines(family: Family) -> set[Line]:
    assert family.dim is not None
    doubled = (family.low + family.high).swapaxes(0, family.dim).reshape(family.period, -1)
    seen = (family.low <= family.high).swapaxes(0, family.dim).reshape(family.period, -1)
    columns = {tuple(column) for column in doubled[:, seen.all(0)].T.tolist()}
    return {(family.slope, column) for column in columns}


def _is_gate(inputs: list[Field]) -> bool:
    """A tensor without a map meets one that has a map."""
    walks = [any(f.dim is not None for axis in field.axes for f in axis) for field in inputs]
    return any(walks) and not all(walks)
