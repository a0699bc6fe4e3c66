"""Operations that move elements about: reshaping, slicing, joining."""

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from torch import Tensor

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, IntArray, apply_taps, hull
from cifar_cnn.analysis.field_layout import concatenate, permute, reshape, select
from cifar_cnn.analysis.operations.entry import (
    Entry,
    Kind,
    Outcome,
    Rule,
    Shapes,
    UnsupportedError,
    sizes,
)

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
    """Index with integers, slices, None, an ellipsis, and one list of units."""
    result = field
    for dim, units in _indexed(index, field.shape):
        if isinstance(units, range):
            result = narrow(result, dim, units.start, len(units), units.step)
        else:
            result = select(result, dim, units)
    return Outcome((reshape(result, out[0]),))


def index_select(_: Shapes, field: Field, dim: int, index: Field) -> Outcome:
    """Keep the units of `dim` that are listed."""
    dim %= len(field.shape)
    return Outcome((select(field, dim, _listed(index, field.shape[dim])),))


def assignment(_: Shapes, field: Field, index: object, value: object) -> Outcome:
    """Replace a part of the tensor by `value`, which is broadcast to it."""
    ranges = dict(_indexed(index, field.shape))
    if not all(isinstance(units, range) and units.step == 1 for units in ranges.values()):
        raise UnsupportedError("to units that are no range")
    part = [len(ranges.get(dim, range(size))) for dim, size in enumerate(field.shape)]
    given = value if isinstance(value, Field) else Field((), ((), ()))
    kept = [d for d in range(len(part)) if d not in _integers(index, field.shape)]
    fitted = hull(tuple(part[d] for d in kept), [given])
    return Outcome((_with_part(field, reshape(fitted, part), [*ranges.items()]),))


def assigned(func: Callable[..., Any], x: Tensor, index: object, value: object) -> Tensor:
    """Assign to a part of a copy."""
    copy = x.clone()
    func(copy, index, value)
    return copy


def unfolding(out: Shapes, field: Field, *args: Any, **named: Any) -> Outcome:
    """Give each window's units a dimension: of one dimension, or of a map as its columns."""
    if len(out[0]) == len(field.shape) + 1:
        return _unfolded_dim(out, field, *args, **named)
    return _unfolded_map(out, field, *args, **named)


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


def _indexed(index: object, shape: Sequence[int]) -> list[tuple[int, range | IntArray]]:
    """Return the dimensions that are indexed, each with the units that are kept."""
    items = index if isinstance(index, tuple) else (index,)
    used = sum(item is not None and not isinstance(item, EllipsisType) for item in items)
    found: list[tuple[int, range | IntArray]] = []
    dim = lists = 0
    for item in items:
        if item is None:
            continue
        if isinstance(item, EllipsisType):
            dim += len(shape) - used
            continue
        size = shape[dim]
        if isinstance(item, slice):
            found.append((dim, range(*item.indices(size))))
        elif isinstance(item, int) and not isinstance(item, bool):
            found.append((dim, range(item % size, item % size + 1)))
        else:
            lists += 1
            found.append((dim, _listed(item, size)))
        dim += 1
    if lists > 1 or (lists and any(isinstance(item, int) for item in items)):
        raise UnsupportedError("with several lists as index")
    return found


def _integers(index: object, shape: Sequence[int]) -> set[int]:
    """Return the dimensions that an index of single units leaves out."""
    items = [item for item in (index if isinstance(index, tuple) else (index,)) if item is not None]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(shape) - len(items) + 1)
    return {dim for dim, item in enumerate(items) if isinstance(item, int)}


def _listed(index: object, size: int) -> IntArray:
    """Return the units, from 0, that a list or a tensor of numbers names."""
    numbers = index.numbers if isinstance(index, Field) else index
    units = None if numbers is None else np.asarray(numbers)
    if units is None or units.ndim != 1:
        raise UnsupportedError("with an index whose numbers are not known")
    if units.dtype == bool:
        return np.flatnonzero(units)
    return units.astype(np.int64) % size


def _with_part(field: Field, part: Field, ranges: Sequence[tuple[int, range | IntArray]]) -> Field:
    """Return the field with `part` in place of the units that the ranges have in common."""
    if not ranges:
        return part
    (dim, units), *others = ranges
    size, start, stop = field.shape[dim], int(units[0]), int(units[-1]) + 1
    inside = _with_part(narrow(field, dim, start, stop - start), part, others)
    before, after = narrow(field, dim, 0, start), narrow(field, dim, stop, size - stop)
    pieces = [piece for piece in (before, inside, after) if piece.shape[dim]]
    return concatenate(pieces, dim) if len(pieces) > 1 else inside


def _unfolded_dim(out: Shapes, field: Field, dimension: int, size: int, step: int) -> Outcome:
    dim = dimension % len(field.shape)
    count = out[0][dim]
    pieces = [reshape(narrow(field, dim, k, count, step), (*out[0][:-1], 1)) for k in range(size)]
    return Outcome((concatenate(pieces, len(field.shape)),))


def _unfolded_map(
    out: Shapes,
    field: Field,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Outcome:
    *batch, channels, rows, columns = field.shape
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (
        sizes(size, 2) for size in (kernel_size, dilation, padding, stride)
    )
    down = (rows + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    along = (columns + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    axis = len(batch) + 1
    pieces = []
    for y in range(kh):
        for x in range(kw):
            part = apply_taps(field, axis, taps.strided(y * dh - ph, sh), down)
            part = apply_taps(part, axis + 1, taps.strided(x * dw - pw, sw), along)
            pieces.append(reshape(part, (*batch, channels, 1, down, along)))
    return Outcome((reshape(concatenate(pieces, axis), out[0]),))


def _list(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


VIEWS: dict[str, Rule] = {
    **dict.fromkeys(RESHAPING.split(), reshaping),
    "permute": permutation,
    **dict.fromkeys(("transpose", "t", "adjoint"), transposition),
    "movedim": move_dim,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expansion),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), parts),
    "unbind": unbinding,
    "narrow": narrowing,
    "select": selection,
    "getitem": indexing,
}
COPIES: dict[str, Rule] = {
    **dict.fromkeys(("repeat", "tile"), repetition),
    "repeat_interleave": repeat_interleave,
    "index_select": index_select,
    "unfold": unfolding,
    "hstack": side_by_side,
    "cat": joining,
    "stack": stacking,
    "roll": roll,
    "flip": flip,
    "channel_shuffle": channel_shuffle,
}
ENTRIES: dict[str, Entry] = {
    **{op: Entry(Kind.SHAPE, rule, shares=True) for op, rule in VIEWS.items()},
    **{op: Entry(Kind.SHAPE, rule) for op, rule in COPIES.items()},
    "view": Entry(Kind.SHAPE, reshaping, relaid, shares=True),
    "setitem": Entry(Kind.SHAPE, assignment, assigned),
    "glu": Entry(Kind.SHAPE, gated_halves, added_halves),
}
