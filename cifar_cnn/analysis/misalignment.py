"""Find where paths with different jumps or centers meet, or a map meets a global gate."""

import itertools
from collections.abc import Collection, Sequence
from fractions import Fraction

from cifar_cnn.analysis.field import Family, Field

AXIS_NAMES = ("vertically", "horizontally")
Line = tuple[Fraction, tuple[int, ...]]


def misalignments(name: str, inputs: Sequence[Field]) -> list[str]:
    """Describe where the inputs of a layer of this name differ in jump or in center."""
    found: dict[str, list[str]] = {}
    for axis, axis_name in enumerate(AXIS_NAMES):
        of_inputs = (_center_line(field, axis) for field in inputs)
        lines = {line for line in of_inputs if line is not None}
        if len(lines) > 1:
            found.setdefault(" and ".join(sorted(_told_apart(lines))), []).append(axis_name)
    return [
        f"paths meet misaligned at {name} {' and '.join(axes)}: {shown}"
        for shown, axes in found.items()
    ]


def _told_apart(lines: Collection[Line]) -> list[str]:
    """Describe each line by its jump and as few centers as show that the lines differ."""
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
    """Return the jump and doubled centers of one period, or None if the channels differ."""
    walking = tuple(f for f in field.axes[axis] if f.dim is not None and f.shift)
    lines = {line for family in walking for line in _lines(family)}
    return lines.pop() if len(lines) == 1 else None


def _lines(family: Family) -> set[Line]:
    assert family.dim is not None
    doubled = (family.low + family.high).swapaxes(0, family.dim).reshape(family.period, -1)
    seen = (family.low <= family.high).swapaxes(0, family.dim).reshape(family.period, -1)
    columns = {tuple(column) for column in doubled[:, seen.all(0)].T.tolist()}
    return {(family.slope, _shortest(column, family.slope)) for column in columns}


def _shortest(doubled: tuple[int, ...], slope: Fraction) -> tuple[int, ...]:
    """Return the shortest period of doubled centers."""
    count = len(doubled)
    for period in range(1, count):
        later = zip(doubled, doubled[period:], strict=False)
        if count % period == 0 and all(b - a == 2 * slope * period for a, b in later):
            return doubled[:period]
    return doubled


def is_gate(inputs: Sequence[Field]) -> bool:
    """Return whether a tensor without a map meets one that has a map."""
    walks = [any(f.dim is not None for axis in field.axes for f in axis) for field in inputs]
    return any(walks) and not all(walks)
