"""Additive forms of single operations: means in place of weights, maxima and attention."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Replacement = Callable[..., Any]


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
    return _repeat_channels(out, weight.shape[0] // groups, rank)


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
    return _repeat_channels(out, weight.shape[1], rank)


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


def normalization(x: Tensor, *_: object, **__: object) -> Tensor:
    """Let the map through."""
    return x.clone()


REPLACEMENTS: dict[str, Replacement] = {
    "batch_norm": normalization,
    "instance_norm": normalization,
    "layer_norm": normalization,
    "group_norm": normalization,
    "rms_norm": normalization,
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


def _repeat_channels(x: Tensor, times: int, rank: int) -> Tensor:
    """Return each channel `times` times; a map of `rank` dimensions lies behind the channels."""
    behind = x.dim() - rank
    repeated = x.unsqueeze(behind).expand(*x.shape[:behind], times, *x.shape[behind:])
    return repeated.flatten(behind - 1, behind)
