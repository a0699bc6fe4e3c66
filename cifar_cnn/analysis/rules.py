"""How the fields of an operation's outputs follow from those of its inputs, where it takes a rule.

To add an operation, add a function and its line in `RULES`. A rule is called with the outputs'
shapes, then with the operation's own arguments, tensors as Fields. Element-wise operations and
reductions need no rule where PyTorch tags them as such, nor do views.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import partial
from typing import Any

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, Taps, apply_taps, hull, nothing
from cifar_cnn.analysis.moves import (
    Strided,
    concatenate,
    permute,
    reduce,
    reshape,
    views,
)

Pair = tuple[int, int]
Shapes = Sequence[tuple[int, ...]]
Ints = Sequence[int]


class Kind(StrEnum):
    """What an operation does to the elements of its tensors."""

    POINTWISE = "pointwise"
    NORMALIZATION = "normalization"
    MIXING = "mixing"
    """Each output reads all of a dimension: sums, products, softmax."""
    WINDOW = "window"
    MOVE = "move"
    """Elements are moved about, and nothing is computed."""


@dataclass(frozen=True)
class Window:
    """What a layer reads of its input's map, as (vertical, horizontal)."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)


POINT = Window()


@dataclass(frozen=True)
class Outcome:
    """The answer of a rule.

    Args:
        fields: of the outputs.
        window: what it reads of a map.
        spans: a statistic over space was passed through.
        covers: it is a pool whose one window is the whole map.
    """

    fields: tuple[Field, ...]
    window: Window = POINT
    spans: bool = False
    covers: bool = False


Rule = Callable[..., Outcome]


class UnsupportedError(Exception):
    """A known operation in a form that no rule covers; the text says which."""


def pointwise(out: Shapes, *args: Any, **kwargs: Any) -> Outcome:
    """Work element by element on tensors that are broadcast to the output's shape."""
    listed = [leaf for arg in args for leaf in (arg if isinstance(arg, list) else [arg])]
    fields = [leaf for leaf in (*listed, *kwargs.values()) if isinstance(leaf, Field)]
    return Outcome(tuple(hull(shape, fields) for shape in out))


def copied(out: Shapes, _: Field, source: object, *__: object, **___: object) -> Outcome:
    """Write the second tensor, or a number, over the first."""
    field = hull(out[0], [source]) if isinstance(source, Field) else nothing(out[0])
    return Outcome((field,))


def cleared(out: Shapes, *_: object, **__: object) -> Outcome:
    """Write a number over everything."""
    return Outcome((nothing(out[0]),))


def normalization(out: Shapes, x: Field, *weights: object, spans: bool = False) -> Outcome:
    """Normalize; by convention statistics do not count, and each element reads itself."""
    seen = [reduce(w, range(len(w.shape))) for w in weights if isinstance(w, Field)]
    first = hull(out[0], [x, *(reshape(s, (1,)) for s in seen)])
    return Outcome((first, *(nothing(shape) for shape in out[1:])), spans=spans)


def batch_norm(out: Shapes, x: Field, weight: Any, bias: Any, *rest: Any) -> Outcome:
    """Normalize by the statistics of the batch, if `training`, or by stored ones."""
    return normalization(out, x, weight, bias, spans=bool(rest[2]))


def layer_norm(out: Shapes, x: Field, shape: Ints, *weights: Any) -> Outcome:
    """Normalize over the last dimensions."""
    return normalization(out, x, *weights, spans=len(shape) > 1)


def group_norm(out: Shapes, x: Field, *weights: Any) -> Outcome:
    """Normalize over the map."""
    return normalization(out, x, *weights, spans=True)


