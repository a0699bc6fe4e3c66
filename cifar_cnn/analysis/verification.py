"""Compare the fields of units with the pixels whose NaN reached them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.field import FAR, IntArray
from cifar_cnn.analysis.results import Gridding, NotShown, Verification, WrongUnit
from cifar_cnn.analysis.steps import Kind, Step

Size = tuple[int, int]
Mask = NDArray[np.bool_]
Reach = tuple[IntArray, IntArray, IntArray, Mask]
"""Of an operation's units in one batch: first and last pixel of their fields, the NaN pixel of
their image, and whether it has reached them. The first dimension is that of the images."""


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

    def compare(self, step: Step, batches: Sequence[Reach], canvas: Canvas, margin: int) -> None:
        """Compare each unit; what sees a border within `margin` pixels may be reached by less."""
        lows, highs, pixels, reaches = zip(*batches, strict=True)
        low, high = (e[0] if len(e[0]) == 1 else np.concatenate(e) for e in (lows, highs))
        self.units = low.size
        dim = next((d for d, size in enumerate(low.shape) if size > 1), 0)
        low, high, pixel, reached = np.broadcast_arrays(
            low, high, np.concatenate(pixels), np.concatenate(reaches)
        )
        border = np.full_like(low, margin)
        if len(canvas.rows) == canvas.length:  # those of the middle half alone
            border = np.maximum(border, (canvas.length - (high - low)) // 4)
        whole = (low >= border) & (high < canvas.length - border) & (low <= high)
        seen = whole & reached.any(0, keepdims=True)  # not, where the other axis sees nothing
        beyond = reached & ((pixel < low) | (high < pixel))
        missing = seen & ~reached & ((pixel == low) | (pixel == high))
        is_lost = missing.any() or not reached.any()
        if is_lost and step.kind == Kind.POINTWISE and not beyond.any():
            self.lost = self.lost or f"{step.call.function} gives numbers for NaN"
        elif not reached.any():
            self.lost = self.lost or "no pixel has a part in it"
        for first in map(tuple, np.argwhere(beyond if self.lost else beyond | missing)):
            # where places are flattened, units of one field differ along the other axis, and count
            # together
            read = pixel[reached & (low == low[first]) & (high == high[first])]
            ends = int(low[first]), int(high[first])
            if read.size and ((read.min(), read.max()) != ends or reached[first]):
                field = ends if ends[0] <= ends[1] else (0, -1)  # it sees nothing
                self.wrong = int(first[dim]), field, (int(read.min()), int(read.max()))
                break
        for name, end in (("low", low), ("high", high)):
            at = seen & (pixel == end)
            if at.any() and not (at & ~reached).any():
                self.ends.add(name)
        if seen.any():  # holes in the field of the unit nearest to the center
            off = np.where(seen, abs(low + high - canvas.length), FAR)
            unit = np.unravel_index(off.argmin(), off.shape)
            alike = (low == low[unit]) & (high == high[unit])
            total = int(high[unit] - low[unit]) + 1
            if len(np.unique(pixel[alike & (low <= pixel) & (pixel <= high)])) == total:
                self.read = len(np.unique(pixel[alike & reached])), total


def judge(
    steps: Sequence[Step],
    batches: Sequence[Mapping[int, Reach]],
    reasons: Mapping[int, str],
    canvas: Canvas,
) -> dict[Call, Evidence]:
    """Compare the units of all operations with what was seen on all batches of a canvas.

    `reasons` say why NaN is lost in a step.
    """
    lost: dict[int, str] = {}
    evidence: dict[Call, Evidence] = {}
    jump = 1
    for index, step in enumerate(steps):
        jump = max([jump, *(math.ceil(abs(family.slope)) for family in step.field.along(0))])
        before = (lost[value.made] for value in step.inputs if value.made in lost)
        finding = Evidence(lost=reasons.get(index) or next(before, None))
        if reaches := [seen[index] for seen in batches if index in seen]:
            finding.compare(step, reaches, canvas, 2 * jump)
        if len(finding.ends) == 2 and index not in reasons:
            finding.lost = None  # NaN got here by another way
        if finding.lost is not None:
            lost[index] = finding.lost
        if step.call.name:
            evidence[step.call] = finding
    return evidence


def conclude(
    canvases: Sequence[Size], evidence: Mapping[tuple[str, str], Evidence]
) -> Verification:
    """Return the outcome of the proof from the evidence by layer and axis, in their order."""
    followed = {key: each for key, each in evidence.items() if each.lost is None}
    units = sum(each.units for each in followed.values())
    lost = {layer: each.lost for (layer, _), each in evidence.items() if each.lost}
    wrong = [
        WrongUnit(layer=layer, axis=axis, unit=unit, analytic=analytic, reached=reached)
        for (layer, axis), each in evidence.items()
        for unit, analytic, reached in ([each.wrong] if each.wrong else [])
    ]
    gridding = [
        Gridding(layer=layer, axis=axis, contributing=each.read[0], total=each.read[1])
        for (layer, axis), each in followed.items()
        if each.read and each.read[0] < each.read[1]
    ]
    return Verification(
        agreed=units > 0 and not wrong,
        layers=len({layer for (layer, _), each in followed.items() if each.units}),
        units=units,
        canvases=tuple(canvases),
        clipped=tuple(
            dict.fromkeys(layer for (layer, _), e in followed.items() if len(e.ends) < 2)
        ),
        not_shown=tuple(NotShown(layer=layer, reason=reason) for layer, reason in lost.items()),
        first_disagreement=wrong[0] if wrong else None,
        gridding=tuple(gridding),
    )
