"""Operations that move elements about: reshaping, slicing, joining."""

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from torch import Tensor

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, apply_taps, hull
from cifar_cnn.analysis.field_layout import concatenate, permute, reshape, select
from cifar_cnn.analysis.operations.entry import Entry, Kind, Outcome, Rule, Shapes, UnsupportedError

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


def move_dim(_: Shapes, field: Field, source: Any, destination: Any) -> Outcome:
    """Move one dimension to another place."""
    if not isinstance(source, int) or not isinstance(destination, int):
        raise UnsupportedError("several dimensions at once")
    rank = len(field.shape)
    order = [d for d in range(rank) if d != source % rank]
    order.insert(destination % rank, source % rank)
    return Outcome((permute(field, order),))


def expansion(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Repeat dimensions of size 1."""
    return Outcome((hull(out[0], [field]),))


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


def narrowing(_: Shapes, field: Field, dim: int, start: int, length: int) -> Outcome:
    """Keep `length` units of `dim`."""
    dim %= len(field.shape)
    return Outcome((narrow(field, dim, start % field.shape[dim], length),))


def selection(out: Shapes, field: Field, dim: int, index: int) -> Outcome:
    """Keep one unit of `dim`."""
    dim %= len(field.shape)
    return Outcome((reshape(narrow(field, dim, index % field.shape[dim], 1), out[0]),))


def indexing(out: Shapes, field: Field, index: object) -> Outcome:
    """Index with integers, slices, None and an ellipsis."""
    items = index if isinstance(index, tuple) else (index,)
    used = sum(isinstance(item, int | slice) for item in items)
    dim, result = 0, field
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | slice | EllipsisType | None):
            raise UnsupportedError("with a tensor or list as index")
        if isinstance(item, EllipsisType):
            dim += len(field.shape) - used
        elif isinstance(item, slice):
            start, stop, step = item.indices(field.shape[dim])
            result = narrow(result, dim, start, len(range(start, stop, step)), step)
            dim += 1
        elif isinstance(item, int):
            result = narrow(result, dim, item % field.shape[dim], 1)
            dim += 1
    return Outcome((reshape(result, out[0]),))


def joining(_: Shapes, tensors: Sequence[Field], dim: int = 0, **named: int) -> Outcome:
    """Put tensors side by side."""
    dim = named.get("axis", dim) % max(len(field.shape) for field in tensors)
    return Outcome((concatenate(tensors, dim),))


def stacking(out: Shapes, tensors: Sequence[Field], dim: int = 0) -> Outcome:
    """Put tensors side by side along a new dimension."""
    dim %= len(out[0])
    single = (*out[0][:dim], 1, *out[0][dim + 1 :])
    return Outcome((concatenate([reshape(field, single) for field in tensors], dim),))


def roll(
    _: Shapes, field: Field, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
) -> Outcome:
    """Move units along, those beyond the end back to the start."""
    if dims is None:
        raise UnsupportedError("without dims")
    pairs = zip(_list(shifts), _list(dims), strict=True)
    for shift, dim in pairs:
        size = field.shape[dim]
        if shift % size:
            field = select(field, dim % len(field.shape), (np.arange(size) - shift) % size)
    return Outcome((field,))


def flip(_: Shapes, field: Field, *dims: Any, **named: Any) -> Outcome:
    """Turn the order of units around."""
    given = dims[0] if dims else named["dims"]
    for dim in dims if isinstance(given, int) else given:
        field = select(field, dim % len(field.shape), np.arange(field.shape[dim])[::-1])
    return Outcome((field,))


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


def narrow(field: Field, dim: int, start: int, length: int, step: int = 1) -> Field:
    """Return the field of `length` units of `dim` from `start`, every `step`-th."""
    if (start, step, length) == (0, 1, field.shape[dim]):
        return field
    if any(family.dim == dim for axis in field.axes for family in axis):
        return apply_taps(field, dim, taps.strided(start, step), length)
    return select(field, dim, np.arange(length) * step + start)


def _list(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


RULES: dict[str, Rule] = {
    **dict.fromkeys(RESHAPING.split(), reshaping),
    "permute": permutation,
    **dict.fromkeys(("transpose", "t", "adjoint"), transposition),
    "movedim": move_dim,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expansion),
    **dict.fromkeys(("repeat", "tile"), repetition),
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), parts),
    "unbind": unbinding,
    "narrow": narrowing,
    "select": selection,
    "getitem": indexing,
    "cat": joining,
    "stack": stacking,
    "roll": roll,
    "flip": flip,
    "channel_shuffle": channel_shuffle,
}
ENTRIES: dict[str, Entry] = {
    **{op: Entry(Kind.SHAPE, rule) for op, rule in RULES.items()},
    "view": Entry(Kind.SHAPE, reshaping, relaid),
    "glu": Entry(Kind.SHAPE, gated_halves, added_halves),
}
