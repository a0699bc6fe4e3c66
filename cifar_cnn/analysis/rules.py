"""How the fields of an operation's outputs follow from those of its inputs, where it takes a rule.

To add an operation, add a function with its name: `@rule(Kind.MIXING, "topk")`. A rule is called
with the first output's shape, then with the operation's own arguments, tensors as Fields.
Element-wise operations and reductions need no rule where PyTorch tags them, nor do views.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cifar_cnn.analysis.calls import leaves
from cifar_cnn.analysis.field import Family, Field, hull
from cifar_cnn.analysis.layout import concatenate, reduce, reshape
from cifar_cnn.analysis.moves import read_views
from cifar_cnn.analysis.steps import Kind, Outcome, UnsupportedError, Window, rule
from cifar_cnn.analysis.windows import Ints, Shape, folding, seen_by_all, sizes, unfolding


@rule(Kind.POINTWISE, "_prelu_kernel hardswish log_sigmoid_forward masked_fill rrelu_with_noise")
@rule(Kind.POINTWISE, "_to_copy native_dropout")
def pointwise(out: Shape, *args: object, **kwargs: object) -> Field:
    """Work element by element on tensors that are broadcast to the output's shape."""
    return hull(out, [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Field)])


@rule(Kind.MIXING, "grid_sampler_2d grid_sampler_3d")
def anything(_: Shape, *args: object, **kwargs: object) -> Field:
    """Give every output the joint field of all inputs."""
    return hull((), seen_by_all(*leaves((args, kwargs))))


@rule(Kind.MOVE, "copy fill zero")
def copied(out: Shape, _: Field, source: object = None, *__: object, **___: object) -> Field:
    """Write the second tensor, or a number, over the first."""
    return hull(out, [source]) if isinstance(source, Field) else Field(out)


def normalization(out: Shape, x: Field, *weights: object, spans: bool = False) -> Outcome:
    """Normalize; by convention statistics do not count, and each element reads itself."""
    field = hull(out, [x, *seen_by_all(*weights)])
    return Outcome((field, Field(()), Field(())), spans=spans)


@rule(Kind.NORMALIZATION, "native_batch_norm")
def batch_norm(out: Shape, x: Field, weight: object, bias: object, *rest: object) -> Outcome:
    """Normalize by the statistics of the batch, if `training`, or by stored ones."""
    return normalization(out, x, weight, bias, spans=bool(rest[2]))


@rule(Kind.NORMALIZATION, "native_layer_norm _fused_rms_norm", "rms_norm")
def layer_norm(out: Shape, x: Field, shape: Ints, *weights: object) -> Outcome:
    """Normalize over the last dimensions."""
    return normalization(out, x, *weights, spans=len(shape) > 1)


@rule(Kind.NORMALIZATION, "native_group_norm")
def group_norm(out: Shape, x: Field, *weights: object) -> Outcome:
    """Normalize over the map."""
    return normalization(out, x, *weights, spans=True)


@rule(Kind.MIXING, "mm bmm addmm baddbmm mv", "matmul")
def product(out: Shape, *factors: Field, **_: object) -> Field:
    """Multiply matrices in the last two dimensions, or a matrix with a vector; add the first."""
    *added, left, right = factors[-3:]
    if len(right.shape) == 1:
        left, right = reduce(left, [-1], keep=False), reduce(right, [-1])
    else:
        left, right = reduce(left, [-1]), reduce(right, [-2])
    return hull(out, [*added, left, right])


@rule(Kind.MIXING, functions="linear")
def linear(out: Shape, x: Field, *weights: Field | None) -> Field:
    """Mix the last dimension."""
    return hull(out, [reduce(x, [-1]), *seen_by_all(*weights)])


@rule(Kind.MIXING, "median nanmedian")
def reduction(out: Shape, x: Field, dim: int | Ints | None = None, *_: object) -> Field:
    """Reduce over `dim`, or over everything: mean, sum, maximum and their like."""
    over = range(len(x.shape)) if dim is None or dim == [] else sizes(dim, 1)
    return reshape(reduce(x, over), out)


@rule(Kind.MIXING, "_softmax _log_softmax _safe_softmax")
def whole_dimension(out: Shape, x: Field, dim: int, *_: object, **__: object) -> Field:
    """Mix all units of `dim` into each of them: softmax and its like."""
    return hull(out, [reduce(x, [dim])])


@rule(Kind.MIXING, "topk")
def largest(out: Shape, x: Field, count: int, dim: int = -1, *_: object) -> Field:
    """Choose units of `dim`, each from all of them."""
    return whole_dimension(out, x, dim)


@rule(Kind.MIXING, "cumsum cumprod logcumsumexp")
def cumulative(out: Shape, x: Field, dim: int, *_: object, **__: object) -> Field:
    """Read each unit of `dim` and all before it."""

    def read(family: Family) -> Family:
        family = family.unroll(x.shape) if family.dim == dim % len(out) else family
        low, high = np.minimum.accumulate(family.low, dim), np.maximum.accumulate(family.high, dim)
        return replace(family, low=low, high=high)

    return x.change(out, read)


@rule(Kind.MOVE, "glu")
def gated_halves(out: Shape, x: Field, dim: int = -1) -> Field:
    """Multiply one half of `dim` by a function of the other."""
    return hull(out, read_views(lambda tensor: tensor.chunk(2, dim), x))


@rule(Kind.MOVE, "_unsafe_view view _reshape_alias")
def reshaping(out: Shape, x: Field, *_: object) -> Field:
    """Keep the elements in their order."""
    return reshape(x, out)


@rule(Kind.MOVE, "as_strided")
def restrided(out: Shape, x: Field, *_: object) -> Field:
    """Give dimensions of one unit other strides, as pooling does to keep a memory layout."""
    if out != x.shape:
        raise UnsupportedError("with strides of its own")
    return x


@rule(Kind.MOVE, "cat")
def joining(out: Shape, parts: Sequence[Field], dim: int = 0) -> Field:
    """Put tensors side by side; torch passes over empty ones of one dimension."""
    return concatenate([part for part in parts if part.shape != (0,)], dim % len(out))


@rule(Kind.MOVE, "stack")
def stacking(out: Shape, parts: Sequence[Field], dim: int = 0) -> Field:
    """Put tensors side by side along a new dimension."""
    dim %= len(out)
    single = (*out[:dim], 1, *out[dim + 1 :])
    return concatenate([reshape(part, single) for part in parts], dim)


@rule(Kind.MOVE, "pixel_shuffle")
def pixel_shuffle(out: Shape, x: Field, factor: int) -> Field:
    """Spread r² channels over an r × r patch."""
    patch = [factor, factor]
    return folding(out, x, out[-2:], patch, [1, 1], [0, 0], patch)


@rule(Kind.MOVE, "pixel_unshuffle")
def pixel_unshuffle(out: Shape, x: Field, factor: int) -> Outcome:
    """Gather each r × r patch into r² channels."""
    patch = [factor, factor]
    field = unfolding(out, x, patch, [1, 1], [0, 0], patch)
    return Outcome((field,), Window((factor, factor), (factor, factor)))
