"""The proof, operation by operation: what the gradient of single units reaches.

The elements of its inputs that one unit of an operation reaches must together see what the table
gives for that unit. From the image on, that proves each layer, in a time that grows with the number
of operations and not with its square. Only fields that may have holes, and the last one, are
followed back to the pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar_cnn.analysis.additive import Ran
from cifar_cnn.analysis.field import Field, IntArray
from cifar_cnn.analysis.graph import Graph, Value
from cifar_cnn.analysis.layers import Walk, describe, spatial_dim
from cifar_cnn.analysis.propagate import AXIS_NAMES, Propagated, Step
from cifar_cnn.documents import analysis as documents

Progress = Callable[[int, int], None]
"""Told how many operations are proved along one axis, and of how many."""


@dataclass(frozen=True)
class Checked:
    """One unit along one axis: its field, clipped to the strip, and what the gradient reached."""

    layer: str
    axis: str
    unit: int
    analytic: tuple[int, int]
    reached: tuple[int, int]
    contributing: int

    @property
    def agrees(self) -> bool:
        """Whether both end at the same pixels."""
        return self.analytic == self.reached

    @property
    def total(self) -> int:
        """Pixels from one end to the other, holes included."""
        return self.analytic[1] - self.analytic[0] + 1

    def as_dict(self) -> documents.CheckedUnit:
        """Return it as in `receptive-field --verify --json`."""
        return {
            "layer": self.layer,
            "axis": self.axis,
            "unit": self.unit,
            "analytic": list(self.analytic),
            "reached": list(self.reached),
            "contributing": self.contributing,
        }


@dataclass
class Proof:
    """The proof along one axis; `with_holes` are tensors whose fields may leave pixels out."""

    graph: Graph
    ran: list[Ran]
    propagated: Propagated
    axis: int
    with_holes: set[Value] = field(default_factory=set)

    def check(self, progress: Progress) -> list[Checked]:
        """Compare units of every operation."""
        checked = []
        steps = self.propagated.steps
        for index, step in enumerate(steps):
            if self.ran[index].results[0].requires_grad:  # argmax and comparisons have no gradient
                checked += self._check_operation(index, step)
            progress(index + 1, len(steps))
        return checked

    def _check_operation(self, index: int, step: Step) -> list[Checked]:
        walk = describe(step).walks[self.axis]
        length = self.graph.image.shape[2 + self.axis]
        checked = []
        units = _units(walk, length)
        if not units:
            return []
        *others, last = units
        for unit in others:
            seen = self._seen(self._gradients(index, step, walk, unit))
            checked += self._compared(step, unit, walk, _within(seen, length))
        gradients = self._gradients(index, step, walk, last)
        seen = self._seen(gradients)
        pixels = _within(seen, length)
        if _has_gap(seen) or self._reads_holes(gradients) or index == len(self.ran) - 1:
            pixels = self._pixels(index, gradients)
            if len(pixels) and len(pixels) <= pixels[-1] - pixels[0]:
                self.with_holes.update(step.operation.outputs)
        return checked + self._compared(step, last, walk, pixels)

    def _gradients(
        self, index: int, step: Step, walk: Walk, unit: int
    ) -> list[tuple[Value, Tensor]]:
        """Return the gradient of a unit, all channels together, at the operation's inputs."""
        chosen = self.ran[index].results[0]
        if walk.jump is not None:
            dim = spatial_dim(step.field.axes[self.axis], step.field)
            assert dim is not None
            chosen = chosen.select(dim, unit)
        return _back(self.ran[index], [chosen.sum()], None)

    def _seen(self, gradients: list[tuple[Value, Tensor]]) -> IntArray:
        """Return the intervals of pixels, (N, 2), that the reached elements see by the table."""
        fields = self.propagated.fields
        found = [_intervals(fields[value], at.numpy() != 0, self.axis) for value, at in gradients]
        return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])

    def _reads_holes(self, gradients: list[tuple[Value, Tensor]]) -> bool:
        return not self.with_holes.isdisjoint(value for value, _ in gradients)

    def _pixels(self, index: int, gradients: list[tuple[Value, Tensor]]) -> IntArray:
        """Follow a gradient at the inputs of an operation back to the image."""
        at: dict[Value, Tensor] = {}
        _add(at, gradients)
        for operation, ran in zip(
            self.graph.operations[index - 1 :: -1] if index else [],
            self.ran[index - 1 :: -1] if index else [],
            strict=True,
        ):
            reached = [
                (result, at.pop(value))
                for value, result in zip(operation.outputs, ran.results, strict=True)
                if value in at
            ]
            if reached:
                results, weights = zip(*reached, strict=True)
                _add(at, _back(ran, list(results), list(weights)))
        across = (0, 1, 3 - self.axis)
        image = at.get(self.graph.image)
        return np.flatnonzero(image.abs().sum(across).numpy() if image is not None else [])

    def _compared(self, step: Step, unit: int, walk: Walk, pixels: IntArray) -> list[Checked]:
        """Compare one unit; what sees beyond the strip may miss its last pixels: no proof."""
        if not len(pixels):
            return []
        low, high = int(walk.low[unit]), int(walk.high[unit])
        length = self.graph.image.shape[2 + self.axis]
        analytic = max(low, 0), min(high, length - 1)
        reached = int(pixels[0]), int(pixels[-1])
        within = analytic[0] <= reached[0] and reached[1] <= analytic[1]
        if analytic != (low, high) and within and reached != analytic:
            return []
        axis_name = AXIS_NAMES[self.axis]
        return [Checked(step.operation.name, axis_name, unit, analytic, reached, len(pixels))]


