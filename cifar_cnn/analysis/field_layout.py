"""Fields of tensors that are rearranged: reduced, permuted, reshaped, joined, cut into parts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cifar_cnn.analysis.field import (
    FAR,
    Family,
    Field,
    IntArray,
    both,
    compress,
    merge,
)


def reduce(field: Field, dims: Iterable[int], *, keep: bool = True) -> Field:
    """Return the field of a mean, maximum or weighted sum over `dims`."""
    dims = sorted({d % len(field.shape) for d in dims})
    shape = tuple(1 if d in dims else n for d, n in enumerate(field.shape))
    axes = both(lambda a: merge(_reduce_family(f, dims, field.shape) for f in field.axes[a]))
    reduced = Field(shape, axes)
    return reduced if keep else reshape(reduced, [n for d, n in enumerate(shape) if d not in dims])


def permute(field: Field, order: Sequence[int]) -> Field:
    """Return the field of a tensor whose dimensions are put into another order."""
    order = [d % len(field.shape) for d in order]

    def moved(family: Family) -> Family:
        dim = None if family.dim is None else order.index(family.dim)
        return replace(
            family, low=family.low.transpose(order), high=family.high.transpose(order), dim=dim
        )

    shape = tuple(field.shape[d] for d in order)
    return Field(shape, both(lambda a: tuple(moved(f) for f in field.axes[a])))


def reshape(field: Field, shape: Sequence[int]) -> Field:
    """Return the field of the same elements, in the same order, as a tensor of `shape`."""
    new = tuple(shape)
    axes = both(lambda a: merge(_reshape_family(f, field.shape, new) for f in field.axes[a]))
    return Field(new, axes)


def concatenate(fields: Sequence[Field], dim: int) -> Field:
    """Return the field of tensors put side by side along `dim`."""
    total = sum(field.shape[dim] for field in fields)
    shape = (*fields[0].shape[:dim], total, *fields[0].shape[dim + 1 :])
    starts = np.cumsum([0, *(field.shape[dim] for field in fields)])

    def placed(axis: int) -> Iterable[Family]:
        for field, start in zip(fields, starts, strict=False):
            for family in field.axes[axis]:
                flat = family.listed(field.shape) if family.dim == dim else family
                yield _place(flat, dim, int(start), field.shape[dim], total)

    return Field(shape, both(lambda a: merge(placed(a))))


def select(field: Field, dim: int, units: IntArray) -> Field:
    """Return the field of the given units of `dim`, in that order, one by one."""

    def chosen(family: Family) -> Family:
        flat = family.listed(field.shape) if family.dim == dim else family
        if flat.low.shape[dim] == 1:
            return flat
        return replace(flat, low=flat.low.take(units, dim), high=flat.high.take(units, dim))

    shape = (*field.shape[:dim], len(units), *field.shape[dim + 1 :])
    return Field(shape, both(lambda a: merge(chosen(f) for f in field.axes[a])))


def _reduce_family(family: Family, dims: Sequence[int], shape: Sequence[int]) -> Family:
    if family.dim in dims:
        family = family.listed(shape)
    over = tuple(dims)
    low, high = family.low.min(over, keepdims=True), family.high.max(over, keepdims=True)
    return replace(family, low=low, high=high)


def _place(family: Family, dim: int, start: int, size: int, total: int) -> Family:
    inside = [*family.low.shape]
    inside[dim] = total
    low, high = np.full(inside, FAR), np.full(inside, -FAR)
    window = (*[slice(None)] * dim, slice(start, start + size))
    low[window], high[window] = family.low, family.high
    return replace(family, low=low, high=high)


def _reshape_family(family: Family, old: tuple[int, ...], new: tuple[int, ...]) -> Family:
    dim = None if family.dim is None else _kept_dim(family.dim, old, new)
    if dim is None:
        flat = family.listed(old)
        return recognize(
            compress(Family(_reshaped(flat.low, old, new), _reshaped(flat.high, old, new))), new
        )
    assert family.dim is not None
    period = family.period
    old_table = (*old[: family.dim], period, *old[family.dim + 1 :])
    new_table = (*new[:dim], period, *new[dim + 1 :])
    low = _reshaped(family.low, old_table, new_table)
    high = _reshaped(family.high, old_table, new_table)
    return Family(low, high, dim, family.shift)


def _kept_dim(dim: int, old: tuple[int, ...], new: tuple[int, ...]) -> int | None:
    """Return where dimension `dim` lies after a reshape that leaves it whole, if there is one."""
    before, after = math.prod(old[:dim]), math.prod(old[dim + 1 :])
    places = [
        d
        for d, size in enumerate(new)
        if size == old[dim] and math.prod(new[:d]) == before and math.prod(new[d + 1 :]) == after
    ]
    same_from_end = dim - len(old) + len(new)
    return same_from_end if same_from_end in places else next(iter(places), None)


def _reshaped(array: IntArray, old: tuple[int, ...], new: tuple[int, ...]) -> IntArray:
    if array.size == 1:
        return array.reshape((1,) * len(new))
    return np.broadcast_to(array, old).reshape(new)


def recognize(family: Family, shape: Sequence[int]) -> Family:
    """Return listed intervals that walk evenly along one dimension as a family with that `dim`."""
    varying = [d for d, size in enumerate(family.low.shape) if size > 1]
    for dim in varying:
        if family.dim is not None or shape[dim] != family.low.shape[dim]:
            continue
        steps = np.diff(family.low, axis=dim)
        step = int(steps.flat[0])
        if step > 0 and (steps == step).all() and (np.diff(family.high, axis=dim) == step).all():
            return Family(family.low.take([0], dim), family.high.take([0], dim), dim, step)
    return family
