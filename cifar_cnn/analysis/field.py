"""Which image pixels the elements of a tensor can see, exactly, along each image axis.

A `Family` holds intervals of pixel positions. Along its `dim` it repeats with a period: unit
i + period sees what unit i sees, `shift` pixels further. That covers strides, dilation and every
kind of upsampling for all units at once, those beyond the border included, so that padding counts
as positions outside of the image and nothing is clipped. A family without `dim` lists what each
element sees. A `Field` is what a tensor sees: the hull over its families.
"""

import math
from collections.abc import Callable, Iterable, Sequence
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

    def at(self, units: Sequence[int] | IntArray) -> tuple[IntArray, IntArray]:
        """Return low and high of these units of `dim`, which may lie beyond the map's border."""
        assert self.dim is not None
        turns, phase = np.divmod(np.asarray(units, dtype=np.int64), self.period)
        column = [1] * self.low.ndim
        column[self.dim] = len(turns)
        moved = (turns * self.shift).reshape(column)
        return self.low.take(phase, self.dim) + moved, self.high.take(phase, self.dim) + moved

    def unroll(self, shape: Sequence[int]) -> "Family":
        """Return the same intervals unit by unit, for the units that a tensor of `shape` has."""
        return self if self.dim is None else Family(*self.at(range(shape[self.dim])))


Axis = tuple[Family, ...]


@dataclass(frozen=True)
class Field:
    """What the elements of a tensor of `shape` see, along two axes.

    In the table these are the rows and the columns of the image. In the proof they are the rows
    (or the columns), and the images of the batch.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, Axis]

    def change(self, shape: Sequence[int], each: Callable[[Family], Family]) -> "Field":
        """Return the field of a tensor of `shape`, with each family changed."""
        return Field(tuple(shape), both(lambda a: merge(each(f) for f in self.axes[a])))


def image_field(shape: tuple[int, ...], dims: tuple[int, int] = (2, 3)) -> Field:
    """Return the field of images, (N, C, H, W): each pixel sees its own place along both `dims`."""
    here = np.zeros((1,) * len(shape), dtype=np.int64)
    return Field(shape, both(lambda axis: (Family(here, here, dims[axis], 1),)))


def nothing(shape: tuple[int, ...]) -> Field:
    """Return the field of a tensor that sees no pixel."""
    return Field(shape, ((), ()))


def hull(shape: tuple[int, ...], fields: Iterable[Field]) -> Field:
    """Return the field of a tensor of `shape` made element by element from broadcast tensors."""
    fitted = [_broadcast(field, shape) for field in fields]
    if len(fitted) == 1:
        return fitted[0]
    return Field(shape, both(lambda a: merge(f for field in fitted for f in field.axes[a])))


def merge(families: Iterable[Family]) -> Axis:
    """Return the hull of families of the same tensor, with as few families as hold it exactly."""
    groups: dict[object, list[Family]] = {}
    for family in families:
        # a listed family that tells places apart stays apart from one that is the same everywhere
        varies = family.dim is None and tuple(size > 1 for size in family.low.shape)
        groups.setdefault((family.dim, family.slope, varies), []).append(family)
    merged = [_merge_alike(group) for group in groups.values()]
    return tuple(family for family in merged if (family.low <= family.high).any())


def both(of_axis: Callable[[int], Axis]) -> tuple[Axis, Axis]:
    """Return what the function gives for the vertical and for the horizontal axis."""
    return of_axis(0), of_axis(1)


def _merge_alike(families: list[Family]) -> Family:
    """Merge families of one dim and slope."""
    first = families[0]
    if len(families) == 1:
        return shorten_period(compress(first))
    if first.dim is None:
        lows, highs = [f.low for f in families], [f.high for f in families]
    else:
        period = math.lcm(*(f.period for f in families))
        rolled = [f.at(range(period)) for f in families]
        lows, highs = [low for low, _ in rolled], [high for _, high in rolled]
        first = replace(first, shift=int(first.slope * period))
    low, high = lows[0], highs[0]
    for other_low, other_high in zip(lows[1:], highs[1:], strict=True):
        low, high = np.minimum(low, other_low), np.maximum(high, other_high)
    return shorten_period(compress(Family(low, high, first.dim, first.shift)))


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
    if family.dim is None or family.period == 1:
        return family
    everywhere, ends = np.arange(family.period), (family.low, family.high)
    for period in range(1, family.period):
        if family.period % period or family.shift * period % family.period:
            continue
        shift = family.shift * period // family.period
        first_low, first_high = (end.take(range(period), family.dim) for end in ends)
        short = Family(first_low, first_high, family.dim, shift)
        low, high = short.at(everywhere)
        empty = family.low > family.high
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
        if family.dim is not None:
            family = replace(family, dim=family.dim + extra)
        wide = (1,) * extra + family.low.shape
        family = replace(family, low=family.low.reshape(wide), high=family.high.reshape(wide))
        repeated = family.dim is not None and old[family.dim] == 1 != shape[family.dim]
        return family.unroll(old) if repeated else family

    return Field(shape, both(lambda a: tuple(fit(f) for f in field.axes[a])))


def recognize(family: Family, shape: Sequence[int]) -> Family:
    """Return the family with a `dim` if its intervals move in equal steps along one dimension."""
    varying = [d for d, size in enumerate(family.low.shape) if size > 1]
    for dim in varying:
        if family.dim is not None or shape[dim] != family.low.shape[dim]:
            continue
        steps = np.diff(family.low, axis=dim)
        step = int(steps.flat[0])
        if step > 0 and (steps == step).all() and (np.diff(family.high, axis=dim) == step).all():
            return Family(family.low.take([0], dim), family.high.take([0], dim), dim, step)
    return family


def span(axis: Axis, shape: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return the first and the last pixel of each element's hull; sizes are 1 where all agree."""
    low, high = np.full((1,) * len(shape), FAR), np.full((1,) * len(shape), -FAR)
    for family in axis:
        listed = family.unroll(shape)
        low, high = np.minimum(low, listed.low), np.maximum(high, listed.high)
    return low, high
