"""Fields of tensors whose elements are moved about: views, copies, writes into a part."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar_cnn.analysis.calls import tensors_in
from cifar_cnn.analysis.field import FAR, Family, Field, IntArray, compress, hull

Walk = tuple[int, int]
"""A dimension, and the step by which a coordinate grows along it."""
Walks = Mapping[int, Walk] | None
Shape = Sequence[int]
Places = Sequence[IntArray]
Mask = NDArray[np.bool_]


def gather(
    field: Field, shape: Shape, coordinates: Places, walks: Walks = None, valid: Mask | None = None
) -> Field:
    """Return the field of a tensor of `shape` whose elements are those of another one.

    For each dimension of the other tensor, `coordinates` say where each element comes from, as an
    array that can be broadcast to `shape`; units beyond the border are those of padding. `walks`
    say along which dimension of the result a dimension goes on; by default they are found in the
    coordinates. `valid` says which elements come from the other tensor at all.
    """
    walked_dims = {family.dim for family in field.families}
    everywhere = np.zeros((1,) * len(shape), dtype=np.int64)

    def move(family: Family) -> Family:
        own, walk = family.dim, None
        if own is not None and walks is not None:
            walk = walks.get(own)
        elif own is not None:
            walk = _walk_of(field, shape, coordinates, family, valid)
        index, mask, shift = list(coordinates), valid, 0
        if own is not None and walk is not None:
            dim, step = walk
            period = family.period // math.gcd(family.period, step)
            index = [c if c.shape[dim] == 1 else c.take([0], dim) for c in index]
            index[own] = index[own] + _along(dim, len(shape), step * np.arange(period))
            mask = mask if mask is None or mask.shape[dim] == 1 else mask.take([0], dim)
            shift = family.shift * step * period // family.period
        for d, size in enumerate(field.shape):
            if d != own and (family.low.shape[d] > 1 or d not in walked_dims):
                inside = (index[d] >= 0) & (index[d] < size)
                if not inside.all():
                    mask = inside if mask is None else mask & inside
                    index[d] = index[d].clip(0, size - 1)
        turns = everywhere
        if own is not None:
            turns, index[own] = np.divmod(index[own], family.period)
        at = tuple(index[d] if family.low.shape[d] > 1 else everywhere for d in range(len(index)))
        low, high = family.low[at] + turns * family.shift, family.high[at] + turns * family.shift
        if mask is not None:
            low, high = np.where(mask, low, FAR), np.where(mask, high, -FAR)
        return compress(Family(family.axis, low, high, walk[0] if walk else None, shift))

    return field.change(shape, move)


def _walk_of(
    field: Field, shape: Shape, coordinates: Places, family: Family, valid: Mask | None
) -> Walk | None:
    """Return the largest dimension along which a lattice's coordinate grows in equal steps."""
    assert family.dim is not None
    own = coordinates[family.dim]
    others = [c for d, c in enumerate(coordinates) if family.low.shape[d] > 1 and d != family.dim]
    for dim in sorted(range(own.ndim), key=lambda d: -own.shape[d]):
        if own.shape[dim] == 1:
            break
        steps = np.diff(own, axis=dim)
        known: Mask = np.ones((), dtype=bool)
        if valid is not None and valid.shape[dim] > 1:
            known = valid.take([0], dim)
            if (valid != known).any():
                continue
        fixed = all(((np.diff(c, axis=dim) == 0) | ~known).all() for c in others)
        step = int(steps[np.broadcast_to(known, steps.shape)][0]) if known.any() else 0
        if step > 0 and fixed and ((steps == step) | ~known).all():
            return dim, step
    stays = len(shape) == len(field.shape) and shape[family.dim] == 1 == field.shape[family.dim]
    return (family.dim, 1) if stays else None


def read_view(
    field: Field, shape: Shape, start: Sequence[int], walks: Sequence[Walk | None]
) -> Field:
    """Return the field of a view of a tensor.

    Element o of the view is element start[d] + sum(step * o[k]) of dimension d of the tensor, over
    all k with walks[k] == (d, step). Along other dimensions of the view nothing changes.
    """
    rank = len(shape)
    coordinates = [np.full((1,) * rank, first) for first in start]
    longest: dict[int, Walk] = {}
    for k, walk in enumerate(walks):
        if walk is not None:
            dim, step = walk
            coordinates[dim] = coordinates[dim] + _along(k, rank, step * np.arange(shape[k]))
            if dim not in longest or shape[k] > shape[longest[dim][0]]:
                longest[dim] = k, step
    return gather(field, shape, coordinates, longest)


