"""How the fields of an operation's outputs follow from those of its inputs, where it takes a rule.

To add an operation, add a function and its line in `RULES`. A rule is called with the first
output's shape, then with the operation's own arguments, tensors as Fields. Element-wise operations
and reductions need no rule where PyTorch tags them as such, nor do views.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.calls import leaves
from cifar_cnn.analysis.field import Family, Field, hull, nothing
from cifar_cnn.analysis.layout import reduce, reshape
from cifar_cnn.analysis.moves import concatenate, locate_views
from cifar_cnn.analysis.steps import Kind, Outcome, Rule, UnsupportedError, Window
from cifar_cnn.analysis.windows import (
    Ints,
    Shape,
    adaptive_pool,
    average_pool,
    convolution,
    folding,
    interpolation,
    max_unpool,
    padding,
    pool,
    resampling,
    seen_by_all,
    sizes,
    smoothing,
    unfolding,
)


def pointwise(out: Shape, *args: Any, **kwargs: Any) -> Field:
    """Work element by element on tensors that are broadcast to the output's shape."""
    return hull(out, [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Field)])


def anything(_: Shape, *args: Any, **kwargs: Any) -> Field:
    """Give every output the joint field of all inputs."""
    fields = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Field)]
    return hull((), [reduce(field, range(len(field.shape)), keep=False) for field in fields])


def copied(out: Shape, _: Field, source: object = None, *__: object, **___: object) -> Field:
    """Write the second tensor, or a number, over the first."""
    return hull(out, [source]) if isinstance(source, Field) else nothing(out)


def normalization(out: Shape, x: Field, *weights: Any, spans: bool = False) -> Outcome:
    """Normalize; by convention statistics do not count, and each element reads itself."""
    seen = seen_by_all(*(weight for weight in weights if isinstance(weight, Field)))
    return Outcome((hull(out, [x, *seen]), nothing(()), nothing(())), spans=spans)


def batch_norm(out: Shape, x: Field, weight: Any, bias: Any, *rest: Any) -> Outcome:
    """Normalize by the statistics of the batch, if `training`, or by stored ones."""
    return normalization(out, x, weight, bias, spans=bool(rest[2]))


def layer_norm(out: Shape, x: Field, shape: Ints, *weights: Any) -> Outcome:
    """Normalize over the last dimensions."""
    return normalization(out, x, *weights, spans=len(shape) > 1)


def group_norm(out: Shape, x: Field, *weights: Any) -> Outcome:
    """Normalize over the map."""
    return normalization(out, x, *weights, spans=True)


def product(out: Shape, *factors: Field, **_: object) -> Field:
    """Multiply matrices in the last two dimensions, or a matrix with a vector; add the first."""
    *added, left, right = factors[-3:]
    if len(right.shape) == 1:
        left, right = reduce(left, [-1], keep=False), reduce(right, [-1])
    else:
        left, right = reduce(left, [-1]), reduce(right, [-2])
    return hull(out, [*added, left, right])


def linear(out: Shape, x: Field, *weights: Field | None) -> Field:
    """Mix the last dimension."""
    return hull(out, [reduce(x, [-1]), *seen_by_all(*weights)])


def reduction(out: Shape, x: Field, dim: int | Ints | None = None, *_: object) -> Field:
    """Reduce over `dim`, or over everything: mean, sum, maximum and their like."""
    everything = dim is None or dim == []
    over = range(len(x.shape)) if everything else sizes(dim, 1)  # type: ignore[arg-type]
    return reshape(reduce(x, over), out)


def whole_dimension(out: Shape, x: Field, dim: int, *_: object, **__: object) -> Field:
    """Mix all units of `dim` into each of them: softmax and its like."""
    return hull(out, [reduce(x, [dim])])


def cumulative(out: Shape, x: Field, dim: int, *_: object, **__: object) -> Field:
    """Read each unit of `dim` and all before it."""

    def read(family: Family) -> Family:
        family = family.unroll(x.shape) if family.dim == dim % len(out) else family
        low, high = np.minimum.accumulate(family.low, dim), np.maximum.accumulate(family.high, dim)
        return replace(family, low=low, high=high)

    return x.change(out, read)


def largest(out: Shape, x: Field, count: int, dim: int = -1, *_: object) -> Field:
    """Choose units of `dim`, each from all of them."""
    return whole_dimension(out, x, dim)


def gated_halves(out: Shape, x: Field, dim: int = -1) -> Field:
    """Multiply one half of `dim` by a function of the other."""
    halves = locate_views(lambda tensor: tensor.chunk(2, dim), x.shape)
    return hull(out, [half.read(x) for half in halves])


def reshaping(out: Shape, x: Field, *_: object) -> Field:
    """Keep the elements in their order."""
    return reshape(x, out)


def restrided(out: Shape, x: Field, *_: object) -> Field:
    """Give dimensions of one unit other strides, as pooling does to keep a memory layout."""
    if out != x.shape:
        raise UnsupportedError("with strides of its own")
    return x


def joining(out: Shape, parts: Sequence[Field], dim: int = 0) -> Field:
    """Put tensors side by side; torch passes over empty ones of one dimension."""
    return concatenate([part for part in parts if part.shape != (0,)], dim % len(out))


