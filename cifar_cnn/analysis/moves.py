"""Fields of tensors whose elements are moved about: views, copies, writes into a part."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar_cnn.analysis.calls import tensors_in
from cifar_cnn.analysis.field import FAR, Family, Field, IntArray, compress, hull, nothing

Walk = tuple[int, int]
"""A dimension, and the step by which a coordinate grows along it."""


def gather(
    field: Field,
    shape: Sequence[int],
    coordinates: Sequence[IntArray],
    walks: Mapping[int, Walk] | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> Field:
    """Return the field of a tensor of `shape` whose elements are those of another one.

    For each dimension of the other tensor, `coordinates` say where each element comes from, as an
    array that can be broadcast to `shape`; units beyond the border are those of padding. `walks`
    say along which dimension of the result a dimension goes on; they are found in the coordinates
    if not given. `valid` says which elements come from the other tensor at all.
    """
    walked = {family.dim for axis in field.axes for family in axis}
    everywhere = np.zeros((1,) * len(shape), dtype=np.int64)

    def moved(family: Family) -> Family:
        own, varying = family.dim, [d for d, size in enumerate(family.low.shape) if size > 1]
        walk = None
        if own is not None:
            found = _walk_of(field, shape, coordinates, family, valid) if walks is None else None
            walk = found if walks is None else walks.get(own)
        index, mask, shift = list(coordinates), valid, 0
        if own is not None and walk is not None:
            dim, step = walk
            period = family.period // math.gcd(family.period, step)
            index = [c if c.shape[dim] == 1 else c.take([0], dim) for c in index]
            index[own] = index[own] + _along(dim, len(shape), step * np.arange(period))
            mask = mask if mask is None or mask.shape[dim] == 1 else mask.take([0], dim)
            shift = family.shift * step * period // family.period
        for d, size in enumerate(field.shape):
            if d != own and (d in varying or d not in walked):
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
        return compress(Family(low, high, None if walk is None else walk[0], shift))

    return field.change(shape, moved)


def _walk_of(
    field: Field,
    shape: Sequence[int],
    coordinates: Sequence[IntArray],
    family: Family,
    valid: NDArray[np.bool_] | None,
) -> Walk | None:
    """Return the largest dimension along which a lattice's coordinate grows in equal steps."""
    assert family.dim is not None
    own = coordinates[family.dim]
    others = [c for d, c in enumerate(coordinates) if family.low.shape[d] > 1 and d != family.dim]
    for dim in sorted(range(own.ndim), key=lambda d: -own.shape[d]):
        if own.shape[dim] == 1:
            break
        steps = np.diff(own, axis=dim)
        known: NDArray[np.bool_] = np.ones((), dtype=bool)
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


