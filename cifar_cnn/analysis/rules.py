"""How the fields of an operation's outputs follow from those of its inputs, where it takes a rule.

To add an operation, add a function and its line in `RULES`. A rule is called with the outputs'
shapes, then with the operation's own arguments, tensors as Fields. Element-wise operations and
reductions need no rule where PyTorch tags them as such, nor do views.
"""

from collections.abc import Sequence
from typing import Any

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, hull, nothing
from cifar_cnn.analysis.layout import concatenate, reduce, reshape
from cifar_cnn.analysis.moves import Strided, permute, views
from cifar_cnn.analysis.outcome import (
    Ints,
    Kind,
    Outcome,
    Rule,
    Shapes,
    UnsupportedError,
    Window,
    sizes,
)
from cifar_cnn.analysis.windows import (
    adaptive_pool,
    average_pool,
    convolution,
    folding,
    interpolation,
    max_unpool,
    padding,
    pool,
    resampling,
    smoothing,
    unfolding,
)


def pointwise(out: Shapes, *args: Any, **kwargs: Any) -> Outcome:
    """Work element by element on tensors that are broadcast to the output's shape."""
    listed = [leaf for arg in args for leaf in (arg if isinstance(arg, list) else [arg])]
    fields = [leaf for leaf in (*listed, *kwargs.values()) if isinstance(leaf, Field)]
    return Outcome(tuple(hull(shape, fields) for shape in out))


def copied(out: Shapes, _: Field, source: object = None, *__: object, **___: object) -> Outcome:
    """Write the second tensor, or a number, over the first."""
    field = hull(out[0], [source]) if isinstance(source, Field) else nothing(out[0])
    return Outcome((field,))


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


def _each(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


NORMALIZATIONS: dict[str, Rule] = {
    "native_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "_fused_rms_norm": layer_norm,
}
NEAREST = resampling(lambda scale, _: taps.nearest(scale, exact=False))
NEAREST_EXACT = resampling(lambda scale, _: taps.nearest(scale, exact=True))
RESAMPLINGS: dict[str, Rule] = {
    **_each(NEAREST, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    **_each(NEAREST_EXACT, "_upsample_nearest_exact1d _upsample_nearest_exact2d"),
    **_each(NEAREST_EXACT, "_upsample_nearest_exact3d"),
    **_each(interpolation(1), "upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
    "upsample_bicubic2d": interpolation(2),
    "_upsample_bilinear2d_aa": smoothing(1),
    "_upsample_bicubic2d_aa": smoothing(2),
}
RULES: dict[Kind, dict[str, Rule]] = {
    Kind.POINTWISE: _each(
        pointwise,
        "_prelu_kernel hardswish log_sigmoid_forward rrelu_with_noise masked_fill _to_copy "
        "native_dropout",
    ),
    Kind.NORMALIZATION: NORMALIZATIONS,
    Kind.WINDOW: {
        **_each(convolution, "convolution _convolution"),
        **_each(pool, "max_pool2d_with_indices max_pool3d_with_indices"),
        **_each(average_pool, "avg_pool1d avg_pool2d avg_pool3d"),
        **_each(adaptive_pool, "_adaptive_avg_pool2d _adaptive_avg_pool3d"),
        **_each(adaptive_pool, "adaptive_max_pool2d adaptive_max_pool3d"),
        **_each(padding, "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d"),
        **_each(padding, "replication_pad1d replication_pad2d replication_pad3d"),
        **RESAMPLINGS,
        "col2im": folding,
    },
    Kind.MIXING: {
        **_each(product, "mm bmm addmm baddbmm mv"),
        **_each(whole_dimension, "_softmax _log_softmax _safe_softmax"),
        **_each(reduction, "median nanmedian"),
        "topk": largest,
    },
    Kind.MOVE: {
        "cat": joining,
        "stack": stacking,
        "glu": gated_halves,
        "im2col": unfolding,
        "pixel_shuffle": pixel_shuffle,
        "pixel_unshuffle": pixel_unshuffle,
        **_each(reshaping, "_unsafe_view view _reshape_alias"),
        "as_strided": restrided,
        **_each(copied, "copy fill zero"),
    },
}
"""The rules by kind and name; an operation in place has the name of the other."""
FUNCTIONS: dict[str, tuple[Kind, Rule]] = {
    "linear": (Kind.MIXING, linear),
    "matmul": (Kind.MIXING, product),
    "rms_norm": (Kind.NORMALIZATION, layer_norm),
    "pad": (Kind.WINDOW, padding),
    **{f"max_unpool{rank}d": (Kind.WINDOW, max_unpool) for rank in (1, 2, 3)},
}
"""Rules of whole functions. The operations of these do not tell how they are meant: products
flatten a map, RMS is a mean of squares, wrapping pads copy, and unpooling has no windows any more.
"""
