"""The same network with every operation made additive, to see what its units really read.

Weights are positive and equal (a convolution is a mean over its channels and taps, so that nothing
underflows), biases are left out, activations and normalisations pass through, maxima, products and
attention become means. Then a gradient cannot vanish or cancel: it is positive exactly where a path
leads. Weights themselves are never read, only their shapes, so that they need no memory.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.analysis.graph import Value
from cifar_cnn.analysis.names import POINTWISE, REDUCTIONS, SAME

Replacement = Callable[..., Any]
ONE_SHAPE = {"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm", "prelu"}
"""Operations whose parameters are not broadcast against the map."""
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
        return REPLACEMENTS[op](*args, **kwargs)
    if op in REDUCTIONS:
        return _mean(func, args, kwargs)
    if op in PRODUCTS:
        product = func(*args, **kwargs)
        return product / product.detach().max()
    if op in SAME:
        return args[0].contiguous()  # in the type it has
    if op in POINTWISE or op in ONE_SHAPE or op in vouched:
        return _sum(op, inputs, (args, kwargs))
    return func(*args, **kwargs)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Average each group's channels, then each window; all channels of a group are alike."""
    rank = weight.dim() - 2
    grouped = _group_means(x, groups, rank)
    ones = x.new_ones(groups, 1, *weight.shape[2:]) / weight[0, 0].numel()
    convolve = F.conv2d if rank == 2 else F.conv1d
    out = convolve(grouped, ones, None, stride, padding, dilation, groups)
    return _repeat_channels(out, weight.shape[0] // groups)


def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Average each group's channels, then spread them evenly over each window."""
    rank = weight.dim() - 2
    grouped = _group_means(x, groups, rank)
    ones = x.new_ones(groups, 1, *weight.shape[2:]) / weight[0, 0].numel()
    convolve = F.conv_transpose2d if rank == 2 else F.conv_transpose1d
    out = convolve(grouped, ones, None, stride, padding, output_padding, groups, dilation)
    return _repeat_channels(out, weight.shape[1])


def max_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
    return_indices: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Average each window of a maximum's."""
    rank = x.dim() - 2
    pool = F.max_pool2d if rank == 2 else F.max_pool1d
    like = pool(x.detach(), kernel_size, stride, padding, dilation, ceil_mode)
    kernel = [kernel_size] * rank if isinstance(kernel_size, int) else list(kernel_size)
    stride = stride or kernel
    ones = x.new_ones(x.shape[1], 1, *kernel) / sum(kernel)
    most = stride if isinstance(stride, int) else max(stride)
    beyond = F.pad(x, [0, most] * rank)  # what ceil_mode reads beyond the map is nothing
    convolve = F.conv2d if rank == 2 else F.conv1d
    out = convolve(beyond, ones, None, stride, padding, dilation, x.shape[1])
    for dim, size in enumerate(like.shape[2:], start=2):
        out = out.narrow(dim, 0, size)
    return (out, torch.zeros_like(out, dtype=torch.long)) if return_indices else out


def lp_pool(
    x: Tensor,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Average each window of a p-norm's."""
    return max_pool(x, kernel_size, stride, 0, 1, ceil_mode)


def adaptive_pool(
    x: Tensor,
    output_size: Any,
    return_indices: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Average each bin."""
    pool = F.adaptive_avg_pool2d if x.dim() == 4 else F.adaptive_avg_pool1d
    out = pool(x, output_size)
    return (out, torch.zeros_like(out, dtype=torch.long)) if return_indices else out


def pad(x: Tensor, pad: Sequence[int], *_: object, **__: object) -> Tensor:
    """Put nothing around the map."""
    return F.pad(x, list(pad))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Average the last dimension, whatever its size."""
    return x.mean(-1, keepdim=True).expand(*x.shape[:-1], weight.shape[0])


def spread(x: Tensor, dim: int, *_: object, **__: object) -> Tensor:
    """Average `dim` into each of its units."""
    return x.mean(dim, keepdim=True).expand(x.shape)


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, *_: object, **__: object) -> Tensor:
    """Average `dim` into each of its units."""
    return spread(x, dim)


def attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
    """Average all keys and values into each query's place."""
    shape = (*query.shape[:-1], value.shape[-1])
    scores = query.mean(-1, keepdim=True) + key.mean((-1, -2), keepdim=True)
    return (scores + value.mean(-2, keepdim=True)).expand(shape)


def multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object
) -> tuple[Tensor, None]:
    """Average all keys and values into each query's place; sequences are the first dimension."""
    mixed = query.mean(-1, keepdim=True) + (key + value).mean((0, -1), keepdim=True)
    return mixed.expand(query.shape), None


def norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, **_: object) -> Tensor:  # noqa: FBT001, FBT002
    """Average what a norm is taken of."""
    return x.mean() if dim is None else x.mean(dim, keepdim)


def view(x: Tensor, *shape: Any) -> Tensor:
    """Reshape: repeated channels are not laid out as the network's own are."""
    return x.reshape(*shape)


def gated_halves(x: Tensor, dim: int = -1) -> Tensor:
    """Add both halves."""
    first, second = x.chunk(2, dim)
    return first + second


REPLACEMENTS: dict[str, Replacement] = {
    "conv1d": convolution,
    "conv2d": convolution,
    "conv_transpose1d": transposed_convolution,
    "conv_transpose2d": transposed_convolution,
    "max_pool1d": max_pool,
    "max_pool2d": max_pool,
    "max_pool2d_with_indices": max_pool,
    "lp_pool1d": lp_pool,
    "lp_pool2d": lp_pool,
    "adaptive_max_pool1d": adaptive_pool,
    "adaptive_max_pool2d": adaptive_pool,
    "adaptive_max_pool2d_with_indices": adaptive_pool,
    "pad": pad,
    "linear": linear,
    "softmax": spread,
    "log_softmax": spread,
    "softmin": spread,
    "normalize": normalize,
    "norm": norm,
    "linalg_vector_norm": norm,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head_attention,
    "view": view,
    "glu": gated_halves,
}


def _group_means(x: Tensor, groups: int, rank: int) -> Tensor:
    return x.reshape(*x.shape[: -rank - 1], groups, -1, *x.shape[-rank:]).mean(-rank - 1)


def _repeat_channels(x: Tensor, times: int) -> Tensor:
    """Return each channel `times` times, (N, C, …) to (N, C·times, …), without copying."""
    return x.unsqueeze(2).expand(-1, -1, times, *x.shape[2:]).flatten(1, 2)


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
    shapes = [tensor.shape for value, tensor in tensors if value.depends or op not in ONE_SHAPE]
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
