"""Depthwise-separable convolutions: a learned depthwise one whose channels a 1×1 one mixes."""

import inspect
from collections.abc import Mapping
from typing import Any

from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.graph import Operation, Value, leaves
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.operations.convolution import convolution
from cifar_cnn.analysis.operations.entry import Kind
from cifar_cnn.analysis.propagate import Step

Fields = Mapping[Value, Field]
JOINS = {"add", "sub", "subtract", "mul", "multiply"}
"""What adds a residual or applies a gate: the other side may come from anywhere."""
LIKE_ANOTHER = {"type_as", "to", "view_as", "reshape_as", "expand_as"}
"""What changes the first tensor's form into that of another, of which it reads nothing else."""
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}


def depthwise_separable(steps: list[Step], fields: Fields) -> list[str]:
    """Find depthwise convolutions whose output reaches a pointwise one with its channels unmixed.

    Depthwise: learned, one input channel a group, kernel above 1. Pointwise: a 1×1 convolution of
    one group, or a linear layer over channels. Between them anything may stand that works channel
    by channel, normalization, gates and residual additions too.
    """
    operations = [step.operation for step in steps]
    found = []
    for index, operation in enumerate(operations):
        if _is_depthwise(operation):
            pointwise = _pointwise_after(operation, operations[index + 1 :], fields)
            found += [f"{operation.name} + {pointwise.name}"] if pointwise else []
    return found


def _is_depthwise(operation: Operation) -> bool:
    if operation.op != "conv2d":
        return False
    weight = _arguments(operation)["weight"]
    is_learned = isinstance(weight, Value) and weight.learned
    return bool(is_learned and _is_by_channel(operation) and max(weight.shape[2:]) > 1)


def _pointwise_after(
    depthwise: Operation, later: list[Operation], fields: Fields
) -> Operation | None:
    reached = set(depthwise.outputs)
    for operation in later:
        if reached.isdisjoint(operation.inputs):
            continue
        if _is_pointwise(operation, reached, fields):
            return operation
        if _keeps_channels_apart(operation, reached):
            reached.update(operation.outputs)
    return None


def _is_pointwise(operation: Operation, reached: set[Value], fields: Fields) -> bool:
    """Whether it mixes the channels of each place of a map, and nothing else."""
    data = operation.args[0] if operation.args else None
    if not isinstance(data, Value) or data not in reached:
        return False
    rank = len(data.shape)
    if operation.op in CONVOLUTIONS:
        arguments = _arguments(operation)
        channels = rank - len(arguments["weight"].shape[2:]) - 1
        is_product = arguments["groups"] == 1 and set(arguments["weight"].shape[2:]) == {1}
    else:
        channels = rank - 1
        is_product = operation.op in {"linear", "matmul"} and len(operation.inputs) == 1
    families = [family for axis in fields[data].axes for family in axis]
    walks_along_channels = any(family.dim == channels for family in families)
    others = [dim for dim in range(rank) if dim != channels]
    is_map = any(f.dim in others or f.low.shape[dim] > 1 for f in families for dim in others)
    return bool(is_product and is_map and not walks_along_channels)


def _keeps_channels_apart(operation: Operation, reached: set[Value]) -> bool:
    """Whether each channel that was reached is still one behind the operation."""
    data = {leaf for leaf in leaves(operation.args[:1]) if isinstance(leaf, Value)}
    if operation.op in LIKE_ANOTHER:
        return not reached.isdisjoint(data)
    entry = OPERATIONS.get(operation.op)
    if entry is None or entry.kind == Kind.ELEMENT_WISE:  # or the user vouches that it is
        return operation.op in JOINS or reached.issuperset(operation.inputs)
    if reached.isdisjoint(data) or entry.kind == Kind.MIXING:
        return False
    if operation.op.startswith("conv"):
        return operation.op in CONVOLUTIONS and _is_by_channel(operation)
    return True


def _is_by_channel(convolved: Operation) -> bool:
    arguments = _arguments(convolved)
    return bool(arguments["groups"] > 1 and arguments["weight"].shape[1] == 1)


def _arguments(convolved: Operation) -> dict[str, Any]:
    bound = inspect.signature(convolution).bind(None, *convolved.args, **convolved.kwargs)
    bound.apply_defaults()
    return bound.arguments