def convolution(  # noqa: PLR0917 - torch's order
    out: Shapes,
    x: Field,
    weight: Field,
    bias: Field | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    is_transposed: bool,  # noqa: FBT001
    output_padding: Ints,
    groups: int,
) -> Outcome:
    """Apply `weight` at every position: (out, in / groups, …), or (in, out / groups, …)."""
    kernel = weight.shape[2:]
    strides, pads, dilations = (sizes(n, len(kernel)) for n in (stride, padding, dilation))
    kind = taps.transposed if is_transposed else taps.window
    channels = weight.shape[1] * groups if is_transposed else weight.shape[0]
    geometry = zip(kernel, strides, pads, dilations, strict=True)
    field = tapped(mix_channels(x, groups, channels), [kind(*each) for each in geometry], out[0])
    made = [reduce(w, range(len(w.shape))) for w in (weight, bias) if w and any(w.axes)]
    if made:  # weights that are made from the image are seen by every unit
        field = hull(out[0], [field, *(reshape(w, (1,)) for w in made)])
    return Outcome((field,), map_window(kernel, strides, pads, dilations))


def pool(
    rank: int,
    out: Shapes,
    x: Field,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    dilation: Ints = (1,),
) -> Outcome:
    """Take the mean or maximum of each window; one that is the whole map reads no more than it."""
    kernels, pads, dilations = (sizes(n, rank) for n in (kernel, padding, dilation))
    strides = sizes(stride, rank) if stride else kernels
    before, after = x.shape[-rank:], out[0][-rank:]
    reads = [taps.window(*each) for each in zip(kernels, strides, pads, dilations, strict=True)]
    fits = [
        m == 1 and n <= k - p and d == 1
        for n, m, k, p, d in zip(before, after, kernels, pads, dilations, strict=True)
    ]
    covers = all(fits) and max(before) > 1
    if covers:
        reads = [Taps(s, (tuple(range(n)),)) for n, s in zip(before, strides, strict=True)]
    window = map_window(kernels, strides, pads, dilations)
    return Outcome((tapped(x, reads, out[0]),) * len(out), window, covers=covers)


def average_pool(
    rank: int,
    out: Shapes,
    x: Field,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    *_: object,
) -> Outcome:
    """Take the mean of each window."""
    return pool(rank, out, x, kernel, stride, padding)


def max_pool(rank: int, out: Shapes, x: Field, *args: Any) -> Outcome:
    """Take the maximum of each window."""
    return pool(rank, out, x, *args[:4])


def adaptive_pool(rank: int, out: Shapes, x: Field, *_: object) -> Outcome:
    """Pool into as many bins as the output has; one bin is global pooling."""
    field, first = x, len(x.shape) - rank
    for dim in range(first, len(x.shape)):
        size, wanted = x.shape[dim], out[0][dim]
        if wanted == 1:
            field = reduce(field, [dim])
        elif wanted != size:
            field = apply_taps(field, dim, taps.adaptive(size, wanted), wanted)
    return Outcome((field,) * len(out), adaptive_window(x.shape[first:], out[0][first:]))