def _units(walk: Walk, length: int) -> list[int]:
    """Choose units from the middle half of those that see no border, or else from all.

    The outermost may see the border of a map that was cropped, which is no border of the image.
    """
    sees = walk.low <= walk.high
    inside = np.flatnonzero(sees & (walk.low >= 0) & (walk.high < length))
    units = inside if len(inside) else np.flatnonzero(sees)
    places = (len(units) // 4, len(units) // 2, len(units) // 2 + 1, len(units) * 3 // 4)
    return sorted({int(units[place]) for place in places if place < len(units)})


def _back(
    ran: Ran, results: list[Tensor], weights: list[Tensor] | None
) -> list[tuple[Value, Tensor]]:
    sources = [source for _, source in ran.sources]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        results, sources, weights, retain_graph=True, allow_unused=True
    )
    pairs = zip((value for value, _ in ran.sources), gradients, strict=True)
    return [(value, gradient) for value, gradient in pairs if gradient is not None]


def _add(at: dict[Value, Tensor], gradients: list[tuple[Value, Tensor]]) -> None:
    for value, gradient in gradients:
        at[value] = at[value] + gradient if value in at else gradient


def _intervals(seen: Field, reached: NDArray[np.bool_], axis: int) -> IntArray:
    """Return low and high, (N, 2), of what the reached elements of a tensor see."""
    found = []
    for family in seen.axes[axis]:
        listed = family.listed(seen.shape)
        alike = tuple(dim for dim, size in enumerate(listed.low.shape) if size == 1)
        chosen = reached.any(alike, keepdims=True)
        shape = chosen.shape
        low, high = np.broadcast_to(listed.low, shape), np.broadcast_to(listed.high, shape)
        chosen = chosen & (low <= high)
        found.append(np.stack([low[chosen], high[chosen]], 1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _within(intervals: IntArray, length: int) -> IntArray:
    """Return all pixels of the strip from the first that is seen to the last."""
    if not len(intervals):
        return np.empty(0, dtype=np.int64)
    return np.arange(max(intervals[:, 0].min(), 0), min(intervals[:, 1].max() + 1, length))


def _has_gap(intervals: IntArray) -> bool:
    """Whether the intervals leave pixels out between the first and the last."""
    ordered = intervals[intervals[:, 0].argsort()]
    ends = np.maximum.accumulate(ordered[:, 1])
    return bool((ordered[1:, 0] > ends[:-1] + 1).any())
