"""Global average pooling, however it is written, and what only looks like it."""

from collections.abc import Mapping

from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.field_layout import reduce
from cifar_cnn.analysis.graph import Operation, Value
from cifar_cnn.analysis.layers import describe, spatial_dim
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.operations.entry import Kind
from cifar_cnn.analysis.propagate import Step

Fields = Mapping[Value, Field]
AVERAGES = {
    *(f"{kind}avg_pool{rank}d" for kind in ("", "adaptive_") for rank in (1, 2, 3)),
    *("mean", "nanmean"),
}
SUMS = {"sum", "einsum"}
"""Averages if what they sum, or their sum, is scaled by a number."""
SCALES = {"div", "divide", "true_divide", "truediv", "mul", "multiply"}


def global_average_pooling(steps: list[Step], fields: Fields) -> list[str]:
    """Find averages that leave one place of a map, with no map behind them."""
    found = []
    for index, step in enumerate(steps):
        operation = step.operation
        is_average = operation.op in AVERAGES or (
            operation.op in SUMS and _is_scaled(operation, steps)
        )
        if not is_average or has_places(step.field):
            continue
        if _varies(fields[operation.inputs[0]]) and not _map_behind(operation, steps[index + 1 :]):
            found.append(operation.name)
    return found


def partial_pooling(steps: list[Step], fields: Fields) -> str:
    """Say what the last average pools of its map, if no window but its own comes behind it."""
    for step in reversed(steps):
        (height, width), kernel = describe(step).output_size, step.window.kernel
        if step.operation.op in AVERAGES:
            before = _sides(fields[step.operation.inputs[0]])
            if step.operation.op in {"mean", "nanmean"}:  # over one axis of two
                kernel = before[0] // height, before[1] // width
            if kernel == (1, 1):
                return ""
            return f"{step.operation.name} pools {kernel[0]}×{kernel[1]} of {before[0]}×{before[1]}"
        if max(kernel) > 1:
            return ""
    return ""


def _sides(field: Field) -> tuple[int, int]:
    rows, columns = (spatial_dim(axis, field) for axis in field.axes)
    return (field.shape[rows] if rows else 1, field.shape[columns] if columns else 1)


def has_places(field: Field) -> bool:
    """Whether elements of one channel see different places."""
    if any(family.dim is not None for axis in field.axes for family in axis):
        return True
    merged = reduce(field, [1]) if len(field.shape) > 1 else field
    return _varies(merged)


def _varies(field: Field) -> bool:
    families = [family for axis in field.axes for family in axis]
    return any(family.dim is not None or family.low.size > 1 for family in families)


def _is_scaled(summed: Operation, steps: list[Step]) -> bool:
    """Whether what it sums, or its sum, is next multiplied or divided by a number."""
    before, after = set(summed.inputs), set(summed.outputs)
    for step in steps:
        operation = step.operation
        is_scale = operation.op in SCALES and len(operation.inputs) == 1
        if is_scale and (before & set(operation.outputs) or after & set(operation.inputs)):
            return True
        entry = OPERATIONS.get(operation.op)
        if entry and entry.kind == Kind.SHAPE and after & set(operation.inputs):
            after.update(operation.outputs)
    return False


def _map_behind(operation: Operation, later: list[Step]) -> bool:
    reached = set(operation.outputs)
    for step in later:
        if reached & set(step.operation.inputs):
            if has_places(step.field):
                return True
            reached.update(step.operation.outputs)
    return False