def adaptive_window(before: Ints, after: Ints) -> Window:
    """Return the largest bin of adaptive pooling, as the table shows it."""
    bins = [-(-n // m) for n, m in zip(before, after, strict=True)]
    steps = [max(n // m, 1) for n, m in zip(before, after, strict=True)]
    return map_window(bins, steps, [0] * len(bins), [1] * len(bins))


def resampling(rank: int, reads: Callable[[Fraction, bool], Taps]) -> Rule:
    """Return the rule of interpolation by these taps, called with scale and `align_corners`."""

    def rule(out: Shapes, x: Field, size: object, *rest: Any) -> Outcome:
        corners = rest[:1] == (True,)
        given = [scale for scale in rest if not isinstance(scale, bool)]
        scales = [*given, *[None] * (rank - len(given))]
        field, first = x, len(x.shape) - rank
        for dim, factor in zip(range(first, len(x.shape)), scales, strict=True):
            before, after = x.shape[dim], out[0][dim]
            if corners:
                scale = Fraction(before - 1, after - 1) if after > 1 else Fraction(0)
            elif factor is None:
                scale = Fraction(before, after)
            else:
                scale = 1 / Fraction(factor).limit_denominator(1 << 16)
            field = apply_taps(field, dim, reads(scale, corners), after)
        return Outcome((field,))

    return rule


def interpolation(radius: int) -> Callable[[Fraction, bool], Taps]:
    """Return the taps of interpolation between so many units on each side."""
    return lambda scale, corners: taps.interpolated(scale, radius, align_corners=corners)


def smoothing(radius: int) -> Callable[[Fraction, bool], Taps]:
    """Return the taps of interpolation by a filter that is widened where it shrinks a map."""

    def reads(scale: Fraction, corners: bool) -> Taps:  # noqa: FBT001
        if corners:
            raise UnsupportedError("with antialias and align_corners")
        return taps.antialiased(scale, radius)

    return reads


def padding(out: Shapes, x: Field, pads: Ints, *_: object) -> Outcome:
    """Put positions around the map: whatever they hold, they count as outside of the image."""
    rank = len(x.shape)
    sides = [(0, 0)] * rank
    for i, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        sides[rank - 1 - i] = before, after
    start = tuple(-before for before, _ in sides)
    field = Strided(out[0], start, tuple((d, 1) for d in range(rank))).of(x)
    vertical, horizontal = sides[-2:] if rank > 1 else ((0, 0), sides[-1])
    return Outcome((field,), Window(padding=(vertical, horizontal)))


def product(out: Shapes, *factors: Field, **_: object) -> Outcome:
    """Multiply matrices in the last two dimensions, or a matrix with a vector; add the first."""
    *added, left, right = factors[-3:]
    if len(right.shape) == 1:
        left, right = reduce(left, [-1], keep=False), reduce(right, [-1])
    else:
        left, right = reduce(left, [-1]), reduce(right, [-2])
    return Outcome((hull(out[0], [*added, left, right]),))


def linear(out: Shapes, x: Field, *weights: Field | None) -> Outcome:
    """Mix the last dimension."""
    made = [reduce(w, range(len(w.shape))) for w in weights if w and any(w.axes)]
    return Outcome((hull(out[0], [reduce(x, [-1]), *(reshape(w, (1,)) for w in made)]),))


def reduction(out: Shapes, x: Field, dim: int | Ints | None = None, *_: object) -> Outcome:
    """Reduce over `dim`, or over everything: mean, sum, maximum and their like."""
    everything = dim is None or dim == []
    over = range(len(x.shape)) if everything else sizes(dim, 1)  # type: ignore[arg-type]
    reduced = reduce(x, over)
    return Outcome(tuple(reshape(reduced, shape) for shape in out))


def whole_dimension(out: Shapes, x: Field, dim: int, *_: object) -> Outcome:
    """Mix all units of `dim` into each of them: softmax and its like."""
    return Outcome((hull(out[0], [reduce(x, [dim])]),) * len(out))


def largest(out: Shapes, x: Field, count: int, dim: int = -1, *_: object) -> Outcome:
    """Choose units of `dim`, each from all of them."""
    return whole_dimension(out, x, dim)


def gated_halves(out: Shapes, x: Field, dim: int = -1) -> Outcome:
    """Multiply one half of `dim` by a function of the other."""
    halves = views(lambda tensor: tensor.chunk(2, dim), x.shape)
    return Outcome((hull(out[0], [half.of(x) for half in halves]),))


def reshaping(out: Shapes, x: Field, *_: object) -> Outcome:
    """Keep the elements in their order."""
    return Outcome((reshape(x, out[0]),))


def restrided(out: Shapes, x: Field, *_: object) -> Outcome:
    """Give dimensions of one unit other strides, as pooling does to keep a memory layout."""
    if out[0] != x.shape:
        raise UnsupportedError("with strides of its own")
    return Outcome((x,))


def joining(out: Shapes, parts: Sequence[Field], dim: int = 0) -> Outcome:
    """Put tensors side by side; torch passes over empty ones of one dimension."""
    parts = [part for part in parts if part.shape != (0,)]
    return Outcome((concatenate(parts, dim % len(out[0])),))


def stacking(out: Shapes, parts: Sequence[Field], dim: int = 0) -> Outcome:
    """Put tensors side by side along a new dimension."""
    dim %= len(out[0])
    single = (*out[0][:dim], 1, *out[0][dim + 1 :])
    return Outcome((concatenate([reshape(part, single) for part in parts], dim),))


def pixel_shuffle(out: Shapes, x: Field, factor: int) -> Outcome:
    """Spread r² channels over an r × r patch."""
    *batch, channels, rows, columns = x.shape
    first = len(batch)
    split = reshape(x, (*batch, channels // factor**2, factor, factor, rows, columns))
    order = [*range(first), *(first + i for i in (0, 3, 1, 4, 2))]
    return Outcome((reshape(permute(split, order), out[0]),))


def pixel_unshuffle(out: Shapes, x: Field, factor: int) -> Outcome:
    """Gather each r × r patch into r² channels."""
    *batch, channels, rows, columns = x.shape
    first = len(batch)
    shape = (*batch, channels, factor, factor, rows // factor, columns // factor)
    kept = [(d, 1) for d in range(first + 1)]
    inside = [(first + 1, 1), (first + 2, 1)]
    between = [(first + 1, factor), (first + 2, factor)]
    field = Strided(shape, (0,) * len(x.shape), (*kept, *inside, *between)).of(x)
    return Outcome((reshape(field, out[0]),), Window((factor, factor), (factor, factor)))


def unfolding(
    out: Shapes, x: Field, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Outcome:
    """Make each window of a map a column."""
    *batch, channels, _, _ = x.shape
    counts = windows_in(x.shape[-2:], kernel, dilation, padding, stride)
    first = len(batch) + 1
    inside = [(first + i, dilation[i]) for i in (0, 1)]
    between = [(first + i, stride[i]) for i in (0, 1)]
    start = (*[0] * first, -padding[0], -padding[1])
    walks = (*((d, 1) for d in range(first)), *inside, *between)
    field = Strided((*batch, channels, *kernel, *counts), start, walks).of(x)
    return Outcome((reshape(field, out[0]),))


def folding(
    out: Shapes,
    x: Field,
    output_size: Ints,
    kernel: Ints,
    dilation: Ints,
    padding: Ints,
    stride: Ints,
) -> Outcome:
    """Add each column's units up at the places of its window: the reverse of unfolding."""
    *batch, channels, rows, columns = out[0]
    counts = windows_in((rows, columns), kernel, dilation, padding, stride)
    first = len(batch) + 1
    split = reshape(x, (*batch, channels, *kernel, *counts))
    kept = [*((d, 1) for d in range(first)), (first + 2, 1), (first + 3, 1)]
    pieces = []
    for y in range(kernel[0]):
        for z in range(kernel[1]):
            start = (*[0] * first, y, z, 0, 0)
            part = Strided((*batch, channels, *counts), start, tuple(kept)).of(split)
            places = padding[0] - y * dilation[0], padding[1] - z * dilation[1]
            reads = [taps.transposed(1, s, p, 1) for s, p in zip(stride, places, strict=True)]
            pieces.append(tapped(part, reads, out[0]))
    return Outcome((hull(out[0], pieces),))


def max_unpool(
    rank: int,
    out: Shapes,
    x: Field,
    indices: Field,
    kernel_size: int | Ints,
    stride: int | Ints | None = None,
    padding: int | Ints = 0,
    output_size: object = None,
) -> Outcome:
    """Put each unit at one place of its window, which only the image decides."""
    kernel, pads = sizes(kernel_size, rank), sizes(padding, rank)
    strides = kernel if not stride else sizes(stride, rank)
    reads = [taps.transposed(k, s, p, 1) for k, s, p in zip(kernel, strides, pads, strict=True)]
    return Outcome((tapped(hull(x.shape, [x, indices]), reads, out[0]),))


def windows_in(size: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> list[int]:
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


def tapped(field: Field, reads: Sequence[Taps], shape: Ints) -> Field:
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


def sizes(size: int | Ints, rank: int) -> list[int]:
    """Return one number for each dimension of a map."""
    if isinstance(size, int):
        return [size] * rank
    return list(size) * rank if len(size) == 1 else list(size)


def _each_rank(name: str, rule: Rule, *ranks: int) -> dict[str, Rule]:
    return {name.format(rank): partial(rule, rank) for rank in ranks}


NORMALIZATIONS: dict[str, Rule] = {
    "native_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "_fused_rms_norm": layer_norm,
}
RESAMPLINGS: dict[str, Rule] = {
    f"{name}{rank}d{suffix}": resampling(rank, reads)
    for name, ranks, suffix, reads in (
        ("upsample_nearest", (1, 2, 3), "", lambda scale, _: taps.nearest(scale, exact=False)),
        ("_upsample_nearest_exact", (1, 2, 3), "", lambda s, _: taps.nearest(s, exact=True)),
        ("upsample_linear", (1,), "", interpolation(1)),
        ("upsample_bilinear", (2,), "", interpolation(1)),
        ("upsample_trilinear", (3,), "", interpolation(1)),
        ("upsample_bicubic", (2,), "", interpolation(2)),
        ("_upsample_bilinear", (2,), "_aa", smoothing(1)),
        ("_upsample_bicubic", (2,), "_aa", smoothing(2)),
    )
    for rank in ranks
}
RULES: dict[Kind, dict[str, Rule]] = {
    Kind.POINTWISE: {
        **dict.fromkeys(("_prelu_kernel", "hardswish", "log_sigmoid_forward"), pointwise),
        **dict.fromkeys(
            ("rrelu_with_noise", "masked_fill", "_to_copy", "native_dropout"), pointwise
        ),
    },
    Kind.NORMALIZATION: NORMALIZATIONS,
    Kind.WINDOW: {
        "convolution": convolution,
        **_each_rank("max_pool{}d_with_indices", max_pool, 2, 3),
        **_each_rank("avg_pool{}d", average_pool, 1, 2, 3),
        **_each_rank("_adaptive_avg_pool{}d", adaptive_pool, 2, 3),
        **_each_rank("adaptive_max_pool{}d", adaptive_pool, 2, 3),
        **dict.fromkeys(("constant_pad_nd", "reflection_pad1d", "reflection_pad2d"), padding),
        **dict.fromkeys(("reflection_pad3d", "replication_pad1d"), padding),
        **dict.fromkeys(("replication_pad2d", "replication_pad3d"), padding),
        **RESAMPLINGS,
        "col2im": folding,
    },
    Kind.MIXING: {
        **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "mv"), product),
        **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), whole_dimension),
        **dict.fromkeys(("median", "nanmedian"), reduction),
        "topk": largest,
    },
    Kind.MOVE: {
        "cat": joining,
        "stack": stacking,
        "glu": gated_halves,
        "im2col": unfolding,
        "pixel_shuffle": pixel_shuffle,
        "pixel_unshuffle": pixel_unshuffle,
        **dict.fromkeys(("_unsafe_view", "view", "_reshape_alias"), reshaping),
        "as_strided": restrided,
        "copy": copied,
        "fill": copied,
        "zero": cleared,
    },
}
"""The rules by kind and name; an operation in place has the name of the other."""
FUNCTIONS: dict[str, tuple[Kind, Rule]] = {
    "linear": (Kind.MIXING, linear),
    "matmul": (Kind.MIXING, product),
    "rms_norm": (Kind.NORMALIZATION, layer_norm),
    "pad": (Kind.WINDOW, padding),
    **{f"max_unpool{rank}d": (Kind.WINDOW, partial(max_unpool, rank)) for rank in (1, 2, 3)},
}
"""Rules of whole functions. The operations of these do not tell how they are meant: products
flatten a map, RMS is a mean of squares, wrapping pads copy, and unpooling has no windows any more.
"""
