"""A run of the additive network in which each operation stands alone, for the proof to look at."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.analysis.additive import additive
from cifar_cnn.analysis.graph import Graph, Value, convert, leaves
from cifar_cnn.analysis.recorder import Recorder
from cifar_cnn.analysis.trace import evaluating, trace
from cifar_cnn.errors import ModelError, one_line


@dataclass(frozen=True)
class Ran:
    """One operation of the additive network, cut off from those before it."""

    sources: list[tuple[Value, Tensor]]
    results: list[Tensor]


def run_additive(
    module: nn.Module,
    size: tuple[int, int],
    known: Collection[str],
    vouched: Collection[str],
) -> tuple[Graph, list[Ran]]:
    """Run the additive network on `size`; return its graph, and each of its operations.

    A layer made for another size may end the run where it ends the network's own on that size.
    """
    ran: list[Ran] = []

    def run_alone(op: str, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        """Run one operation on copies without a past; what goes on has no past either."""
        if func.__name__ == "__get__" and not isinstance(got := func(*args, **kwargs), Tensor):
            return got
        sources: list[tuple[Value, Tensor]] = []
        wants_gradient = torch.is_grad_enabled()
        with torch.enable_grad(), _saved_as_usual():
            cut_args, cut_kwargs = _cut((args, kwargs), inputs, sources)
            result = additive(op, func, cut_args, cut_kwargs, inputs, vouched=vouched)
        results = [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]
        if results:
            ran.append(Ran(sources, results))
        return convert(result, lambda leaf: _passed_on(leaf, wants_gradient=wants_gradient))

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    expected = len(trace(module, size, known, partial=True).operations)
    with evaluating(module), torch.enable_grad():
        image = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True).clone()
        recorder = Recorder(module, image, known, run_alone)
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
    return recorder.graph, ran


def _saved_as_usual() -> Any:
    """Keep activation checkpointing from holding back what the gradient of one operation needs."""
    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved)


def _cut(arguments: Any, inputs: Any, sources: list[tuple[Value, Tensor]]) -> Any:
    """Return the arguments with each tensor that has something of the image cut from its past."""
    if isinstance(inputs, Value):
        if not inputs.depends or not arguments.is_floating_point():
            return arguments
        leaf = arguments.detach().requires_grad_()
        sources.append((inputs, leaf))
        return leaf.view_as(leaf)  # a leaf may not be written to
    if isinstance(inputs, dict):
        return {key: _cut(arguments[key], inputs[key], sources) for key in inputs}
    if isinstance(inputs, tuple | list):
        items = [_cut(a, i, sources) for a, i in zip(arguments, inputs, strict=True)]
        return items if isinstance(inputs, list) else tuple(items)
    return arguments


def _passed_on(leaf: Any, *, wants_gradient: bool) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    fresh = leaf.detach()
    if wants_gradient and leaf.requires_grad:  # a network may ask, and hook onto it
        return fresh.requires_grad_().clone()
    return fresh
