"""The layer table: size, jump, start and padding of every layer, from the fields."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.field import Field, IntArray
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import POINT, Kind, Value, Window, closed_steps
from cifar_cnn.results import Number

MAP_RANKS = (3, 4)
"""Dimensions of a tensor that holds a map: a batch of them, or one."""


@dataclass(frozen=True)
class Walk:
    """What the units along one image axis see: pixels low[i] to high[i], and their jump."""

    low: IntArray
    high: IntArray
    jump: Number | None

    @property
    def sizes(self) -> IntArray:
        """Pixels from the first to the last that each unit sees; 0 for one that sees none."""
        return (self.high - self.low + 1).clip(0)

    @property
    def size(self) -> int:
        """Pixels that the unit with the largest field sees."""
        return int(self.sizes.max())

    @property
    def start(self) -> Number | None:
        """Center of the field of the first unit that sees any; the first pixel's center is 0."""
        seeing = np.flatnonzero(self.sizes)
        return self.center(int(seeing[0])) if len(seeing) else None

    @property
    def padding(self) -> int:
        """Pixels that the first field reaches beyond the image's edge."""
        low = self.low[self.sizes > 0]  # units that are filled in by hand see nothing
        return -int(low.min()) if low.size else 0

    @property
    def is_uniform(self) -> bool:
        """Whether all units see the same window, moved by the jump."""
        return len(np.unique(self.high - self.low)) == 1 and len(np.unique(np.diff(self.low))) <= 1

    def center(self, unit: int) -> Number | None:
        """Return the center of a unit's field, if it sees any pixel."""
        is_seeing = self.sizes[unit] > 0
        return _plain(Fraction(int(self.low[unit] + self.high[unit]), 2)) if is_seeing else None


@dataclass(frozen=True)
class Layer:
    """One row: a layer, its window, and what its units see along both image axes.

    `dims` are the dimensions along which the units of an axis lie, -1 for none.
    """

    call: Call
    window: Window
    walks: tuple[Walk, Walk]
    dims: tuple[int, int]
    value: Value

    @property
    def name(self) -> str:
        """Its name in the network."""
        return self.call.name

    @property
    def output_size(self) -> tuple[int, int]:
        """How many units it has along each axis."""
        return len(self.walks[0].low), len(self.walks[1].low)

    @property
    def is_map(self) -> bool:
        """Whether it still has a map: units along both image axes."""
        return min(self.dims) >= 0


def layers_of(run: Run) -> list[Layer]:
    """Return a row for each layer; skip calls that only rearrange elements."""
    closed = closed_steps(run.steps)
    rows = []
    for call in run.calls.rows:
        row = _row(call, call.value, closed, _window(run, call))
        steps = [run.steps[index] for index in call.steps]
        if steps and all(step.kind == Kind.MOVE and step.op != "copy" for step in steps):
            outside = external_inputs(run, call)
            before = {_numbers(_row(call, value, closed)) for value in outside}
            if before <= {_numbers(row)} and all(value.made >= 0 for value in outside):
                continue
        rows.append(row)
    return rows


def row_of(run: Run, call: Call, value: Value) -> Layer:
    """Return the row of a tensor, whatever made it."""
    return _row(call, value, closed_steps(run.steps))


def last_row(run: Run, output: Value) -> Layer:
    """Return the row of the network's output."""
    made = [call for call in run.calls.rows if call.value.made == output.made]
    return row_of(run, made[-1] if made else run.steps[output.made].call, output)


def local_walks(row: Layer) -> tuple[Walk, Walk]:
    """Return the fields of a map's units, ignoring what reaches them through global gates."""
    field = row.value.field
    spread = {family.axis for family in field.families if family.dim is not None}
    local = tuple(f for f in field.families if f.dim is not None or f.axis not in spread)
    return _row(row.call, Value(Field(field.shape, local), row.value.made), ()).walks