@dataclass(frozen=True)
class View:
    """Where the elements of a view lie in its base.

    Element o of the view is element start[d] + sum(step * o[k]) of dimension d of the base, over
    all k with walks[k] == (d, step). Along other dimensions of the view nothing changes.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    walks: tuple[Walk | None, ...]

    def read(self, field: Field) -> Field:
        """Return the field of the view, from that of its base."""
        rank = len(self.shape)
        coordinates = [np.full((1,) * rank, first) for first in self.start]
        longest: dict[int, Walk] = {}
        for k, walk in enumerate(self.walks):
            if walk is not None:
                dim, step = walk
                units = _along(k, rank, step * np.arange(self.shape[k]))
                coordinates[dim] = coordinates[dim] + units
                if dim not in longest or self.shape[k] > self.shape[longest[dim][0]]:
                    longest[dim] = k, step
        return gather(field, self.shape, coordinates, longest)

    def write(self, field: Field, part: Field) -> Field:
        """Return the base's field after `part` was written into the view."""
        shape = field.shape
        rank = len(shape)
        covered = [np.arange(n) == first for n, first in zip(shape, self.start, strict=True)]
        coordinates = [np.zeros((1,) * rank, dtype=np.int64) for _ in self.shape]
        walks: dict[int, Walk] = {}
        for k in sorted(range(len(self.shape)), key=lambda k: self.shape[k]):
            if (walk := self.walks[k]) is not None:
                dim, step = walk
                units = np.arange(shape[dim]) - self.start[dim]
                covered[dim] = (units % step == 0) & (units >= 0) & (units // step < self.shape[k])
                coordinates[k] = _along(dim, rank, (units // step).clip(0, self.shape[k] - 1))
                if covered[dim].all():
                    walks[k] = dim, 1
        partial = [d for d in range(rank) if not covered[d].all()]
        inside = np.ones((1,) * rank, dtype=bool)
        kept = []
        for at, dim in enumerate(partial):  # what lies outside along this dimension first
            here = _along(dim, rank, covered[dim])
            if any(field.axes):
                kept.append(_masked(field, inside & ~here, partial[: at + 1]))
            inside = inside & here
        new = gather(part, shape, coordinates, walks, inside if partial else None)
        return hull(shape, [*kept, new])


def concatenate(fields: Sequence[Field], dim: int) -> Field:
    """Return the field of tensors put side by side along `dim`."""
    whole = list(fields[0].shape)
    whole[dim] = sum(field.shape[dim] for field in fields)
    walks = tuple((d, 1) for d in range(len(whole)))
    empty, parts, first = nothing(tuple(whole)), [], 0
    for field in fields:
        start = tuple(first if d == dim else 0 for d in range(len(whole)))
        parts.append(View(field.shape, start, walks).write(empty, field))
        first += field.shape[dim]
    return hull(empty.shape, parts)


def _along(dim: int, rank: int, values: NDArray[Any]) -> NDArray[Any]:
    """Return values along one dimension, as an array of `rank` dimensions."""
    return values.reshape([-1 if d == dim else 1 for d in range(rank)])


def _masked(field: Field, mask: NDArray[np.bool_], dims: Sequence[int]) -> Field:
    """Return the field with empty intervals for the elements outside of a mask over `dims`."""

    def masked(family: Family) -> Family:
        family = family.unroll(field.shape) if family.dim in dims else family
        low, high = np.where(mask, family.low, FAR), np.where(mask, family.high, -FAR)
        return compress(replace(family, low=low, high=high))

    return field.change(field.shape, masked)


class DisjointError(ValueError):
    """A view and a base share no element."""


def locate_view(
    view: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int = 0
) -> View:
    """Return where a view lies in a base of this shape and these strides, which begins at `offset`.

    A stride of 0 says nothing, as that of a dimension of one unit. ValueError: the view is no box
    of evenly spaced units of the base.
    """
    order = sorted((d for d in range(len(shape)) if strides[d]), key=lambda d: -strides[d])
    start, rest = [0] * len(shape), int(view.storage_offset()) - offset
    for dim in order:
        start[dim], rest = divmod(rest, strides[dim])
    walks: list[Walk | None] = []
    last = list(start)
    for count, stride in zip(view.shape, view.stride(), strict=True):
        dims = [d for d in order if stride and stride % strides[d] == 0]
        walk = (dims[0], stride // strides[dims[0]]) if dims else None
        if walk is not None:
            last[walk[0]] += (count - 1) * walk[1]
        elif count > 1 and stride:
            raise ValueError("not a box of the base")
        walks.append(walk)
    if any(first >= n or end < 0 for first, end, n in zip(start, last, shape, strict=True)):
        raise DisjointError("no part of the base")
    if rest or any(first < 0 or end >= n for first, end, n in zip(start, last, shape, strict=True)):
        raise ValueError("not within the base")
    return View(tuple(view.shape), tuple(start), tuple(walks))


def locate_views(func: Callable[..., object], shape: Sequence[int]) -> list[View]:
    """Return where the views lie that `func` gives of a tensor of `shape`, without its numbers."""
    strides, stride = [0] * len(shape), 2
    for dim in reversed(range(len(shape))):
        strides[dim], stride = stride, stride * (shape[dim] + 1)  # so that no two are alike
    base = torch.empty_strided(tuple(shape), strides, device="meta")
    return [locate_view(view, shape, strides) for view in tensors_in(func(base))]


def move_by_numbers(func: Callable[..., object], fields: Sequence[Field]) -> list[Field]:
    """Return the fields of what `func` makes of tensors by moving elements.

    It is called with the elements' numbers, a float64 tensor for each of the fields.
    """
    starts = np.cumsum([1, *(math.prod(field.shape) for field in fields)]).tolist()
    numbers = [
        torch.arange(first, end, dtype=torch.float64).reshape(field.shape)
        for first, end, field in zip(starts, starts[1:], fields, strict=False)
    ]
    answers = []
    for result in tensors_in(func(*numbers)):
        source = result.numpy().astype(np.int64)
        parts = []
        for first, end, field in zip(starts, starts[1:], fields, strict=False):
            valid = (source >= first) & (source < end)
            if valid.any() and any(field.axes):
                at = np.unravel_index(np.where(valid, source - first, 0), field.shape)
                mask = None if valid.all() else valid
                parts.append(gather(field, source.shape, at, valid=mask))
        answers.append(hull(source.shape, parts))
    return answers
