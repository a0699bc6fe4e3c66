"""Fields of tensors that are reduced, joined or reshaped."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cifar_cnn.analysis.field import FAR, Family, Field, IntArray, both, compress, merge, recognize


def reduce(field: Field, dims: Iterable[int], *, keep: bool = True) -> Field:
    """Return the field of a mean, maximum or weighted sum over `dims`."""
    over = tuple(sorted({d % len(field.shape) for d in dims}))
    shape = tuple(1 if d in over else n for d, n in enumerate(field.shape))

    def reduced(family: Family) -> Family:
        listed = family.listed(field.shape) if family.dim in over else family
        low, high = listed.low.min(over, keepdims=True), listed.high.max(over, keepdims=True)
        return replace(listed, low=low, high=high)

    result = Field(shape, both(lambda a: merge(reduced(f) for f in field.axes[a])))
    return result if keep else reshape(result, [n for d, n in enumerate(shape) if d not in over])


def concatenate(fields: Sequence[Field], dim: int) -> Field:
    """Return the field of tensors put side by side along `dim`."""
    starts = np.cumsum([0, *(field.shape[dim] for field in fields)])
    total = int(starts[-1])

    def placed(family: Family, field: Field, start: int) -> Family:
        listed = family.listed(field.shape) if family.dim == dim else family
        inside = [*listed.low.shape]
        inside[dim] = total
        low, high = np.full(inside, FAR), np.full(inside, -FAR)
        window = (*[slice(None)] * dim, slice(start, start + field.shape[dim]))
        low[window], high[window] = listed.low, listed.high
        return replace(listed, low=low, high=high)

    pairs = [(field, int(start)) for field, start in zip(fields, starts, strict=False)]
    shape = (*fields[0].shape[:dim], total, *fields[0].shape[dim + 1 :])
    axes = both(lambda a: merge(placed(f, x, start) for x, start in pairs for f in x.axes[a]))
    return Field(shape, axes)


def reshape(field: Field, shape: Sequence[int]) -> Field:
    """Return the field of the same elements, in the same order, as a tensor of `shape`."""
    old, new = field.shape, tuple(shape)
    walked = {family.dim for axis in field.axes for family in axis}

    sees_all = [any(f.dim is None and f.low.size == 1 for f in axis) for axis in field.axes]

    def reshaped(family: Family, axis: int) -> Family:
        place = None if family.dim is None else _place_after(family.dim, old, new, walked)
        if place is None:
            flat = family.listed(old)
            low, high = _reshaped(flat.low, old, new), _reshaped(flat.high, old, new)
            listed = compress(Family(low, high))
            # behind attention, a place tells only where its query comes from
            return listed if sees_all[axis] else recognize(listed, new)
        assert family.dim is not None
        dim, inner = place
        before = (*old[: family.dim], family.period, *old[family.dim + 1 :])
        after = (*new[:dim], family.period * inner, *new[dim + 1 :])
        low, high = _reshaped(family.low, before, after), _reshaped(family.high, before, after)
        if low.shape[dim] < family.period * inner:
            low, high = low.repeat(inner, dim), high.repeat(inner, dim)
        return Family(low, high, dim, family.shift)

    return Field(new, both(lambda a: merge(reshaped(f, a) for f in field.axes[a])))


def _place_after(
    dim: int, old: tuple[int, ...], new: tuple[int, ...], walked: set[int | None]
) -> tuple[int, int] | None:
    """Return where `dim` lies after a reshape, and how many units are merged into each of its own.

    It may be merged with dimensions behind it along which no field walks.
    """
    before, found = math.prod(old[:dim]), []
    for place, size in enumerate(new):
        if math.prod(new[:place]) != before or size % old[dim]:
            continue
        inner, end = size // old[dim], dim + 1
        while end < len(old) and math.prod(old[dim + 1 : end]) < inner:
            end += 1
        is_free = inner == 1 or walked.isdisjoint(range(dim + 1, end))
        if is_free and math.prod(old[dim + 1 : end]) == inner:
            found.append((place, inner))
    same_from_end = (dim - len(old) + len(new), 1)
    return same_from_end if same_from_end in found else next(iter(found), None)


def _reshaped(array: IntArray, old: tuple[int, ...], new: tuple[int, ...]) -> IntArray:
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


def masked(field: Field, mask: NDArray[np.bool_], dims: Sequence[int]) -> Field:
    """Return the field without what the elements see that a mask over `dims` leaves out."""

    def left(family: Family) -> Family:
        listed = family.listed(field.shape) if family.dim in dims else family
        low, high = np.where(mask, listed.low, FAR), np.where(mask, listed.high, -FAR)
        return compress(replace(listed, low=low, high=high))

    return Field(field.shape, both(lambda a: tuple(left(f) for f in field.axes[a])))
