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

from cifar_cnn.analysis.additive_forms import REPLACEMENTS
from cifar_cnn.analysis.graph import Value
from cifar_cnn.analysis.names import POINTWISE, REDUCTIONS, SAME, WEIGHTED

PRODUCTS = {"matmul", "bmm", "mm", "addmm", "baddbmm", "einsum"}


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

    Tensors without part in the image count as zeros, in products as ones. Operations that the user
    vouches for are taken to be pointwise.
    """
    fill = 1.0 if op in PRODUCTS else 0.0
    args, kwargs = _constants_as((args, kwargs), inputs, fill)
    if op in REPLACEMENTS:
        weights = [tensor for value, tensor in _paired(inputs, (args, kwargs)) if value.depends][1:]
        result = REPLACEMENTS[op](*args, **kwargs)
        return result + sum(weight.mean() for weight in weights) if op in WEIGHTED else result
    if op in REDUCTIONS:
        return _mean(func, args, kwargs)
    if op in PRODUCTS:
        product = func(*args, **kwargs)
        return product / product.detach().max()
    if op in SAME:
        return args[0].contiguous()  # in the type it has
    if op in POINTWISE or op in vouched:
        return _sum(op, inputs, (args, kwargs))
    return func(*args, **kwargs)


def _mean(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Average what `func` would reduce, with a result of the same form."""
    like = func(*args, **kwargs)
    first = like if isinstance(like, Tensor) else like[0]
    others = [arg for arg in args[1:] if isinstance(arg, Tensor)]
    if others:  # the maximum of two tensors
        return sum(others, start=args[0])
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    mean = args[0].mean() if dim is None else args[0].mean(dim)
    reshaped = mean.reshape(first.shape)
    return reshaped if isinstance(like, Tensor) else type(like)((reshaped, *like[1:]))


def _sum(op: str, inputs: Any, arguments: Any) -> Tensor:
    tensors = list(_paired(inputs, arguments))
    shapes = [tensor.shape for value, tensor in tensors if value.depends or op != "prelu"]
    reached = [tensor for value, tensor in tensors if value.depends]
    total = reached[0]
    for tensor in reached[1:]:
        total = total + tensor
    shape = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return total if total.shape == shape else total.expand(shape)


def _paired(inputs: Any, arguments: Any) -> list[tuple[Value, Tensor]]:
    if isinstance(inputs, Value):
        return [(inputs, arguments)]
    if isinstance(inputs, dict):
        return [pair for key in inputs for pair in _paired(inputs[key], arguments[key])]
    if isinstance(inputs, tuple | list):
        matched = zip(inputs, arguments, strict=True)
        return [pair for some in matched for pair in _paired(*some)]
    return []


def _constants_as(arguments: Any, inputs: Any, fill: float) -> Any:
    """Return the arguments with each tensor that has nothing of the image filled with `fill`."""
    if isinstance(inputs, Value):
        if inputs.depends:
            return arguments
        return torch.full(inputs.shape, fill, dtype=torch.float64, device="cpu")
    if isinstance(inputs, dict):
        return {key: _constants_as(arguments[key], inputs[key], fill) for key in inputs}
    if isinstance(inputs, tuple | list):
        matched = zip(arguments, inputs, strict=True)
        items = [_constants_as(argument, value, fill) for argument, value in matched]
        return items if isinstance(inputs, list) else tuple(items)
    return arguments
