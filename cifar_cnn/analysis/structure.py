"""Structures that a budget may require, found on the graph and not by class names."""

import inspect
from collections.abc import Callable
from typing import Any

from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.field_layout import reduce
from cifar_cnn.analysis.graph import Graph, Operation, Value
from cifar_cnn.analysis.operations import kind_of
from cifar_cnn.analysis.operations.entry import Kind
from cifar_cnn.analysis.operations.window import convolution
from cifar_cnn.analysis.propagate import Propagated, Step
from cifar_cnn.analysis.receptive_field import used_values

AVERAGES = ("avg_pool2d", "adaptive_avg_pool2d", "mean")
BETWEEN = (Kind.ELEMENT_WISE, Kind.NORMALIZATION)
"""What may stand between a depthwise and a pointwise convolution."""


def depthwise_separable(graph: Graph, propagated: Propagated) -> list[str]:
    """Find depthwise convolutions followed, but for norm and activation, by a pointwise one.

    Depthwise: groups = input channels = output channels, kernel above 1. Pointwise: 1×1, one group.
    """
    operations = _used(graph, propagated)
    found = []
    for index, operation in enumerate(operations):
        if _is_depthwise(operation):
            pointwise = _pointwise_after(operation, operations[index + 1 :])
            found += [f"{operation.name} + {pointwise.name}"] if pointwise else []
    return found


def dilated(graph: Graph, propagated: Propagated) -> list[str]:
    """Find convolutions with dilation above 1 along an axis where the kernel is above 1."""
    return [
        step.operation.name
        for step in _used_steps(graph, propagated)
        if step.operation.op == "conv2d"
        and any(k > 1 < d for k, d in zip(step.window.kernel, step.window.dilation, strict=True))
    ]


def global_average_pooling(graph: Graph, propagated: Propagated) -> list[str]:
    """Find poolings and means that leave one place of a map, with no map behind them."""
    steps = _used_steps(graph, propagated)
    found = []
    for index, step in enumerate(steps):
        operation = step.operation
        if operation.op not in AVERAGES or _places(step.field):
            continue
        if _places(propagated.fields[operation.inputs[0]]) and not _map_behind(
            operation, steps[index + 1 :]
        ):
            found.append(operation.name)
    return found


Detector = Callable[[Graph, Propagated], list[str]]
DETECTORS: dict[str, Detector] = {
    "depthwise-separable": depthwise_separable,
    "dilated": dilated,
    "gap": global_average_pooling,
}


def _used_steps(graph: Graph, propagated: Propagated) -> list[Step]:
    used = used_values(graph)
    return [step for step in propagated.steps if used & set(step.operation.outputs)]


def _used(graph: Graph, propagated: Propagated) -> list[Operation]:
    return [step.operation for step in _used_steps(graph, propagated)]


def _convolution(operation: Operation) -> dict[str, Any] | None:
    if operation.op != "conv2d":
        return None
    bound = inspect.signature(convolution).bind(None, *operation.args, **operation.kwargs)
    bound.apply_defaults()
    return bound.arguments


def _is_depthwise(operation: Operation) -> bool:
    arguments = _convolution(operation)
    if arguments is None or not isinstance(arguments["weight"], Value):
        return False
    outputs, inputs_of_group, *kernel = arguments["weight"].shape
    groups = arguments["groups"]
    return bool(groups > 1 and groups == outputs and inputs_of_group == 1 and max(kernel) > 1)


def _pointwise_after(depthwise: Operation, later: list[Operation]) -> Operation | None:
    reached = set(depthwise.outputs)
    for operation in later:
        if not operation.inputs or not reached.issuperset(operation.inputs):
            continue
        arguments = _convolution(operation)
        if arguments is not None:
            if arguments["groups"] == 1 and tuple(arguments["weight"].shape[2:]) == (1, 1):
                return operation
        elif kind_of(operation.op) in BETWEEN:
            reached.update(operation.outputs)
    return None


def _places(field: Field) -> bool:
    """Whether elements of one channel see different places."""
    if any(family.dim is not None for axis in field.axes for family in axis):
        return True
    merged = reduce(field, [1]) if len(field.shape) > 1 else field
    return any(family.low.size > 1 for axis in merged.axes for family in axis)


def _map_behind(operation: Operation, later: list[Step]) -> bool:
    reached = set(operation.outputs)
    for step in later:
        if reached & set(step.operation.inputs):
            if _places(step.field):
                return True
            reached.update(step.operation.outputs)
    return False
