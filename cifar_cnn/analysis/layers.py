"""The layer table: size, jump, start and padding of every layer, from the fields."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cifar_cnn.analysis.field import FAR, Axis, Field, IntArray
from cifar_cnn.analysis.field_layout import reduce
from cifar_cnn.analysis.graph import Value
from cifar_cnn.analysis.operations.entry import POINT, Window
from cifar_cnn.analysis.propagate import Propagated, Step

MAP_RANKS = (3, 4)
"""Dimensions of a tensor that holds a map: a batch of them, or one."""


@dataclass(frozen=True)
class Walk:
    """What the units along one image axis see: pixels low[i] to high[i], and their jump."""

    low: IntArray
    high: IntArray
    jump: Fraction | None

    @property
    def sees(self) -> NDArray[np.bool_]:
        """Which units see any pixel: what is filled in by hand sees none."""
        return self.low <= self.high

    @property
    def size(self) -> int:
        """Pixels that the unit with the largest field sees; 0 where no unit sees any."""
        return max(int((self.high - self.low).max()) + 1, 0)

    @property
    def start(self) -> Fraction | None:
        """Center of the field of the first unit that sees any; the first pixel's center is 0."""
        return next((self.center(unit) for unit in np.flatnonzero(self.sees).tolist()), None)

    @property
    def padding(self) -> int:
        """Pixels that the first field reaches beyond the image's edge."""
        return -int(self.low[self.sees].min()) if self.sees.any() else 0

    @property
    def is_uniform(self) -> bool:
        """Whether all units see the same window, moved by the jump."""
        return len(np.unique(self.high - self.low)) == 1 and len(np.unique(np.diff(self.low))) <= 1

    def size_of(self, unit: int) -> int:
        """Return how many pixels from its first to its last a unit sees."""
        return max(int(self.high[unit] - self.low[unit]) + 1, 0)

    def center(self, unit: int) -> Fraction | None:
        """Return the center of a unit's field, if it sees any pixel."""
        low, high = int(self.low[unit]), int(self.high[unit])
        return Fraction(low + high, 2) if low <= high else None


@dataclass(frozen=True)
class Layer:
    """One row: a layer, its window, and what its units see vertically and horizontally."""

    name: str
    type: str
    output_size: tuple[int, int]
    window: Window
    walks: tuple[Walk, Walk]
    step: Step

    @property
    def is_map(self) -> bool:
        """Whether it still has a map: units along both image axes."""
        return all(walk.jump is not None for walk in self.walks)


def layers_of(propagated: Propagated) -> list[Layer]:
    """Return a row for each layer, leaving out what only rearranges and changes nothing."""
    rows: list[Layer] = []
    numbers: dict[Value, list[object]] = {}
    row_of_call: dict[int, int] = {}
    for step in propagated.steps:
        row = describe(step)
        operation = step.operation
        numbers.update(dict.fromkeys(operation.outputs, _numbers(row)))
        if operation.call in row_of_call:
            index = row_of_call[operation.call]
            rows[index] = _combined(rows[index], row)
        elif not step.rearranges or any(
            numbers.get(value) != _numbers(row) for value in operation.inputs
        ):
            row_of_call[operation.call] = len(rows)
            rows.append(row)
    return rows


def describe(step: Step) -> Layer:
    """Return the row of one operation."""
    dims = [spatial_dim(axis, step.field) for axis in step.field.axes]
    flat = dims[0] is not None and dims[0] == dims[1]
    walks = tuple(
        walk_along(step.field, axis, None if flat else dim) for axis, dim in enumerate(dims)
    )
    height, width = (1 if d is None or flat else step.field.shape[d] for d in dims)
    operation = step.operation
    return Layer(
        operation.name, operation.type, (height, width), step.window, (walks[0], walks[1]), step
    )


def spatial_dim(axis: Axis, field: Field) -> int | None:
    """Return the dimension of a map that walks along the axis, if there is one.

    Where fields are listed and change along several, it is the one whose units see the least.
    """
    if len(field.shape) not in MAP_RANKS:
        return None
    walking = {family.dim for family in axis if family.dim is not None}
    if not walking:
        listed = {d for family in axis for d, size in enumerate(family.low.shape) if size > 1}
        seen = {d: walk_along(Field(field.shape, (axis, axis)), 0, d).size for d in listed}
        walking = {d for d in listed if seen[d] == min(seen.values())}
    return walking.pop() if len(walking) == 1 else None


def walk_along(field: Field, axis: int, dim: int | None) -> Walk:
    """Return the hull over all paths and channels of each unit of `dim`."""
    others = [d for d in range(len(field.shape)) if d != dim]
    families = reduce(field, others).axes[axis]
    count = 1 if dim is None else field.shape[dim]
    low, high = np.full(count, FAR), np.full(count, -FAR)
    jumps = [family.slope for family in families if family.dim is not None and family.dim == dim]
    for family in families:
        listed = family.listed(field.shape)
        low, high = (
            np.minimum(low, listed.low.reshape(-1)),
            np.maximum(high, listed.high.reshape(-1)),
        )
    return Walk(low, high, max(jumps) if jumps else _mean_jump(low, high, dim))


def _mean_jump(low: IntArray, high: IntArray, dim: int | None) -> Fraction | None:
    """Return the step of the units whose fields are whole: of the size that most have."""
    if dim is None:
        return None
    seeing = np.flatnonzero(low <= high)
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


def _combined(first: Layer, second: Layer) -> Layer:
    """Join the operations of one layer: its window is the convolution's, with the pads before."""
    windows = [w for w in (first.window, second.window) if w.kernel != POINT.kernel]
    main = windows[-1] if windows else second.window
    (t1, b1), (l1, r1) = first.window.padding
    if first.window is main:
        padding = main.padding
    else:
        (t2, b2), (l2, r2) = main.padding
        padding = ((t1 + t2, b1 + b2), (l1 + l2, r1 + r2))
    window = Window(main.kernel, main.stride, padding, main.dilation)
    return Layer(first.name, first.type, second.output_size, window, second.walks, second.step)


def _numbers(row: Layer) -> list[object]:
    return [row.output_size, *((w.size, w.jump, w.start) for w in row.walks)]
