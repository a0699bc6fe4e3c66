"""Which image pixels the elements of a tensor can see, exactly, along each image axis.

A `Family` holds intervals of pixel positions. Along its `dim` it repeats with a period: unit
i + period sees what unit i sees, `shift` pixels further. That covers strides, dilation and every
kind of upsampling for all units at once, those beyond the border included, so that padding counts
as positions outside of the image and nothing is clipped. A family without `dim` lists what each
element sees. A `Field` is what a tensor sees: the hull over its families.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FAR = 1 << 40
"""Beyond any pixel: an interval from FAR to -FAR is empty, and neutral in a hull."""


@dataclass(frozen=True)
class Family:
    """Intervals of pixels along one image axis, `low` to `high`, both included.

    The arrays have a tensor's number of dimensions, each of size 1 (the same for all) or full;
    along `dim` they hold one period.

    The rows of a 3×3 convolution with stride 2 and padding 1 are low -1, high 1, shift 2: unit i
    sees the pixels 2i - 1 to 2i + 1. Doubled by nearest upsampling, units 2i and 2i + 1 both see
    them: low (-1, -1), high (1, 1), period 2, shift 2, and a slope of 1 pixel a unit.
    """

    axis: int
    low: IntArray
    high: IntArray
    dim: int | None = None
    shift: int = 0

    @property
    def period(self) -> int:
        """Units after which the family repeats."""
        return 1 if self.dim is None else self.low.shape[self.dim]

    @property
    def slope(self) -> Fraction:
        """Pixels from one unit to the next, on average: the jump."""
        return Fraction(self.shift, self.period)

    def varies_along(self, dim: int) -> bool:
        """Return whether units of a dimension may see different pixels."""
        return dim == self.dim or self.low.shape[dim] > 1

    def at(self, units: Sequence[int] | IntArray) -> tuple[IntArray, IntArray]:
        """Return low and high of these units of `dim`, which may lie beyond the map's border."""
        assert self.dim is not None
        turns, phase = np.divmod(np.asarray(units, dtype=np.int64), self.period)
        column = [1] * self.low.ndim
        column[self.dim] = len(turns)
        distance = (turns * self.shift).reshape(column)
        return self.low.take(phase, self.dim) + distance, self.high.take(phase, self.dim) + distance

    def unroll(self, shape: Sequence[int]) -> "Family":
        """Return the same intervals unit by unit, for the units that a tensor of `shape` has."""
        if self.dim is None:
            return self
        return Family(self.axis, *self.at(range(shape[self.dim])))


@dataclass(frozen=True)
class Field:
    """What the elements of a tensor of `shape` see, along two axes; without families nothing.

    In the table the axes are the rows and the columns of the image. In the proof they are the rows
    (or the columns), and the images of the batch.
    """

    shape: tuple[int, ...]
    families: tuple[Family, ...] = ()

    def change(self, shape: Sequence[int], each: Callable[[Family], Family]) -> "Field":
        """Return the field of a tensor of `shape`, with each family changed."""
        return Field(tuple(shape), merge(map(each, self.families)))

    def along(self, axis: int) -> Iterator[Family]:
        """Yield the families of an image axis."""
        return (family for family in self.families if family.axis == axis)

    def span(self, axis: int) -> tuple[IntArray, IntArray]:
        """Return first and last pixel of each element's hull; sizes are 1 where all agree."""
        low, high = np.full((1,) * len(self.shape), FAR), np.full((1,) * len(self.shape), -FAR)
        for family in self.along(axis):
            each_unit = family.unroll(self.shape)
            low, high = np.minimum(low, each_unit.low), np.maximum(high, each_unit.high)
        return low, high


def image_field(shape: tuple[int, ...], dims: tuple[int, int] = (2, 3)) -> Field:
    """Return the field of images, (N, C, H, W): each pixel sees its own place along both `dims`."""
    here = np.zeros((1,) * len(shape), dtype=np.int64)
    return Field(shape, tuple(Family(axis, here, here, dim, 1) for axis, dim in enumerate(dims)))


def hull(shape: tuple[int, ...], fields: Iterable[Field]) -> Field:
    """Return the field of a tensor of `shape` made element by element from broadcast tensors."""
    parts = [_broadcast(field, shape) for field in fields]
    if len(parts) == 1:
        return parts[0]
    return Field(shape, merge(family for field in parts for family in field.families))


def merge(families: Iterable[Family]) -> tuple[Family, ...]:
    """Return the hull of families of the same tensor, with as few families as hold it exactly."""
    groups: dict[object, list[Family]] = {}
    for family in families:
        # a listed family that tells places apart stays apart from one that is the same everywhere
        varies = family.dim is None and tuple(size > 1 for size in family.low.shape)
        groups.setdefault((family.axis, family.dim, family.slope, varies), []).append(family)
    merged = [_merge_alike(group) for group in groups.values()]
    return tuple(family for family in merged if (family.low <= family.high).any())


def _merge_alike(families: list[Family]) -> Family:
    """Merge families of one axis, dim and slope."""
    merged, period = families[0], math.lcm(*(family.period for family in families))
    if len(families) > 1 and merged.dim is not None:
        merged = replace(merged, shift=int(merged.slope * period))
    ends = [(f.low, f.high) if f.period == period else f.at(range(period)) for f in families]
    low, high = ends[0]
    for other_low, other_high in ends[1:]:
        low, high = np.minimum(low, other_low), np.maximum(high, other_high)
    return shorten_period(compress(replace(merged, low=low, high=high)))


def compress(family: Family) -> Family:
    """Return the family with equal entries of a dimension as one."""
    low, high = family.low, family.high
    for dim, size in enumerate(low.shape):
        if size > 1 and dim != family.dim:
            first_low, first_high = low.take([0], dim), high.take([0], dim)
            if (low == first_low).all() and (high == first_high).all():
                low, high = first_low, first_high
    return replace(family, low=low, high=high)


def shorten_period(family: Family) -> Family:
    """Return the family with the shortest period that holds the same intervals."""
    empty = family.low > family.high
    for period in range(1, family.period):
        if family.period % period or family.shift * period % family.period:
            continue
        low, high = (end.take(range(period), family.dim) for end in (family.low, family.high))
        short = replace(family, low=low, high=high, shift=family.shift * period // family.period)
        low, high = short.at(range(family.period))
        same = (low == family.low) & (high == family.high)
        if (same | (empty & (low > high))).all():
            return short
    return family


def _broadcast(field: Field, shape: tuple[int, ...]) -> Field:
    if field.shape == shape:
        return field
    extra = len(shape) - len(field.shape)
    old = (1,) * extra + field.shape

    def fit(family: Family) -> Family:
        dim = None if family.dim is None else family.dim + extra
        low, high = (end.reshape((1,) * extra + end.shape) for end in (family.low, family.high))
        family = replace(family, low=low, high=high, dim=dim)
        is_repeated = dim is not None and old[dim] == 1 != shape[dim]
        return family.unroll(old) if is_repeated else family

    return Field(shape, tuple(map(fit, field.families)))
