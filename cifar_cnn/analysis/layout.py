"""Fields of tensors that are reduced, reshaped or concatenated."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from cifar_cnn.analysis.field import FAR, Family, Field, IntArray, compress, merge


def reduce(field: Field, dims: Iterable[int], *, keep: bool = True) -> Field:
    """Return the field of a mean, maximum or weighted sum over `dims`."""
    over = tuple(sorted({d % len(field.shape) for d in dims}))
    shape = tuple(1 if d in over else n for d, n in enumerate(field.shape))

    def reduce_family(family: Family) -> Family:
        family = family.unroll(field.shape) if family.dim in over else family
        low, high = family.low.min(over, keepdims=True), family.high.max(over, keepdims=True)
        return replace(family, low=low, high=high)

    result = field.change(shape, reduce_family)
    return result if keep else reshape(result, [n for d, n in enumerate(shape) if d not in over])


def concatenate(fields: Sequence[Field], dim: int) -> Field:
    """Return the field of tensors put side by side along `dim`."""
    ends = np.cumsum([field.shape[dim] for field in fields]).tolist()

    def place(family: Family, field: Field, end: int) -> Family:
        family = family.unroll(field.shape) if family.dim == dim else family
        wide = [ends[-1] if d == dim else n for d, n in enumerate(family.low.shape)]
        low, high = np.full(wide, FAR), np.full(wide, -FAR)
        part = (*[slice(None)] * dim, slice(end - field.shape[dim], end))
        low[part], high[part] = family.low, family.high
        return replace(family, low=low, high=high)

    parts = zip(fields, ends, strict=True)
    families = [place(family, field, end) for field, end in parts for family in field.families]
    shape = fields[0].shape
    return Field((*shape[:dim], ends[-1], *shape[dim + 1 :]), merge(families))


def reshape(field: Field, shape: Sequence[int]) -> Field:
    """Return the field of the same elements, in the same order, as a tensor of `shape`."""
    old, new = field.shape, tuple(shape)
    walked_dims = {family.dim for family in field.families}
    global_axes = {f.axis for f in field.families if f.dim is None and f.low.size == 1}

    def reshape_family(family: Family) -> Family:
        place = None if family.dim is None else _place_after(family.dim, old, new, walked_dims)
        if place is None:
            flat = family.unroll(old)
            low, high = _reshape_array(flat.low, old, new), _reshape_array(flat.high, old, new)
            listed = compress(Family(family.axis, low, high))
            # behind attention, a place tells only where its query comes from
            return listed if family.axis in global_axes else _recognize(listed, new)
        assert family.dim is not None
        dim, inner = place
        before = (*old[: family.dim], family.period, *old[family.dim + 1 :])
        after = (*new[:dim], family.period * inner, *new[dim + 1 :])
        low, high = (
            _reshape_array(family.low, before, after),
            _reshape_array(family.high, before, after),
        )
        if low.shape[dim] < family.period * inner:
            low, high = low.repeat(inner, dim), high.repeat(inner, dim)
        return replace(family, low=low, high=high, dim=dim)

    return field.change(new, reshape_family)


def _place_after(
    dim: int, old: tuple[int, ...], new: tuple[int, ...], walked_dims: set[int | None]
) -> tuple[int, int] | None:
    """Return where `dim` lies after a reshape, and how many units are merged into each of its own.

    It may be merged with dimensions behind it along which no field walks.
    """
    before, places = math.prod(old[:dim]), []
    for place, size in enumerate(new):
        if math.prod(new[:place]) != before or size % old[dim]:
            continue
        inner, end = size // old[dim], dim + 1
        while end < len(old) and math.prod(old[dim + 1 : end]) < inner:
            end += 1
        is_free = inner == 1 or walked_dims.isdisjoint(range(dim + 1, end))
        if is_free and math.prod(old[dim + 1 : end]) == inner:
            places.append((place, inner))
    same_from_end = (dim - len(old) + len(new), 1)
    return same_from_end if same_from_end in places else next(iter(places), None)


def _reshape_array(array: IntArray, old: tuple[int, ...], new: tuple[int, ...]) -> IntArray:
    """Reshape an array whose dimensions are 1 (the same for all) or full."""
    spread: list[int] = []
    sizes: list[int] = []
    for before, after in _matching(old, new):
        same = all(array.shape[d] == 1 for d in before)
        spread += [1 if same else old[d] for d in before]
        sizes += [1 if same else new[d] for d in after]
    return np.broadcast_to(array, spread).reshape(sizes)


def _matching(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Yield the smallest runs of dimensions of both shapes that hold equally many elements."""
    i = j = 0
    while i < len(old) or j < len(new):
        first = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := math.prod(old[first[0] : i])) != (right := math.prod(new[first[1] : j])):
            i, j = (i + 1, j) if left < right else (i, j + 1)
        yield range(first[0], i), range(first[1], j)


def _recognize(family: Family, shape: Sequence[int]) -> Family:
    """Return the family with a `dim` if its intervals move in equal steps along one dimension."""
    for dim, size in enumerate(family.low.shape):
        if size == 1 or shape[dim] != size:
            continue
        steps = np.diff(family.low, axis=dim)
        step = int(steps.flat[0])
        if step > 0 and (steps == step).all() and (np.diff(family.high, axis=dim) == step).all():
            low, high = family.low.take([0], dim), family.high.take([0], dim)
            return Family(family.axis, low, high, dim, step)
    return family
