"""The depthwise convolution, made quick in bfloat16 on the CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 8
"""Channels that oneDNN's bfloat16 kernels take at once."""


def depthwise_conv2d(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Return `conv(images)` for a convolution of each channel by itself.

    Images (N, C, H, W), output (N, C, H', W'). In training on the CPU under bfloat16 autocast the
    gradient of the images is that of the same convolution written densely within every eight
    channels, with zeros between different ones: torch's own depthwise one takes thirty times as
    long there, and all channels written densely three to seven times.
    """
    on_cpu = images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if not on_cpu or not torch.is_grad_enabled():
        out: Tensor = conv(images)
        return out
    assert conv.bias is not None
    weight, bias = conv.weight.bfloat16(), conv.bias.bfloat16()
    options = (conv.stride, conv.padding, conv.dilation, conv.groups)
    with torch.autocast("cpu", enabled=False):
        filtered: Tensor = _DenseGradient.apply(images.bfloat16(), weight, bias, options)
    return filtered


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, options: Any) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.options = options
        return F.conv2d(images, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (gradient,) = gradients
        images, weight = ctx.saved_tensors
        (stride, padding, dilation, groups) = ctx.options
        blocks = groups // _BLOCK if groups % _BLOCK == 0 else 1
        more = (stride, padding, dilation, False, [0, 0])
        backward = torch.ops.aten.convolution_backward
        of_images = backward(
            gradient, images, _dense(weight, blocks), None, *more, blocks, [True, False, False]
        )[0]
        _, of_weight, of_bias = backward(
            gradient, images, weight, [groups], *more, groups, [False, True, True]
        )
        return of_images, of_weight, of_bias, None


def _dense(weight: Tensor, blocks: int) -> Tensor:
    """Return weights (C, 1, kh, kw) as those (C, C/blocks, kh, kw) of so many groups."""
    channels = len(weight)
    together = channels // blocks
    dense = weight.new_zeros(blocks, together, together, *weight.shape[2:])
    own = weight.view(blocks, together, *weight.shape[2:])
    dense.diagonal(dim1=1, dim2=2).copy_(own.movedim(1, -1))
    return dense.flatten(0, 1).contiguous(memory_format=torch.channels_last)
