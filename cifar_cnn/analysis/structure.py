"""Structures that a budget may require, found on the graph and not by class names."""

from dataclasses import dataclass

from cifar_cnn.analysis.graph import Graph
from cifar_cnn.analysis.pooling import global_average_pooling, partial_pooling
from cifar_cnn.analysis.propagate import Propagated, Step
from cifar_cnn.analysis.receptive_field import used_values
from cifar_cnn.analysis.separable import depthwise_separable


@dataclass(frozen=True)
class Sighting:
    """Where a structure is; `instead` says what comes near to it where it is not."""

    layers: list[str]
    instead: str = ""


def find_structures(graph: Graph, propagated: Propagated) -> dict[str, Sighting]:
    """Look for every structure in what the output depends on."""
    used = used_values(graph)
    steps = [step for step in propagated.steps if used & set(step.operation.outputs)]
    fields = propagated.fields
    pooled = global_average_pooling(steps, fields)
    return {
        "depthwise-separable": Sighting(depthwise_separable(steps, fields)),
        "dilated": Sighting(dilated(steps)),
        "gap": Sighting(pooled, "" if pooled else partial_pooling(steps, fields)),
    }


def dilated(steps: list[Step]) -> list[str]:
    """Find convolutions with dilation above 1 along an axis where the kernel is above 1."""
    return [
        step.operation.name
        for step in steps
        if step.operation.op == "conv2d"
        and any(k > 1 < d for k, d in zip(step.window.kernel, step.window.dilation, strict=True))
    ]