def read_views(func: Callable[..., object], field: Field) -> tuple[Field, ...]:
    """Return the fields of the views that `func` gives of a tensor, found by their strides.

    ValueError: one is no box of evenly spaced elements.
    """
    strides, stride = [0] * len(field.shape), 2
    for dim in reversed(range(len(strides))):
        strides[dim], stride = stride, stride * (field.shape[dim] + 1)  # so that no two are alike
    views = tensors_in(func(torch.empty_strided(field.shape, strides, device="meta")))
    return tuple(_read_by_strides(field, view, strides) for view in views)


def _read_by_strides(field: Field, view: Tensor, strides: Sequence[int]) -> Field:
    start, rest = [], int(view.storage_offset())
    for stride in strides:
        first, rest = divmod(rest, stride)
        start.append(first)
    walks: list[Walk | None] = []
    for count, stride in zip(view.shape, view.stride(), strict=True):
        dims = [d for d, base in enumerate(strides) if stride and stride % base == 0]
        if count > 1 and stride and not dims:
            raise ValueError("not a box of the base")
        walks.append((dims[0], stride // strides[dims[0]]) if dims else None)
    return read_view(field, tuple(view.shape), start, walks)


def write_part(field: Field, part: Field, places: IntArray) -> Field:
    """Return a tensor's field after `part` was written into it.

    `places`, of the tensor's shape, holds the number of the part's element that was written there,
    or -1.
    """
    shape, written = field.shape, places >= 0
    coordinates = np.unravel_index(np.where(written, places, 0), part.shape)
    rest = [gather(field, shape, *_stay(shape, mask), mask) for mask in _unwritten(written)]
    return hull(shape, [*rest, gather(part, shape, coordinates, valid=written)])


def _unwritten(written: Mask) -> Iterator[Mask]:
    """Yield masks of what was not written, each along as few dimensions as possible."""
    rank = written.ndim
    inside = np.ones((1,) * rank, dtype=bool)
    for dim in range(rank):  # what lies outside along this dimension first
        here = written.any(tuple(d for d in range(rank) if d != dim), keepdims=True)
        if not here.all():
            yield inside & ~here
            inside = inside & here
    if not (written | ~inside).all():  # the part is no box
        yield inside & ~written


def _stay(shape: Shape, mask: Mask) -> tuple[list[IntArray], dict[int, Walk]]:
    """Return coordinates of elements that stay in place, and walks along dimensions not masked."""
    coordinates = [_along(d, len(shape), np.arange(size)) for d, size in enumerate(shape)]
    return coordinates, {d: (d, 1) for d, size in enumerate(mask.shape) if size == 1}


def _along(dim: int, rank: int, values: NDArray[Any]) -> NDArray[Any]:
    """Return values along one dimension, as an array of `rank` dimensions."""
    return values.reshape([-1 if d == dim else 1 for d in range(rank)])


def move_by_numbers(func: Callable[..., object], fields: Sequence[Field]) -> list[Field]:
    """Return the fields of what `func` makes of tensors by moving elements.

    It is called with the elements' numbers, a float64 tensor for each of the fields.
    """
    ends = np.cumsum([math.prod(field.shape) for field in fields]).tolist()
    ranges = list(zip([0, *ends], ends, fields, strict=False))
    numbers = [
        torch.arange(first, end, dtype=torch.float64).reshape(field.shape) + 1
        for first, end, field in ranges
    ]
    answers = []
    for result in tensors_in(func(*numbers)):
        source = result.numpy().astype(np.int64) - 1  # -1: it comes from none of them
        parts = []
        for first, end, field in ranges:
            valid = (source >= first) & (source < end)
            if valid.any() and field.families:
                at = np.unravel_index(np.where(valid, source - first, 0), field.shape)
                mask = None if valid.all() else valid
                parts.append(gather(field, source.shape, at, valid=mask))
        answers.append(hull(source.shape, parts))
    return answers
