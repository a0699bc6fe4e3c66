"""The same network with every operation made additive, to see what its units really read.

Weights are positive and equal (a convolution is a mean over its channels and taps, so that nothing
underflows), biases are left out, activations and normalizations pass through, maxima, products and
attention become means. Then a gradient cannot vanish or cancel: it is positive exactly where a path
leads. Weights themselves are never read, only their shapes, so that they need no memory.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from cifar_cnn.analysis.graph import Value, leaves
from cifar_cnn.analysis.operations import OPERATIONS, entry_of


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
    args, kwargs = _constants_as_ones((args, kwargs), inputs)
    result = entry.additive(func, *args, **kwargs)
    if entry.weighted:
        for leaf in leaves((args[1:], kwargs)):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                result = result + leaf.mean()
    return result


def _constants_as_ones(arguments: Any, inputs: Any) -> Any:
    """Return the arguments with ones in each tensor of numbers that has nothing of the image."""
    if isinstance(inputs, Value):
        if inputs.numbers is not None:
            return torch.as_tensor(inputs.numbers, device="cpu")
        if inputs.depends or not arguments.is_floating_point():
            return arguments
        return torch.ones(inputs.shape, dtype=torch.float64, device="cpu")
    if isinstance(inputs, dict):
        return {key: _constants_as_ones(arguments[key], inputs[key]) for key in inputs}
    if isinstance(inputs, tuple | list):
        matched = zip(arguments, inputs, strict=True)
        items = [_constants_as_ones(argument, value) for argument, value in matched]
        return items if isinstance(inputs, list) else tuple(items)
    return arguments
