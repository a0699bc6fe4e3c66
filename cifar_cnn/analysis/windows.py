"""Rules of operations with windows: convolution, pooling, resampling, padding, unfolding."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.layout import reduce, reshape
from cifar_cnn.analysis.moves import read_view
from cifar_cnn.analysis.steps import POINT, Kind, Outcome, Window, rule
from cifar_cnn.analysis.taps import Taps, apply_taps

Ints = Sequence[int]
Shape = tuple[int, ...]


@rule(Kind.WINDOW, "convolution _convolution")
def convolution(out: Shape, x: Field, weight: Field, bias: Field | None, *geometry: Any) -> Outcome:
    """Apply `weight` at every position: (out, in / groups, …), or (in, out / groups, …)."""
    stride, padding, dilation, is_transposed, _, groups, *_ = geometry
    kernel = weight.shape[2:]
    strides, pads, dilations = (sizes(n, len(kernel)) for n in (stride, padding, dilation))
    kind = taps.transposed if is_transposed else taps.window
    reads = [kind(*each) for each in zip(kernel, strides, pads, dilations, strict=True)]
    field = _read_map(_mix_channels(x, groups, out[1]), reads, out)
    field = hull(out, [field, *seen_by_all(weight, bias)])
    return Outcome((field,), _map_window(kernel, strides, pads, dilations))


def seen_by_all(*weights: object) -> list[Field]:
    """Return the fields of weights computed from the image, reduced to what every unit sees."""
    made = [w for w in weights if isinstance(w, Field) and w.families]
    return [reduce(w, range(len(w.shape)), keep=False) for w in made]


def _mix_channels(x: Field, groups: int, channels: int) -> Field:
    """Return the field after the channels of every group of (N, C, …) are mixed."""
    shape = (x.shape[0], channels, *x.shape[2:])
    if not any(family.varies_along(1) for family in x.families):
        return Field(shape, x.families)
    grouped = reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    mixed = reduce(grouped, [2])
    return reshape(hull((x.shape[0], groups, channels // groups, *x.shape[2:]), [mixed]), shape)


@rule(Kind.WINDOW, "max_pool2d_with_indices max_pool3d_with_indices")
def pool(
    out: Shape, x: Field, kernel: Ints, stride: Ints = (), pad: Ints = (0,), *dilation: Any
) -> Outcome:
    """Take the maximum of each window; one that is the whole map reads no more than it."""
    rank = len(kernel)
    pads, dilations = sizes(pad, rank), sizes(dilation[0] if dilation else 1, rank)
    strides = sizes(stride, rank) if stride else kernel
    before, after = x.shape[-rank:], out[-rank:]
    reads = [taps.window(*each) for each in zip(kernel, strides, pads, dilations, strict=True)]
    covers = max(before) > 1 and all(
        m == 1 and n <= k - p and d == 1
        for n, m, k, p, d in zip(before, after, kernel, pads, dilations, strict=True)
    )
    if covers:
        reads = [Taps(s, (tuple(range(n)),)) for n, s in zip(before, strides, strict=True)]
    window = _map_window(kernel, strides, pads, dilations)
    return Outcome((_read_map(x, reads, out),), window, covers=covers)


@rule(Kind.WINDOW, "avg_pool1d avg_pool2d avg_pool3d")
def average_pool(
    out: Shape, x: Field, kernel: Ints, stride: Ints = (), pad: Ints = (0,), *_: object
) -> Outcome:
    """Take the mean of each window."""
    return pool(out, x, kernel, stride, pad)


@rule(Kind.WINDOW, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d")
@rule(Kind.WINDOW, "adaptive_max_pool3d")
def adaptive_pool(out: Shape, x: Field, size: Ints) -> Outcome:
    """Pool into as many bins as the output has; one bin is global pooling."""
    field, first = x, len(x.shape) - len(size)
    for dim in range(first, len(x.shape)):
        if out[dim] == 1:
            field = reduce(field, [dim])
        elif out[dim] != x.shape[dim]:
            field = apply_taps(field, dim, taps.adaptive(x.shape[dim], out[dim]), out[dim])
    return Outcome((field,), adaptive_window(x.shape[first:], out[first:]))


def adaptive_window(before: Ints, after: Ints) -> Window:
    """Return the largest bin of adaptive pooling, as the table shows it."""
    bins = [-(-n // m) for n, m in zip(before, after, strict=True)]
    steps = [max(n // m, 1) for n, m in zip(before, after, strict=True)]
    return _map_window(bins, steps, [0] * len(bins), [1] * len(bins))


def _resample(
    read: Callable[[Fraction, bool], Taps], out: Shape, x: Field, size: Ints, *rest: Any
) -> Field:
    """Interpolate by the taps of `read`, called with the scale and `align_corners`."""
    has_corners = rest[:1] == (True,)
    scales = [scale for scale in rest if not isinstance(scale, bool)]
    scales += [None] * (len(size) - len(scales))
    field = x
    for dim, factor in enumerate(scales, start=len(x.shape) - len(size)):
        before, after = x.shape[dim], out[dim]
        if has_corners:
            scale = Fraction(before - 1, after - 1) if after > 1 else Fraction(0)
        elif factor is None:
            scale = Fraction(before, after)
        else:
            scale = 1 / Fraction(factor).limit_denominator(1 << 16)
        field = apply_taps(field, dim, read(scale, has_corners), after)
    return field


TAPS: dict[str, Callable[[Fraction, bool], Taps]] = {
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d": (
        lambda scale, _: taps.nearest(scale, exact=False)
    ),
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d": (
        lambda scale, _: taps.nearest(scale, exact=True)
    ),
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d": (
        lambda scale, corners: taps.interpolated(scale, 1, align_corners=corners)
    ),
    "upsample_bicubic2d": lambda scale, corners: taps.interpolated(scale, 2, align_corners=corners),
    "_upsample_bilinear2d_aa": lambda scale, corners: taps.antialiased(scale, 1, corners=corners),
    "_upsample_bicubic2d_aa": lambda scale, corners: taps.antialiased(scale, 2, corners=corners),
}
for operations, read in TAPS.items():
    rule(Kind.WINDOW, operations)(partial(_resample, read))


@rule(Kind.WINDOW, "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d", "pad")
@rule(Kind.WINDOW, "replication_pad1d replication_pad2d replication_pad3d")
def padding(out: Shape, x: Field, pads: Ints, *_: object) -> Outcome:
    """Put positions around the map: whatever they hold, they count as outside of the image."""
    rank = len(x.shape)
    sides = [(0, 0)] * rank
    for i, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        sides[rank - 1 - i] = before, after
    field = read_view(x, out, [-before for before, _ in sides], [(d, 1) for d in range(rank)])
    vertical, horizontal = sides[-2:] if rank > 1 else ((0, 0), sides[-1])
    return Outcome((field,), Window(padding=(vertical, horizontal)))


@rule(Kind.MOVE, "im2col")
def unfolding(
    out: Shape, x: Field, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Field:
    """Make each window of a map a column."""
    first = len(x.shape) - 2
    counts = _count_windows(x.shape[first:], kernel, dilation, padding, stride)
    kept = [(d, 1) for d in range(first)]
    inside = [(first + i, dilation[i]) for i in (0, 1)]
    between = [(first + i, stride[i]) for i in (0, 1)]
    start = (*[0] * first, -padding[0], -padding[1])
    shape = (*x.shape[:first], *kernel, *counts)
    return reshape(read_view(x, shape, start, (*kept, *inside, *between)), out)


@rule(Kind.MOVE, "col2im")
def folding(
    out: Shape, x: Field, _: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Field:
    """Add each column's units up at the places of its window: the reverse of unfolding."""
    first = len(out) - 2
    counts = _count_windows(out[first:], kernel, dilation, padding, stride)
    split = reshape(x, (*out[:first], *kernel, *counts))
    walks = (*((d, 1) for d in range(first)), (first + 2, 1), (first + 3, 1))
    pieces = []
    for y, z in np.ndindex(*kernel):
        part = read_view(split, (*out[:first], *counts), (*[0] * first, y, z, 0, 0), walks)
        places = padding[0] - y * dilation[0], padding[1] - z * dilation[1]
        reads = [taps.transposed(1, s, p, 1) for s, p in zip(stride, places, strict=True)]
        pieces.append(_read_map(part, reads, out))
    return hull(out, pieces)


