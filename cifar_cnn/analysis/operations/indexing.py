"""Operations that choose units: slices, lists, assignments to a part."""

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, IntArray, apply_taps, hull
from cifar_cnn.analysis.field_layout import concatenate, reshape, select
from cifar_cnn.analysis.operations.entry import (
    Entry,
    Kind,
    Outcome,
    Shapes,
    UnsupportedError,
)


def narrowing(_: Shapes, field: Field, dim: int, start: int, length: int) -> Outcome:
    """Keep `length` units of `dim`."""
    dim %= len(field.shape)
    return Outcome((narrow(field, dim, start % field.shape[dim], length),))


def selection(out: Shapes, field: Field, dim: int, index: int) -> Outcome:
    """Keep one unit of `dim`."""
    dim %= len(field.shape)
    return Outcome((reshape(narrow(field, dim, index % field.shape[dim], 1), out[0]),))


def indexing(out: Shapes, field: Field, index: object) -> Outcome:
    """Index with integers, slices, None, an ellipsis, and one list of units: as torch does."""
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
    """Replace a part of the tensor by `value`, which is broadcast to it; or where a mask says."""
    if isinstance(index, Field) and index.shape == field.shape and not isinstance(value, Field):
        return Outcome((hull(field.shape, [field, index]),))
    chosen = dict(_indexed(index, field.shape))
    part = [len(chosen.get(dim, range(size))) for dim, size in enumerate(field.shape)]
    given = value if isinstance(value, Field) else Field((), ((), ()))
    read = _shape_read(index, part)
    given = reshape(given, given.shape[max(len(given.shape) - len(read), 0) :])
    fitted = hull(read, [given])
    some = [(d, units) for d, units in chosen.items() if not _is_all(units, field.shape[d])]
    return Outcome((_with_part(field, reshape(fitted, part), some),))


def assigned(func: Callable[..., Any], x: Tensor, index: object, value: object) -> Tensor:
    """Assign to a part of a copy."""
    if isinstance(index, Tensor) and index.shape == x.shape:
        return x + index
    copy = x.clone()
    func(copy, index, value)
    return copy


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


def narrow(field: Field, dim: int, start: int, length: int, step: int = 1) -> Field:
    """Return the field of `length` units of `dim` from `start`, every `step`-th."""
    if (start, step, length) == (0, 1, field.shape[dim]):
        return field
    if any(family.dim == dim for axis in field.axes for family in axis):
        return apply_taps(field, dim, taps.strided(start, step), length)
    return select(field, dim, np.arange(length) * step + start)


def _indexed(index: object, shape: Sequence[int]) -> list[tuple[int, range | IntArray]]:
    """Return each dimension with the units that are kept; one may be indexed by a list."""
    items = [item for item in _items(index, len(shape)) if item is not None]
    found: list[tuple[int, range | IntArray]] = []
    for dim, (item, size) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            found.append((dim, range(*item.indices(size))))
        elif _is_integer(item):
            found.append((dim, range(item % size, item % size + 1)))
        else:
            found.append((dim, _listed(item, size)))
    if sum(not isinstance(units, range) for _, units in found) > 1:
        raise UnsupportedError("with several lists as index")
    return found


def _items(index: object, rank: int) -> list[object]:
    """Return what the index says of each dimension, in order; None stands for a new one."""
    items = list(index) if isinstance(index, tuple) else [index]
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    said = [item for item in items if item is not Ellipsis]
    unsaid = rank - sum(item is not None for item in said)
    if unsaid < 0:
        raise UnsupportedError("with truth values as indices")
    return [*said[:at], *[slice(None)] * unsaid, *said[at:]]


def _shape_read(index: object, part: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that reading with the index gives, where `part` is what it keeps of each."""
    sizes = iter(part)
    shape = []
    for item in _items(index, len(part)):
        size = 1 if item is None else next(sizes)
        shape += [] if _is_integer(item) else [size]
    return tuple(shape)


def _is_integer(item: object) -> TypeGuard[int]:
    return isinstance(item, int) and not isinstance(item, bool)


def _listed(index: object, size: int) -> IntArray:
    """Return the units, from 0, that a list or a tensor of numbers names."""
    numbers = index.numbers if isinstance(index, Field) else index
    units = None if numbers is None else np.asarray(numbers)
    if units is None or units.ndim != 1:
        raise UnsupportedError("with an index whose numbers are not known")
    return units.astype(np.int64) % size


def _is_all(units: range | IntArray, size: int) -> bool:
    return isinstance(units, range) and units == range(size)


def _with_part(field: Field, part: Field, chosen: Sequence[tuple[int, range | IntArray]]) -> Field:
    """Return the field with `part` in place of the units that are chosen in each dimension."""
    if not chosen:
        return part
    (dim, kept), *others = chosen
    units, size = np.asarray(kept, dtype=np.int64), field.shape[dim]
    inside = _with_part(select(field, dim, units), part, others)
    order = np.arange(size)
    order[units] = size + np.arange(len(units))
    return select(concatenate([field, inside], dim), dim, order)


def _list(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


ENTRIES: dict[str, Entry] = {
    "narrow": Entry(Kind.SHAPE, narrowing, shares=True),
    "select": Entry(Kind.SHAPE, selection, shares=True),
    "getitem": Entry(Kind.SHAPE, indexing, shares=True),
    "setitem": Entry(Kind.SHAPE, assignment, assigned),
    "index_select": Entry(Kind.SHAPE, index_select),
    "roll": Entry(Kind.SHAPE, roll),
    "flip": Entry(Kind.SHAPE, flip),
}
