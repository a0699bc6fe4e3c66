"""Which input units each output unit reads, for every kind of window, along one dimension."""

import math
from fractions import Fraction

from cifar_cnn.analysis.field import Taps


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


def strided(start: int, step: int) -> Taps:
    """Return the taps of a slice ``start::step``; a negative start is padding."""
    return Taps(step, ((start,),))


def repeated(times: int) -> Taps:
    """Return the taps of a map in which each unit is written `times` times."""
    return Taps(1, ((0,),) * times)


def adaptive(size_in: int, size_out: int) -> Taps:
    """Return the taps of adaptive pooling: bin o is from ⌊o·in/out⌋ up to ⌈(o+1)·in/out⌉."""
    step = Fraction(size_in, size_out)
    bins = (range(math.floor(o * step), math.ceil((o + 1) * step)) for o in range(step.denominator))
    return Taps(step.numerator, tuple(tuple(b) for b in bins))


def nearest(scale: Fraction, *, exact: bool) -> Taps:
    """Return the taps of nearest-neighbor resampling, `scale` input units to an output unit."""
    center = Fraction(1, 2) if exact else Fraction(0)
    reads = ((math.floor((o + center) * scale),) for o in range(scale.denominator))
    return Taps(scale.numerator, tuple(reads))


def interpolated(scale: Fraction, radius: int, *, align_corners: bool) -> Taps:
    """Return the taps of interpolation by `radius` units (linear 1, cubic 2) on each side."""
    half = Fraction(1, 2)

    def reads(output: int) -> tuple[int, ...]:
        source = output * scale if align_corners else (output + half) * scale - half
        below = math.floor(source)
        return (below,) if source == below else tuple(range(below + 1 - radius, below + 1 + radius))

    return Taps(scale.numerator, tuple(reads(o) for o in range(scale.denominator)))


def antialiased(scale: Fraction, radius: int) -> Taps:
    """Return the taps of a filter of `radius` (linear 1, cubic 2) widened when it shrinks a map."""
    support = radius * max(scale, Fraction(1))

    def reads(output: int) -> tuple[int, ...]:
        center = scale * (output + Fraction(1, 2))
        near, far = math.floor(center - support), math.ceil(center + support)
        return tuple(u for u in range(near, far + 1) if abs(u + Fraction(1, 2) - center) < support)

    return Taps(scale.numerator, tuple(reads(o) for o in range(scale.denominator)))
