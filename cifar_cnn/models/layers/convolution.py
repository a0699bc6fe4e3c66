"""Convolution that is fast in bfloat16 training on a CPU where torch's own is slow."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 8
"""Channels that oneDNN's bfloat16 kernels take at once."""


class QuickConv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, in training on the CPU under bfloat16 autocast with gradients of its own.

    Images (N, C, H, W), output (N, C', H', W').

    Depthwise, one filter a channel: the gradient of the images is that of the same convolution
    written densely within every eight channels, with zeros between different ones. Torch's own
    takes thirty times as long there, and all channels written densely three to seven times.

    With a stride: the gradient of the weights is one product of matrices, of the output's gradient
    and the windows that the outputs came from, laid out in rows (im2col; Chellapilla, Puri and
    Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006). It
    takes three quarters of the time of torch's own on a processor without matrix units.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's names
        bf16_training = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        if not (input.device.type == "cpu" and bf16_training and self._is_slow()):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        bias = None if bias is None else bias.bfloat16()
        options = (self.stride, self.padding, self.dilation, self.groups)
        with torch.autocast("cpu", enabled=False):
            filtered: Tensor = _QuickGradients.apply(
                input.bfloat16(), weight.bfloat16(), bias, options
            )
        return filtered

    def _is_slow(self) -> bool:
        depthwise = self.groups == self.in_channels == self.out_channels
        strided = self.groups == 1 and max(self.stride) > 1
        return (depthwise or strided) and self.padding_mode == "zeros"


class _QuickGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, options: Any
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.options = options
        return F.conv2d(images, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        (gradient,) = gradients
        images, weight = ctx.saved_tensors
        *window, groups = ctx.options
        of_which = ctx.needs_input_grad
        backward = torch.ops.aten.convolution_backward
        dense, blocks = (weight, 1) if groups == 1 else _dense(weight)
        of_images = backward(
            *(gradient, images, dense, None, *window, False, [0, 0], blocks),
            [of_which[0], False, False],
        )[0]
        if groups == 1:
            rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
            of_weight = rows.t() @ _windows(images, gradient.shape, weight.shape, *window)
            of_weight = of_weight.view(weight.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
            of_bias = rows.sum(0) if of_which[2] else None
        else:
            _, of_weight, of_bias = backward(
                *(gradient, images, weight, [groups], *window, False, [0, 0], groups),
                [False, True, of_which[2]],
            )
        return of_images, of_weight, of_bias, None


def _dense(weight: Tensor) -> tuple[Tensor, int]:
    """Return depthwise weights (C, 1, kh, kw) as those (C, C/g, kh, kw) of g groups, and g."""
    channels = len(weight)
    groups = channels // _BLOCK if channels % _BLOCK == 0 else 1
    together = channels // groups
    dense = weight.new_zeros(groups, together, together, *weight.shape[2:])
    own = weight.view(groups, together, *weight.shape[2:])
    dense.diagonal(dim1=1, dim2=2).copy_(own.movedim(1, -1))
    return dense.flatten(0, 1).contiguous(memory_format=torch.channels_last), groups


def _windows(
    images: Tensor,
    output: torch.Size,
    kernel: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Return the input window of each output pixel, (N·H'·W', kh·kw·C)."""
    count, channels = images.shape[:2]
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    image, channel, row, column = padded.stride()
    between_outputs = (row * stride[0], column * stride[1])
    between_taps = (row * dilation[0], column * dilation[1])
    windows = padded.as_strided(
        (count, *output[2:], *kernel[2:], channels),
        (image, *between_outputs, *between_taps, channel),
    )
    return windows.flatten(0, 2).flatten(1)
