"""Rules of operations with windows: convolution, pooling, resampling, padding, unfolding."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.layout import reduce, reshape
from cifar_cnn.analysis.moves import View
from cifar_cnn.analysis.steps import POINT, Outcome, Rule, UnsupportedError, Window
from cifar_cnn.analysis.taps import Taps, apply_taps

Ints = Sequence[int]
Shape = tuple[int, ...]


def convolution(  # noqa: PLR0917 - torch's order
    out: Shape,
    x: Field,
    weight: Field,
    bias: Field | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    is_transposed: bool,  # noqa: FBT001
    output_padding: Ints,
    groups: int,
    *_: object,
) -> Outcome:
    """Apply `weight` at every position: (out, in / groups, …), or (in, out / groups, …)."""
    kernel = weight.shape[2:]
    strides, pads, dilations = (sizes(n, len(kernel)) for n in (stride, padding, dilation))
    kind = taps.transposed if is_transposed else taps.window
    channels = weight.shape[1] * groups if is_transposed else weight.shape[0]
    geometry = zip(kernel, strides, pads, dilations, strict=True)
    field = read_map(mix_channels(x, groups, channels), [kind(*each) for each in geometry], out)
    field = hull(out, [field, *seen_by_all(weight, bias)])
    return Outcome((field,), map_window(kernel, strides, pads, dilations))


def seen_by_all(*weights: Field | None) -> list[Field]:
    """Return the fields of weights computed from the image, reduced to what every unit sees."""
    made = [w for w in weights if w and any(w.axes)]
    return [reduce(w, range(len(w.shape)), keep=False) for w in made]


def pool(
    out: Shape,
    x: Field,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    dilation: Ints = (1,),
    *_: object,
) -> Outcome:
    """Take the maximum of each window; one that is the whole map reads no more than it."""
    rank = len(kernel)
    pads, dilations = sizes(padding, rank), sizes(dilation, rank)
    strides = sizes(stride, rank) if stride else kernel
    before, after = x.shape[-rank:], out[-rank:]
    reads = [taps.window(*each) for each in zip(kernel, strides, pads, dilations, strict=True)]
    fits = [
        m == 1 and n <= k - p and d == 1
        for n, m, k, p, d in zip(before, after, kernel, pads, dilations, strict=True)
    ]
    covers = all(fits) and max(before) > 1
    if covers:
        reads = [Taps(s, (tuple(range(n)),)) for n, s in zip(before, strides, strict=True)]
    window = map_window(kernel, strides, pads, dilations)
    return Outcome((read_map(x, reads, out),), window, covers=covers)


def average_pool(
    out: Shape, x: Field, kernel: Ints, stride: Ints = (), padding: Ints = (0,), *_: object
) -> Outcome:
    """Take the mean of each window."""
    return pool(out, x, kernel, stride, padding)


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
    return map_window(bins, steps, [0] * len(bins), [1] * len(bins))


def resampling(reads: Callable[[Fraction, bool], Taps]) -> Rule:
    """Return the rule of interpolation by these taps, called with scale and `align_corners`."""

    def rule(out: Shape, x: Field, size: Ints, *rest: Any) -> Field:
        corners = rest[:1] == (True,)
        scales = [scale for scale in rest if not isinstance(scale, bool)]
        scales += [None] * (len(size) - len(scales))
        field, first = x, len(x.shape) - len(size)
        for dim, factor in enumerate(scales, start=first):
            before, after = x.shape[dim], out[dim]
            if corners:
                scale = Fraction(before - 1, after - 1) if after > 1 else Fraction(0)
            elif factor is None:
                scale = Fraction(before, after)
            else:
                scale = 1 / Fraction(factor).limit_denominator(1 << 16)
            field = apply_taps(field, dim, reads(scale, corners), after)
        return field

    return rule


def interpolation(radius: int) -> Rule:
    """Return the rule of interpolation between so many units on each side."""
    return resampling(
        lambda scale, corners: taps.interpolated(scale, radius, align_corners=corners)
    )


def smoothing(radius: int) -> Rule:
    """Return the rule of interpolation by a filter that is widened where it shrinks a map."""

    def reads(scale: Fraction, corners: bool) -> Taps:  # noqa: FBT001
        if corners:
            raise UnsupportedError("with antialias and align_corners")
        return taps.antialiased(scale, radius)

    return resampling(reads)


def padding(out: Shape, x: Field, pads: Ints, *_: object) -> Outcome:
    """Put positions around the map: whatever they hold, they count as outside of the image."""
    rank = len(x.shape)
    sides = [(0, 0)] * rank
    for i, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        sides[rank - 1 - i] = before, after
    start = tuple(-before for before, _ in sides)
    field = View(out, start, tuple((d, 1) for d in range(rank))).read(x)
    vertical, horizontal = sides[-2:] if rank > 1 else ((0, 0), sides[-1])
    return Outcome((field,), Window(padding=(vertical, horizontal)))


def unfolding(
    out: Shape, x: Field, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Field:
    """Make each window of a map a column."""
    *batch, channels, _, _ = x.shape
    counts = count_windows(x.shape[-2:], kernel, dilation, padding, stride)
    first = len(batch) + 1
    inside = [(first + i, dilation[i]) for i in (0, 1)]
    between = [(first + i, stride[i]) for i in (0, 1)]
    start = (*[0] * first, -padding[0], -padding[1])
    walks = (*((d, 1) for d in range(first)), *inside, *between)
    field = View((*batch, channels, *kernel, *counts), start, walks).read(x)
    return reshape(field, out)


def folding(
    out: Shape,
    x: Field,
    output_size: Ints,
    kernel: Ints,
    dilation: Ints,
    padding: Ints,
    stride: Ints,
) -> Field:
    """Add each column's units up at the places of its window: the reverse of unfolding."""
    *batch, channels, rows, columns = out
    counts = count_windows((rows, columns), kernel, dilation, padding, stride)
    first = len(batch) + 1
    split = reshape(x, (*batch, channels, *kernel, *counts))
    kept = [*((d, 1) for d in range(first)), (first + 2, 1), (first + 3, 1)]
    pieces = []
    for y in range(kernel[0]):
        for z in range(kernel[1]):
            start = (*[0] * first, y, z, 0, 0)
            part = View((*batch, channels, *counts), start, tuple(kept)).read(split)
            places = padding[0] - y * dilation[0], padding[1] - z * dilation[1]
            reads = [taps.transposed(1, s, p, 1) for s, p in zip(stride, places, strict=True)]
            pieces.append(read_map(part, reads, out))
    return hull(out, pieces)


