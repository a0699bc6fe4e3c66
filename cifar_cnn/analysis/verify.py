"""A numeric proof of the receptive field: which pixels the gradient of single units reaches.

The network runs in its additive form (see `additive`) on a strip: long enough along one axis that
units in the middle see no border, only as high as the network needs along the other. The fields
are computed for the same strip, and must end where the gradient's support ends.
"""

from collections.abc import Collection, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cifar_cnn.analysis.additive import additive
from cifar_cnn.analysis.field import IntArray
from cifar_cnn.analysis.graph import Graph
from cifar_cnn.analysis.layers import Layer, Walk, describe, spatial_dim
from cifar_cnn.analysis.network import Model, network
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.proof import Checked, Verification
from cifar_cnn.analysis.propagate import AXIS_NAMES, Propagated, Step, propagate
from cifar_cnn.analysis.recorder import Recorder
from cifar_cnn.analysis.trace import evaluating, trace
from cifar_cnn.errors import ModelError, one_line

Size = tuple[int, int]
ROOM = 8
"""Units of the coarsest map that a strip has room for beyond the largest field."""


def verify(
    model: Model, input_size: Size = (32, 32), *, assume_pointwise: Collection[str] = ()
) -> Verification:
    """Compare the receptive field of every layer with the gradient of single units.

    Args:
        model: as for `receptive_field`.
        input_size: (H, W) in pixels; the proof runs on strips of its own, if the network lets it.
        assume_pointwise: as for `receptive_field`; the proof takes the user's word too.

    Raises:
        ModelError: as for `receptive_field`.
    """
    _, module = network(model)
    known = {*OPERATIONS, *assume_pointwise}
    original = propagate(trace(module, input_size, known), assume_pointwise)
    checked: list[Checked] = []
    strips = []
    for axis in (0, 1):
        for strip in _strips(module, original, input_size, axis, known):
            graph = _run(module, strip, known, assume_pointwise)
            units = _check_axis(graph, propagate(graph, assume_pointwise), axis, strip[axis])
            if all(unit.agrees for unit in units):
                break
        checked += units
        strips.append(strip)
    seen = {unit.layer for unit in checked}
    layers = dict.fromkeys(step.operation.name for step in original.steps)
    skipped = tuple(name for name in layers if name not in seen)
    return Verification(tuple(checked), skipped, (strips[0], strips[1]))


def _strips(
    module: nn.Module, original: Propagated, size: Size, axis: int, known: Collection[str]
) -> Iterator[Size]:
    """Give the strips on which the network has all of its maps, narrow ones first.

    On a strip narrower than a window all of the window may lie in the padding; a wider one then
    tells whether that is why a unit reaches less. A network that takes nothing but its own size is
    given that.
    """
    rows = [row for row in map(describe, original.steps) if row.is_map]
    across = 1 - axis
    long = _length(rows, axis, size[axis])
    jump = _largest_jump(rows, across)
    narrow = {1, *(jump * times for times in (1, 2, 3, 4, 6))}
    takes_other_sizes = False
    for width in sorted({w for w in narrow if w < size[across]} | {size[across]}):
        strip = (long, width) if axis == 0 else (width, long)
        graph = trace(module, strip, known, partial=True)
        if sum(describe(step).is_map for step in propagate(graph).steps) == len(rows):
            takes_other_sizes = True
            yield strip
    if not takes_other_sizes:
        yield size


def _length(rows: list[Layer], axis: int, least: int) -> int:
    """Return a length that leaves room for a few units that see no border."""
    jump = _largest_jump(rows, axis)
    room = max((row.walks[axis].size for row in rows), default=1) + ROOM * jump
    return max(-(-room // jump) * jump, least)


def _largest_jump(rows: list[Layer], axis: int) -> int:
    return max((int(row.walks[axis].jump or 1) for row in rows), default=1) or 1


def _run(module: nn.Module, size: Size, known: Collection[str], vouched: Collection[str]) -> Graph:
    """Run the additive network on `size` and return its graph, with the tensors, image first.

    A layer made for another size may end the run where it ends the network's own on that size.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    expected = len(trace(module, size, known, partial=True).operations)
    with evaluating(module), torch.enable_grad():
        leaf = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
        image = leaf.clone()
        recorder = Recorder(module, image, known, partial(additive, vouched=vouched))
        recorder.graph.tensors.append(leaf)
        try:
            with device, recorder.running():
                module(image)
        except ModelError:
            raise
        except Exception as error:  # the user's forward may raise anything
            if len(recorder.graph.operations) < expected:
                where = recorder.module_name() or "the network"
                raise ModelError(
                    f"the proof cannot run {where} on {size[0]}×{size[1]}: {one_line(error)}"
                ) from error
    return recorder.graph


def _check_axis(graph: Graph, propagated: Propagated, axis: int, length: int) -> list[Checked]:
    leaf, *tensors = graph.tensors
    supports: dict[tuple[int, int], IntArray] = {}
    checked = []
    for step, tensor in zip(propagated.steps, tensors, strict=True):
        walk = describe(step).walks[axis]
        for unit in _units(walk, length):
            key = (id(tensor), unit)
            if key not in supports:
                supports[key] = _support(
                    tensor, step, axis, None if walk.jump is None else unit, leaf
                )
            if len(supports[key]):
                checked += _compared(step, axis, unit, walk, supports[key], length)
    return checked


def _units(walk: Walk, length: int) -> list[int]:
    """Choose units from the middle half of those that see no border, or else from all.

    The outermost may see the border of a map that was cropped, which is no border of the image.
    """
    sees = walk.low <= walk.high
    inside = np.flatnonzero(sees & (walk.low >= 0) & (walk.high < length))
    units = inside if len(inside) else np.flatnonzero(sees)
    places = (len(units) // 4, len(units) // 2, len(units) // 2 + 1, len(units) * 3 // 4)
    return sorted({int(units[place]) for place in places if place < len(units)})


def _support(tensor: Tensor, step: Step, axis: int, unit: int | None, leaf: Tensor) -> IntArray:
    """Return the pixels along the axis that reach any channel of the unit; None: of any unit."""
    chosen = tensor
    if unit is not None:
        dim = spatial_dim(step.field.axes[axis], step.field)
        assert dim is not None
        chosen = tensor.select(dim, unit)
    if not chosen.requires_grad:  # argmax and comparisons have no gradient
        return np.zeros(0, dtype=np.int64)
    try:
        (gradient,) = torch.autograd.grad(chosen.sum(), leaf, retain_graph=True)
    except RuntimeError as error:  # activation checkpointing runs the network again, unseen
        raise ModelError(
            f"the proof cannot take the gradient at {step.operation.name}: {one_line(error)}"
        ) from error
    return np.flatnonzero(gradient.abs().sum((0, 1, 3 - axis)).numpy())


def _compared(
    step: Step, axis: int, unit: int, walk: Walk, support: IntArray, length: int
) -> list[Checked]:
    """Compare one unit; what sees beyond the strip may miss its last pixels, and proves nothing."""
    low, high = int(walk.low[unit]), int(walk.high[unit])
    analytic = max(low, 0), min(high, length - 1)
    reached = int(support[0]), int(support[-1])
    within = analytic[0] <= reached[0] and reached[1] <= analytic[1]
    if analytic != (low, high) and within and reached != analytic:
        return []
    name = step.operation.name
    return [Checked(name, AXIS_NAMES[axis], unit, analytic, reached, len(support))]
