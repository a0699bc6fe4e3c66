"""Compare the fields of units with the pixels whose NaN reached them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_cnn.analysis.field import FAR, IntArray
from cifar_cnn.analysis.results import Gridding, NotShown, Verification, WrongUnit
from cifar_cnn.analysis.steps import Kind, Step

Size = tuple[int, int]


@dataclass
class Evidence:
    """The findings of the proof for a layer along one axis."""

    units: int = 0
    """How many were compared."""
    ends: set[str] = field(default_factory=set)
    """Which ends of its fields, low and high, NaN reached as expected."""
    lost: str | None = None
    """Why NaN does not get here, if it does not."""
    wrong: tuple[int, Size, Size] | None = None
    """Number, field and reached pixels of a unit that is not what the table says."""
    read: Size | None = None
    """How many pixels a unit reads whose field is whole, and how many its field holds."""

    def add(self, other: "Evidence") -> None:
        """Add what other images, or another call of the same name, have shown."""
        self.units += other.units
        self.ends |= other.ends
        self.lost = self.lost or other.lost
        self.wrong = self.wrong or other.wrong
        self.read = other.read or self.read


def conclude(canvases: Sequence[Size], shown: Mapping[tuple[str, str], Evidence]) -> Verification:
    """Return the outcome of the proof from what was shown by layer and axis, in their order."""
    followed = {key: each for key, each in shown.items() if each.lost is None}
    compared = {layer for (layer, _), each in followed.items() if each.units}
    units = sum(each.units for each in followed.values())
    clipped = dict.fromkeys(layer for (layer, _), each in followed.items() if len(each.ends) < 2)
    lost = {layer: each.lost for (layer, _), each in shown.items() if each.lost}
    wrong = [
        WrongUnit(layer=layer, axis=axis, unit=unit, analytic=analytic, reached=reached)
        for (layer, axis), each in shown.items()
        for unit, analytic, reached in ([each.wrong] if each.wrong else [])
    ]
    gridding = [
        Gridding(layer=layer, axis=axis, contributing=contributing, total=total)
        for (layer, axis), each in followed.items()
        for contributing, total in ([each.read] if each.read else [])
        if contributing < total
    ]
    return Verification(
        agreed=units > 0 and not wrong,
        layers=len(compared),
        units=units,
        canvases=tuple(canvases),
        clipped=tuple(clipped),
        not_shown=tuple(NotShown(layer=layer, reason=reason) for layer, reason in lost.items()),
        first_disagreement=wrong[0] if wrong else None,
        gridding=tuple(gridding),
    )


@dataclass(frozen=True)
class Canvas:
    """The size of the images of a proof, and which of their rows (or columns) are set to NaN."""

    size: Size
    axis: int
    rows: IntArray
    batch_size: int

    @property
    def length(self) -> int:
        """How many rows (or columns) an image has."""
        return self.size[self.axis]

    @property
    def batches(self) -> list[IntArray]:
        """The rows of the images that run together."""
        return np.array_split(self.rows, -(-len(self.rows) // self.batch_size))


@dataclass(frozen=True)
class Reach:
    """The fields of an operation's units in one batch, and which of them NaN has reached.

    All can be broadcast to `shape`; images follow each other along `dim`, if there are several.
    """

    low: IntArray
    high: IntArray
    pixel: IntArray
    packed: NDArray[np.uint8]
    shape: tuple[int, ...]
    dim: int | None

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Which units are NaN, of `shape`."""
        bits = np.unpackbits(self.packed, count=math.prod(self.shape))
        return bits.reshape(self.shape).astype(bool)


def compare(
    step: Step, parts: Sequence[Reach], canvas: Canvas, margin: int, shown: Evidence
) -> None:
    """Compare each unit; what sees a border within `margin` pixels may be reached by less."""
    low, high, pixel, reached = _join_batches(parts)
    border = np.full_like(low, margin)
    if len(canvas.rows) == canvas.length:  # those of the middle half alone
        border = np.maximum(border, (canvas.length - (high - low)) // 4)
    whole = (low >= border) & (high < canvas.length - border) & (low <= high)
    seen = whole & reached.any(0, keepdims=True)  # not, where the other axis sees nothing
    beyond = reached & ((pixel < low) | (high < pixel))
    missing = seen & ~reached & ((pixel == low) | (pixel == high))
    shown.units = low.size
    if step.kind == Kind.POINTWISE and not beyond.any() and (missing.any() or not reached.any()):
        shown.lost = shown.lost or f"{step.call.function} gives numbers for NaN"
    elif not reached.any():
        shown.lost = shown.lost or "no pixel has a part in it"
    for bad in (beyond, missing)[: 1 if shown.lost else 2]:
        shown.wrong = shown.wrong or _wrong_unit(bad, low, high, pixel, reached)
    for name, end in (("low", low), ("high", high)):
        at = seen & (pixel == end)
        if at.any() and not (at & ~reached).any():
            shown.ends.add(name)
    if seen.any():
        arrays = (low, high, pixel, np.where(seen, abs(low + high - canvas.length), FAR))
        lows, highs, pixels, off = (np.broadcast_to(each, reached.shape) for each in arrays)
        unit = np.unravel_index(off.argmin(), off.shape)
        mine = (lows == lows[unit]) & (highs == highs[unit])
        total = int(highs[unit] - lows[unit]) + 1
        if len(np.unique(pixels[mine & (lows <= pixels) & (pixels <= highs)])) == total:
            shown.read = len(np.unique(pixels[mine & reached])), total


def _join_batches(parts: Sequence[Reach]) -> tuple[IntArray, IntArray, IntArray, NDArray[np.bool_]]:
    """Return low, high, pixel and reached of all batches, with a first dimension for the images."""
    dim = parts[0].dim

    def along(name: str) -> list[Any]:
        arrays = [getattr(part, name) for part in parts]
        return [a[None] if dim is None else np.moveaxis(a, dim, 0) for a in arrays]

    low, high = (e[0] if len(e[0]) == 1 else np.concatenate(e) for e in map(along, ("low", "high")))
    return low, high, np.concatenate(along("pixel")), np.concatenate(along("reached"))


def _wrong_unit(
    bad: NDArray[np.bool_],
    low: IntArray,
    high: IntArray,
    pixel: IntArray,
    reached: NDArray[np.bool_],
) -> tuple[int, Size, Size] | None:
    """Return the number of the first unit that is wrong, its field, and what it reads.

    Where places are flattened, units of one field differ along the other axis, and count together.
    """
    lows, highs, pixels = (np.broadcast_to(each, bad.shape) for each in (low, high, pixel))
    for first in map(tuple, np.argwhere(bad)):
        field = int(lows[first]), int(highs[first])
        read = pixels[reached & (lows == field[0]) & (highs == field[1])]
        if read.size and ((read.min(), read.max()) != field or reached[first]):
            dim = next((d for d, size in enumerate(low.shape) if size > 1), 0)
            analytic = field if field[0] <= field[1] else (0, -1)  # it sees nothing
            return int(first[dim]), analytic, (int(read.min()), int(read.max()))
    return None
