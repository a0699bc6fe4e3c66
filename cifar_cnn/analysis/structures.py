"""Structures that a budget may require, found in what the network does and not by class names."""

from collections.abc import Collection, Sequence

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.layers import row_of
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Kind, Step, Value, has_places, is_map_behind, used_steps
from cifar_cnn.errors import first_few

AVERAGES = {
    *("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
}
PRODUCTS = {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm"}
SCALES = {"div", "mul"}
JOINS = {"add", "sub", "mul"}
"""What adds a residual or applies a gate: the other side may come from anywhere."""


def candidates(run: Run) -> list[Call]:
    """Return the calls that may be part of a structure."""
    steps = (step for step in run.steps if step.filter is not None or _is_average(step))
    return list(dict.fromkeys(step.call for step in steps if step.call.name))


def find_structures(
    run: Run, output: Value, dead: Collection[Call] = ()
) -> dict[str, tuple[int, str]]:
    """Return how many of each structure the output depends on, and in which layers.

    `dead` calls do not count. If no pooling is global, the detail of `gap` describes one that
    averages only a part of its map.
    """
    steps = run.steps
    used = {i for i in used_steps(steps, output) if i >= 0 and steps[i].call not in dead}
    separable, dilated, pooled = [], [], []
    for index in sorted(used):
        step, name = steps[index], steps[index].call.name
        if _is_depthwise(step) and (pointwise := _pointwise_after(steps, index, used)):
            separable.append(f"{name} + {pointwise.call.name}")
        if _is_dilated(step):
            dilated.append(name)
        if _is_global_average(steps, index):
            pooled.append(name)
    layers = {"depthwise-separable": separable, "dilated": dilated, "gap": pooled}
    instead = "" if pooled else _partial_average(run, sorted(used))
    details = {name: first_few(each) or "no layer of this kind" for name, each in layers.items()}
    details["gap"] = instead or details["gap"]
    return {name: (len(each), details[name]) for name, each in layers.items()}


def _is_dilated(step: Step) -> bool:
    """Return whether it is a convolution, dilated along an axis where its kernel is above 1."""
    pairs = zip(step.outcome.window.kernel, step.outcome.window.dilation, strict=True)
    is_convolution = step.filter is not None and not step.filter.is_transposed
    return is_convolution and any(k > 1 < d for k, d in pairs)


def _is_depthwise(step: Step) -> bool:
    """Return whether it is a learned convolution of one input channel a group, kernel above 1."""
    weight = step.filter
    if weight is None or not weight.is_learned or len(weight.shape) != 4:
        return False
    return weight.is_by_channel and max(weight.shape[2:]) > 1


def _pointwise_after(steps: Sequence[Step], depthwise: int, used: Collection[int]) -> Step | None:
    """Return the pointwise convolution that the unmixed channels of a depthwise one reach.

    Between them anything may stand that works channel by channel, normalization, gates and
    residual additions too.
    """
    reached = {depthwise}
    for index in range(depthwise + 1, len(steps)):
        step = steps[index]
        read = [value.made in reached for value in step.inputs]
        if index not in used or not any(read):
            continue
        if read[0] and _is_pointwise(step):
            return step
        if _keeps_channels_apart(step, read):
            reached.add(index)
    return None


def _is_pointwise(step: Step) -> bool:
    """Return whether it mixes the channels of each place of a map, and nothing else."""
    field = step.inputs[0].field
    if step.filter is not None:
        channels = len(field.shape) - len(step.filter.shape[2:]) - 1
        is_plain = step.filter.groups == 1 and not step.filter.is_transposed
        is_product = is_plain and set(step.filter.shape[2:]) == {1}
    else:
        channels = len(field.shape) - 1
        is_product = step.op in PRODUCTS and len(step.inputs) == 1
    families = field.families
    others = [dim for dim in range(len(field.shape)) if dim != channels]
    is_map = any(family.varies_along(dim) for family in families for dim in others)
    return is_product and is_map and all(family.dim != channels for family in families)


def _keeps_channels_apart(step: Step, read: Sequence[bool]) -> bool:
    """Return whether the operation keeps the reached channels unmixed."""
    if step.kind == Kind.POINTWISE:
        return step.op in JOINS or all(read)
    if step.kind == Kind.MIXING:
        return False
    weight = step.filter
    return weight is None or (weight.is_by_channel and not weight.is_transposed)


def _is_average(step: Step) -> bool:
    return step.op in AVERAGES and not step.call.function.startswith("lp_pool")


def _is_global_average(steps: Sequence[Step], index: int) -> bool:
    """Return whether it leaves one place of a map, with no map behind it."""
    step = steps[index]
    is_average = _is_average(step) or (step.op == "sum" and _is_scaled(steps, index))
    if not is_average or not (step.outcome.covers or not has_places(step.field)):
        return False
    read = step.inputs[0].field
    varies = any(f.dim is not None or f.low.size > 1 for f in read.families)
    return varies and not is_map_behind(steps, index)


def _is_scaled(steps: Sequence[Step], index: int) -> bool:
    """Return whether a number scales the operands of a sum, or the sum itself."""
    before, after = {value.made for value in steps[index].inputs}, {index}
    for at, step in enumerate(steps):
        read = {value.made for value in step.inputs}
        if step.op in SCALES and len(read) == 1 and (at in before or after & read):
            return True
        if step.kind == Kind.MOVE and after & read:
            after.add(at)
    return False


def _partial_average(run: Run, used: Sequence[int]) -> str:
    """Describe the last average pooling; return "" if another window follows it."""
    for step in (run.steps[index] for index in reversed(used)):
        kernel = step.outcome.window.kernel
        if _is_average(step):
            height, width = row_of(run, step.call, Value(step.field, used[0])).output_size
            before = row_of(run, step.call, step.inputs[0]).output_size
            if step.op == "mean" and kernel == (1, 1):  # over one axis of two
                kernel = before[0] // height, before[1] // width
            if kernel == (1, 1):
                return ""
            return f"{step.call.name} pools {kernel[0]}×{kernel[1]} of {before[0]}×{before[1]}"
        if max(kernel) > 1:
            return ""
    return ""