def max_unpool(
    out: Shape,
    x: Field,
    indices: Field,
    kernel_size: int | Ints,
    stride: int | Ints | None = None,
    padding: int | Ints = 0,
    output_size: object = None,
) -> Field:
    """Put each unit at one place of its window, which only the image decides."""
    rank = len(x.shape) - 2
    kernel, pads = sizes(kernel_size, rank), sizes(padding, rank)
    strides = kernel if not stride else sizes(stride, rank)
    reads = [taps.transposed(k, s, p, 1) for k, s, p in zip(kernel, strides, pads, strict=True)]
    return read_map(hull(x.shape, [x, indices]), reads, out)


def sizes(size: int | Ints, rank: int) -> list[int]:
    """Return one number for each dimension of a map."""
    if isinstance(size, int):
        return [size] * rank
    return list(size) * rank if len(size) == 1 else list(size)


def count_windows(
    size: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> list[int]:
    """Return how many windows lie in a map of `size`, along each side."""
    each = zip(size, kernel, dilation, padding, stride, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in each]


def mix_channels(x: Field, groups: int, channels: int) -> Field:
    """Return the field after the channels of every group of (N, C, …) are mixed."""
    shape = (x.shape[0], channels, *x.shape[2:])
    if not any(f.low.shape[1] > 1 or f.dim == 1 for axis in x.axes for f in axis):
        return Field(shape, x.axes)
    grouped = reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    mixed = reduce(grouped, [2])
    return reshape(hull((x.shape[0], groups, channels // groups, *x.shape[2:]), [mixed]), shape)


def read_map(field: Field, reads: Sequence[Taps], shape: Ints) -> Field:
    """Return the field after windows along the last dimensions, which leave `shape`."""
    first = len(shape) - len(reads)
    for dim, tap in enumerate(reads, start=first):
        field = apply_taps(field, dim, tap, shape[dim])
    return field


def map_window(kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Window:
    """Return the window as the table shows it; one along a single dimension is no map's."""
    if len(kernel) == 1:
        return POINT
    (k, s, p, d) = ((n[-2], n[-1]) for n in (kernel, stride, padding, dilation))
    return Window(k, s, ((p[0], p[0]), (p[1], p[1])), d)