@rule(Kind.WINDOW, functions="max_unpool1d max_unpool2d max_unpool3d")
def max_unpool(
    out: Shape, x: Field, indices: Field, kernel: Any, stride: Any = None, pad: Any = 0, *_: object
) -> Field:
    """Put each unit at one place of its window, which only the image decides."""
    rank = len(x.shape) - 2
    geometry = sizes(kernel, rank), sizes(stride or kernel, rank), sizes(pad, rank)
    reads = [taps.transposed(*each, 1) for each in zip(*geometry, strict=True)]
    return _read_map(hull(x.shape, [x, indices]), reads, out)


def sizes(size: int | Ints, rank: int) -> list[int]:
    """Return one number for each dimension of a map."""
    if isinstance(size, int):
        return [size] * rank
    return list(size) * rank if len(size) == 1 else list(size)


def _count_windows(
    size: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> list[int]:
    """Return how many windows lie in a map of `size`, along each side."""
    each = zip(size, kernel, dilation, padding, stride, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in each]


def _read_map(field: Field, reads: Sequence[Taps], shape: Ints) -> Field:
    """Return the field after windows along the last dimensions, which leave `shape`."""
    for dim, tap in enumerate(reads, start=len(shape) - len(reads)):
        field = apply_taps(field, dim, tap, shape[dim])
    return field


def _map_window(kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Window:
    """Return the window as the table shows it; one along a single dimension is no map's."""
    if len(kernel) == 1:
        return POINT
    (k, s, p, d) = ((n[-2], n[-1]) for n in (kernel, stride, padding, dilation))
    return Window(k, s, ((p[0], p[0]), (p[1], p[1])), d)
