"""Which input units each output unit of a window reads along a dimension, and what it sees."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from cifar_cnn.analysis.field import FAR, Family, Field, shorten_period

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Taps:
    """Which input units each output unit of a window operation reads, along one dimension.

    Output unit q·len(offsets) + r reads the input units q·step + k for k in offsets[r].
    """

    step: int
    offsets: tuple[tuple[int, ...], ...]


def apply_taps(field: Field, dim: int, taps: Taps, size: int) -> Field:
    """Return the field after a window operation along `dim` that leaves `size` units."""
    shape = (*field.shape[:dim], size, *field.shape[dim + 1 :])
    size_in = field.shape[dim]
    return Field(shape, tuple(_tap(f, dim, taps, size_in, size) for f in field.families))


def _tap(family: Family, dim: int, taps: Taps, size_in: int, size_out: int) -> Family:
    if not family.varies_along(dim):
        return family
    phases, count, shift = len(taps.offsets), size_out, family.shift
    if family.dim == dim:
        # Output units repeat when both the taps' phases and the family's period have come round.
        # A family of period 2 and shift 2 (a map doubled) under a window of stride 3: the window's
        # second position begins in the middle of a period, its third at a start again; so turns =
        # 2 / gcd(2, 3) = 2 positions make a period, and 2 · 3 units at 2 / 2 pixels each are its
        # shift of 6 pixels.
        turns = family.period // math.gcd(family.period, taps.step)
        count, shift = phases * turns, shift * turns * taps.step // family.period
    lows, highs = [], []
    for unit in range(count):
        turn, phase = divmod(unit, phases)
        reads = np.asarray(taps.offsets[phase], dtype=np.int64) + turn * taps.step
        if family.dim == dim:
            low, high = family.at(reads)
        else:
            reads = reads[(reads >= 0) & (reads < size_in)]
            low, high = family.low.take(reads, dim), family.high.take(reads, dim)
        lows.append(low.min(dim, keepdims=True, initial=FAR))
        highs.append(high.max(dim, keepdims=True, initial=-FAR))
    low, high = np.concatenate(lows, dim), np.concatenate(highs, dim)
    return shorten_period(replace(family, low=low, high=high, shift=shift))


def window(kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """Return the taps of a convolution or pooling with `padding` units before the first."""
    return Taps(stride, (tuple(k * dilation - padding for k in range(kernel)),))


def transposed(kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """Return the taps of a transposed convolution: input i reaches output i·stride - padding + k·d.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), 4.
    """
    reach = [k * dilation for k in range(kernel)]
    phases = (
        tuple((phase + padding - k) // stride for k in reach if (phase + padding - k) % stride == 0)
        for phase in range(stride)
    )
    return Taps(1, tuple(phases))


def adaptive(size_in: int, size_out: int) -> Taps:
    """Return the taps of adaptive pooling: bin o is from ⌊o·in/out⌋ up to ⌈(o+1)·in/out⌉."""
    step = Fraction(size_in, size_out)
    return _repeat(step, lambda o: range(math.floor(o * step), math.ceil((o + 1) * step)))


def nearest(scale: Fraction, *, exact: bool) -> Taps:
    """Return the taps of nearest-neighbor resampling, `scale` input units to an output unit."""
    center = HALF if exact else 0
    return _repeat(scale, lambda o: [math.floor((o + center) * scale)])


def interpolated(scale: Fraction, radius: int, *, align_corners: bool) -> Taps:
    """Return the taps of interpolation by `radius` units (linear 1, cubic 2) on each side."""

    def reads(output: int) -> Iterable[int]:
        source = output * scale if align_corners else (output + HALF) * scale - HALF
        below = math.floor(source)
        return [below] if source == below else range(below + 1 - radius, below + 1 + radius)

    return _repeat(scale, reads)


def antialiased(scale: Fraction, radius: int, *, corners: bool = False) -> Taps:
    """Return the taps of a filter of `radius` (linear 1, cubic 2) widened when it shrinks a map."""
    if corners:
        raise ValueError("with antialias and align_corners")
    support = radius * max(scale, Fraction(1))

    def reads(output: int) -> Iterable[int]:
        center = scale * (output + HALF)
        near, far = math.floor(center - support), math.ceil(center + support)
        return (unit for unit in range(near, far + 1) if abs(unit + HALF - center) < support)

    return _repeat(scale, reads)


def _repeat(scale: Fraction, reads: Callable[[int], Iterable[int]]) -> Taps:
    """Return the taps of output units that lie `scale` input units apart."""
    return Taps(scale.numerator, tuple(tuple(reads(o)) for o in range(scale.denominator)))