def external_inputs(run: Run, call: Call) -> list[Value]:
    """Return the inputs of the call's operations that the call did not compute itself."""
    own = set(call.steps)
    return [v for index in call.steps for v in run.steps[index].inputs if v.made not in own]


def _row(call: Call, value: Value, closed: Collection[int], window: Window = POINT) -> Layer:
    field, is_closed = value.field, value.made in closed
    rows, columns = (-1 if is_closed else _spatial_dim(field, axis) for axis in (0, 1))
    dims = (-1, -1) if rows == columns else (rows, columns)  # flattened
    return Layer(call, window, (_walk(field, 0, dims[0]), _walk(field, 1, dims[1])), dims, value)


def _spatial_dim(field: Field, axis: int) -> int:
    """Return the dimension of a map that walks along the axis, or -1.

    Where fields are listed and change along several, it is the one whose units see the least.
    """
    families = [*field.along(axis)] if len(field.shape) in MAP_RANKS else []
    dims = {family.dim for family in families if family.dim is not None}
    if not dims:
        listed = {d for family in families for d, size in enumerate(family.low.shape) if size > 1}
        walks = {d: _walk(field, axis, d) for d in listed}
        seen = {d: walk.size for d, walk in walks.items() if np.ptp(walk.low + walk.high)}
        dims = {d for d in seen if seen[d] == min(seen.values())}
    return dims.pop() if len(dims) == 1 else -1


def _walk(field: Field, axis: int, dim: int) -> Walk:
    """Return the hull over all paths and channels of each unit of `dim`; -1 is of one unit."""
    others = tuple(d for d in range(len(field.shape)) if d != dim)
    count = 1 if dim < 0 else field.shape[dim]
    first, last = field.span(axis)
    low = np.broadcast_to(first.min(others), count)
    high = np.broadcast_to(last.max(others), count)
    if dim < 0:
        return Walk(low, high, None)
    jumps = [family.slope for family in field.along(axis) if family.dim == dim]
    return Walk(low, high, _plain(max(jumps) if jumps else _mean_jump(low, high)))


def _plain(number: Fraction) -> Number:
    """Return a whole number as int, another as float."""
    return number.numerator if number.denominator == 1 else float(number)


def _mean_jump(low: IntArray, high: IntArray) -> Fraction:
    """Return the mean jump between units with fields of the most common size."""
    seeing = np.flatnonzero(low <= high)
    if not len(seeing):
        return Fraction(0)
    sizes, counts = np.unique((high - low)[seeing], return_counts=True)
    most = sizes[counts == counts.max()].max()
    whole = seeing[(high - low)[seeing] == most]
    units = whole if len(whole) > 1 else seeing
    doubled = (low + high)[units]
    for lag in range(1, len(units) // 2 + 1):  # steps that repeat, as those of a doubled map
        steps, distances = doubled[lag:] - doubled[:-lag], units[lag:] - units[:-lag]
        if (steps == steps[0]).all() and (distances == distances[0]).all():
            return Fraction(int(steps[0]), 2 * int(distances[0]))
    steps, distances = np.diff(doubled), np.diff(units)
    with_most = steps * np.sign(np.sign(steps).sum()) >= 0  # without the one back of a rolled map
    return Fraction(int(steps[with_most].sum()), 2 * max(int(distances[with_most].sum()), 1))


def _window(run: Run, call: Call) -> Window:
    """Return the last window of a call, plus the padding of the operations before it."""
    outcomes = [run.steps[index].outcome for index in call.steps]
    windows = [each.window for each in outcomes if each.window != POINT]
    if not windows:
        return POINT
    main = next((w for w in reversed(windows) if w.kernel != POINT.kernel), windows[-1])
    pads = [window.padding for window in windows[: windows.index(main) + 1]]
    vertical, horizontal = (tuple(sides) for sides in np.sum(pads, axis=0).tolist())
    return replace(main, padding=(vertical, horizontal))


def _numbers(row: Layer) -> tuple[object, ...]:
    return row.output_size, *((w.size, w.jump, w.start) for w in row.walks)
