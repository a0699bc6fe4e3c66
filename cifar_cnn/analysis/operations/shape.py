"""Operations that move elements about: reshaping, permuting, joining."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, apply_taps, hull
from cifar_cnn.analysis.field_layout import concatenate, permute, reshape, select
from cifar_cnn.analysis.operations.elementwise import through
from cifar_cnn.analysis.operations.entry import (
    Entry,
    Kind,
    Outcome,
    Rule,
    Shapes,
    UnsupportedError,
)
from cifar_cnn.analysis.operations.indexing import narrow

RESHAPING = """
    reshape flatten unflatten squeeze unsqueeze ravel view_as reshape_as atleast_3d
"""


def reshaping(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Keep the elements in their order: view, reshape, flatten, squeeze and their like."""
    return Outcome((reshape(field, out[0]),))


def relaid(_: Callable[..., Any], x: Tensor, *shape: Any) -> Tensor:
    """Reshape: repeated channels are not laid out as the network's own are."""
    return x.reshape(*shape)


def permutation(_: Shapes, field: Field, *dims: Any, **named: Any) -> Outcome:
    """Put the dimensions into another order."""
    given = dims[0] if dims else named["dims"]
    return Outcome((permute(field, dims if isinstance(given, int) else given),))


def transposition(_: Shapes, field: Field, dim0: int = -2, dim1: int = -1) -> Outcome:
    """Exchange two dimensions."""
    order = list(range(len(field.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return Outcome((permute(field, order),))


def reversal(_: Shapes, field: Field) -> Outcome:
    """Put the dimensions into the reverse order."""
    return Outcome((permute(field, range(len(field.shape))[::-1]),))


def move_dim(_: Shapes, field: Field, source: Any, destination: Any) -> Outcome:
    """Move one dimension to another place."""
    if not isinstance(source, int) or not isinstance(destination, int):
        raise UnsupportedError("several dimensions at once")
    rank = len(field.shape)
    order = [d for d in range(rank) if d != source % rank]
    order.insert(destination % rank, source % rank)
    return Outcome((permute(field, order),))


def repetition(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Tile the tensor."""
    extra = len(out[0]) - len(field.shape)
    result = reshape(field, (1,) * extra + field.shape)
    for dim, size in enumerate(out[0]):
        if size != result.shape[dim]:
            result = select(result, dim, np.arange(size) % result.shape[dim])
    return Outcome((result,))


def repeat_interleave(
    out: Shapes, field: Field, repeats: Any, dim: int | None = None, **_: object
) -> Outcome:
    """Write each unit of `dim` several times in a row."""
    if not isinstance(repeats, int) or dim is None:
        raise UnsupportedError("without a dim and one number of repeats")
    dim %= len(field.shape)
    return Outcome((apply_taps(field, dim, taps.repeated(repeats), out[0][dim]),))


def parts(out: Shapes, field: Field, _: object = None, dim: int = 0, **__: object) -> Outcome:
    """Cut `dim` into the outputs: chunk, split and their like."""
    dim %= len(field.shape)
    starts = np.cumsum([0, *(shape[dim] for shape in out)])
    pieces = [
        narrow(field, dim, int(start), shape[dim])
        for start, shape in zip(starts, out, strict=False)
    ]
    return Outcome(tuple(pieces))


def unbinding(out: Shapes, field: Field, dim: int = 0) -> Outcome:
    """Cut `dim` into single units."""
    dim %= len(field.shape)
    pieces = [reshape(narrow(field, dim, i, 1), shape) for i, shape in enumerate(out)]
    return Outcome(tuple(pieces))


def side_by_side(_: Shapes, tensors: Sequence[Field]) -> Outcome:
    """Put tensors side by side along their columns, or vectors along their only dimension."""
    return Outcome((concatenate(tensors, min(1, len(tensors[0].shape) - 1)),))


def joining(_: Shapes, tensors: Sequence[Field], dim: int = 0, **named: int) -> Outcome:
    """Put tensors side by side."""
    dim = named.get("axis", dim) % max(len(field.shape) for field in tensors)
    return Outcome((concatenate(tensors, dim),))


def stacking(out: Shapes, tensors: Sequence[Field], dim: int = 0) -> Outcome:
    """Put tensors side by side along a new dimension."""
    dim %= len(out[0])
    single = (*out[0][:dim], 1, *out[0][dim + 1 :])
    return Outcome((concatenate([reshape(field, single) for field in tensors], dim),))


def channel_shuffle(out: Shapes, field: Field, groups: int) -> Outcome:
    """Deal the channels of each group out in turn."""
    batch, channels, *rest = field.shape
    grouped = reshape(field, (batch, groups, channels // groups, *rest))
    order = [0, 2, 1, *range(3, len(rest) + 3)]
    return Outcome((reshape(permute(grouped, order), out[0]),))


def gated_halves(out: Shapes, field: Field, dim: int = -1) -> Outcome:
    """Multiply one half of `dim` by a function of the other."""
    dim %= len(field.shape)
    half = out[0][dim]
    halves = [narrow(field, dim, 0, half), narrow(field, dim, half, half)]
    return Outcome((hull(out[0], halves),))


def added_halves(_: Callable[..., Any], x: Tensor, dim: int = -1) -> Tensor:
    """Add both halves."""
    first, second = x.chunk(2, dim)
    return first + second


VIEWS: dict[str, Rule] = {
    **dict.fromkeys(RESHAPING.split(), reshaping),
    "permute": permutation,
    **dict.fromkeys(("transpose", "adjoint"), transposition),
    "t": reversal,
    "movedim": move_dim,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), through),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), parts),
    "unbind": unbinding,
}
COPIES: dict[str, Rule] = {
    **dict.fromkeys(("repeat", "tile"), repetition),
    "repeat_interleave": repeat_interleave,
    "hstack": side_by_side,
    "cat": joining,
    "stack": stacking,
    "channel_shuffle": channel_shuffle,
}
ENTRIES: dict[str, Entry] = {
    **{op: Entry(Kind.SHAPE, rule, shares=True) for op, rule in VIEWS.items()},
    **{op: Entry(Kind.SHAPE, rule) for op, rule in COPIES.items()},
    "view": Entry(Kind.SHAPE, reshaping, relaid, shares=True),
    "glu": Entry(Kind.SHAPE, gated_halves, added_halves),
}