def stacking(out: Shape, parts: Sequence[Field], dim: int = 0) -> Field:
    """Put tensors side by side along a new dimension."""
    dim %= len(out)
    single = (*out[:dim], 1, *out[dim + 1 :])
    return concatenate([reshape(part, single) for part in parts], dim)


def pixel_shuffle(out: Shape, x: Field, factor: int) -> Field:
    """Spread r² channels over an r × r patch."""
    patch = [factor, factor]
    return folding(out, x, out[-2:], patch, [1, 1], [0, 0], patch)


def pixel_unshuffle(out: Shape, x: Field, factor: int) -> Outcome:
    """Gather each r × r patch into r² channels."""
    patch = [factor, factor]
    field = unfolding(out, x, patch, [1, 1], [0, 0], patch)
    return Outcome((field,), Window((factor, factor), (factor, factor)))


def _each(kind: Kind, rule: Rule, names: str) -> dict[str, tuple[Kind, Rule]]:
    return dict.fromkeys(names.split(), (kind, rule))


NEAREST = resampling(lambda scale, _: taps.nearest(scale, exact=False))
NEAREST_EXACT = resampling(lambda scale, _: taps.nearest(scale, exact=True))
RESAMPLINGS = {
    **_each(Kind.WINDOW, NEAREST, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    **_each(Kind.WINDOW, NEAREST_EXACT, "_upsample_nearest_exact1d _upsample_nearest_exact2d"),
    **_each(Kind.WINDOW, NEAREST_EXACT, "_upsample_nearest_exact3d"),
    **_each(Kind.WINDOW, interpolation(1), "upsample_linear1d upsample_bilinear2d"),
    **_each(Kind.WINDOW, interpolation(1), "upsample_trilinear3d"),
    **_each(Kind.WINDOW, interpolation(2), "upsample_bicubic2d"),
    **_each(Kind.WINDOW, smoothing(1), "_upsample_bilinear2d_aa"),
    **_each(Kind.WINDOW, smoothing(2), "_upsample_bicubic2d_aa"),
}
RULES = {
    **_each(Kind.POINTWISE, pointwise, "_prelu_kernel hardswish log_sigmoid_forward masked_fill"),
    **_each(Kind.POINTWISE, pointwise, "rrelu_with_noise _to_copy native_dropout"),
    **_each(Kind.NORMALIZATION, batch_norm, "native_batch_norm"),
    **_each(Kind.NORMALIZATION, layer_norm, "native_layer_norm _fused_rms_norm"),
    **_each(Kind.NORMALIZATION, group_norm, "native_group_norm"),
    **_each(Kind.WINDOW, convolution, "convolution _convolution"),
    **_each(Kind.WINDOW, pool, "max_pool2d_with_indices max_pool3d_with_indices"),
    **_each(Kind.WINDOW, average_pool, "avg_pool1d avg_pool2d avg_pool3d"),
    **_each(Kind.WINDOW, adaptive_pool, "_adaptive_avg_pool2d _adaptive_avg_pool3d"),
    **_each(Kind.WINDOW, adaptive_pool, "adaptive_max_pool2d adaptive_max_pool3d"),
    **_each(Kind.WINDOW, padding, "constant_pad_nd reflection_pad1d reflection_pad2d"),
    **_each(Kind.WINDOW, padding, "reflection_pad3d replication_pad1d replication_pad2d"),
    **_each(Kind.WINDOW, padding, "replication_pad3d"),
    **RESAMPLINGS,
    **_each(Kind.WINDOW, folding, "col2im"),
    **_each(Kind.MIXING, product, "mm bmm addmm baddbmm mv"),
    **_each(Kind.MIXING, whole_dimension, "_softmax _log_softmax _safe_softmax"),
    **_each(Kind.MIXING, reduction, "median nanmedian"),
    **_each(Kind.MIXING, largest, "topk"),
    **_each(Kind.MIXING, cumulative, "cumsum cumprod logcumsumexp"),
    **_each(Kind.MIXING, anything, "grid_sampler_2d grid_sampler_3d"),
    **_each(Kind.MOVE, joining, "cat"),
    **_each(Kind.MOVE, stacking, "stack"),
    **_each(Kind.MOVE, gated_halves, "glu"),
    **_each(Kind.MOVE, unfolding, "im2col"),
    **_each(Kind.MOVE, pixel_shuffle, "pixel_shuffle"),
    **_each(Kind.MOVE, pixel_unshuffle, "pixel_unshuffle"),
    **_each(Kind.MOVE, reshaping, "_unsafe_view view _reshape_alias"),
    **_each(Kind.MOVE, restrided, "as_strided"),
    **_each(Kind.MOVE, copied, "copy fill zero"),
}
"""The rules by name; an operation in place has the name of the other."""
FUNCTIONS = {
    **_each(Kind.MIXING, linear, "linear"),
    **_each(Kind.MIXING, product, "matmul"),
    **_each(Kind.NORMALIZATION, layer_norm, "rms_norm"),
    **_each(Kind.WINDOW, padding, "pad"),
    **_each(Kind.WINDOW, max_unpool, "max_unpool1d max_unpool2d max_unpool3d"),
}
"""Rules of whole functions. The operations of these do not tell how they are meant: products
flatten a map, RMS is a mean of squares, wrapping pads copy, and unpooling has no windows any more.
"""
