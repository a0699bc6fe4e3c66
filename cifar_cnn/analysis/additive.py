"""The same network with every operation made additive, to see what its units really read.

Weights are positive and equal (a convolution is a mean over its channels and taps, so that nothing
underflows), biases are left out, activations and normalizations pass through, maxima, products and
attention become means. Then a gradient cannot vanish or cancel: it is positive exactly where a path
leads. Weights themselves are never read, only their shapes, so that they need no memory. In such a
run each operation stands alone, for the proof to look at.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.analysis.graph import Graph, Value, convert, leaves
from cifar_cnn.analysis.operations import OPERATIONS, entry_of
from cifar_cnn.analysis.recorder import Recorder
from cifar_cnn.analysis.trace import evaluating, trace
from cifar_cnn.errors import ModelError, one_line


def additive(
    op: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    inputs: Any,
    *,
    vouched: Collection[str] = (),
) -> Any:
    """Run one operation in its additive form; `inputs` says which tensors the image has a part in.

    Numbers in tensors without part in the image count as ones. Operations that
    the user vouches for are taken to be pointwise.
    """
    if op not in OPERATIONS and op not in vouched:  # a question: its size, its dimensions
        return func(*args, **kwargs)
    entry = entry_of(op, vouched)
    args, kwargs = convert(inputs, _as_ones, (args, kwargs))
    result = entry.additive(func, *args, **kwargs)
    if entry.weighted:
        for leaf in leaves((args[1:], kwargs)):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                result = result + leaf.mean()
    return result


def _as_ones(given: object, argument: Any) -> Any:
    """Return ones for a tensor of numbers that has nothing of the image."""
    if not isinstance(given, Value):
        return argument
    if given.numbers is not None:
        return torch.as_tensor(given.numbers, device="cpu")
    if given.depends or not argument.is_floating_point():
        return argument
    return torch.ones(given.shape, dtype=torch.float64, device="cpu")


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

        def cut(given: object, argument: Any) -> Any:
            """Return a tensor that has something of the image without its past."""
            if not (isinstance(given, Value) and given.depends and argument.is_floating_point()):
                return argument
            leaf = argument.detach().requires_grad_()
            sources.append((given, leaf))
            return leaf.view_as(leaf)  # a leaf may not be written to

        wants_gradient = torch.is_grad_enabled()
        with torch.enable_grad(), _saved_as_usual():
            cut_args, cut_kwargs = convert(inputs, cut, (args, kwargs))
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


def _passed_on(leaf: Any, *, wants_gradient: bool) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    fresh = leaf.detach()
    if wants_gradient and leaf.requires_grad:  # a network may ask, and hook onto it
        return fresh.requires_grad_().clone()
    return fresh
