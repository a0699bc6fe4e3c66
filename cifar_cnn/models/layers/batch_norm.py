"""Batch normalization that is fast for few channels on a CPU."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LANES = 32
"""Numbers of two bytes in the widest vector (512 bits)."""
_LINE = 16
"""Sums of four bytes in a line of the cache."""
_NOTHING = 1e-30
"""An epsilon that changes nothing when added to 1; some versions of torch refuse 0."""


class QuickBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that trains fast on a CPU for any number of channels.

    Maps (N, C, H, W), floating point. For channels-last maps torch's own keeps one row of C sums
    for each thread; where C is not a multiple of 16, rows of two threads share a line of the
    cache, and its backward pass is slower on two threads than on one. Here several neighboring
    pixels are taken as one with so many times the channels, and their sums added up afterwards.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Return the normalized maps; in training, running statistics follow."""
        if not self._is_narrow(input):
            return super().forward(input)
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        output, mean, variance = _NarrowBatchNorm.apply(input, self.weight, self.bias, self.eps)
        count = input.numel() // self.num_features
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normalized: Tensor = output
        return normalized

    def _is_narrow(self, maps: Tensor) -> bool:
        return (
            self.training
            and maps.device.type == "cpu"
            and self.num_features % _LINE != 0
            and maps.shape[-2:].numel() % _pixels_at_once(self.num_features) == 0
            and maps.is_contiguous(memory_format=torch.channels_last)
        )


class _NarrowBatchNorm(torch.autograd.Function):
    """Returns the maps, their mean and their variance. Source: Ioffe and Szegedy (2015), figure 1.

    With x the maps, n numbers of each channel, μ and σ² their mean and variance, g and h the
    weight and bias, s = 1/√(σ² + ε) and y = g·s·(x - μ) + h, the gradients for those of y, dy, are
    dh = Σ dy, dg = s·Σ dy·(x - μ) and dx = g·s·(dy - dh/n - s·(x - μ)·dg/n).
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _widen(maps)
        unused = weight.new_zeros(2, wide.shape[1])  # running ones, whose type the results have
        means, variances = torch.batch_norm_update_stats(wide, unused[0], unused[1], 0.0)
        means, variances = means.view(-1, len(weight)), variances.view(-1, len(weight))
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(maps, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        return _narrow(_affine(wide, mean, weight * scale, bias), maps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None]:
        maps, weight, mean, scale = ctx.saved_tensors
        assert gradients[0] is not None
        x, dy = _widen(maps), _widen(gradients[0].contiguous(memory_format=torch.channels_last))
        times = x.shape[1] // len(mean)
        tiled = mean.repeat(times)
        _, products, sums = torch.ops.aten.native_batch_norm_backward(
            dy, x, None, tiled, torch.ones_like(tiled), None, None, False, 0.0, [False, True, True]
        )
        of_weight = products.view(-1, len(mean)).sum(0) * scale
        of_bias = sums.view(-1, len(mean)).sum(0)
        count, factor = maps.numel() // len(mean), weight * scale
        slope = (-factor * scale * of_weight / count).to(x.dtype)
        dx = _affine(dy, of_bias / count, factor, -slope * mean)
        dx.addcmul_(x, slope.repeat(times).view(1, -1, 1, 1))
        return _narrow(dx, maps), of_weight, of_bias, None


def _pixels_at_once(channels: int) -> int:
    return _LANES // math.gcd(channels, _LANES)


def _widen(maps: Tensor) -> Tensor:
    """Return channels-last maps (N, C, H, W) as (N, k·C, H·W/k, 1), the same memory."""
    count, channels, height, width = maps.shape
    together = _pixels_at_once(channels)
    pixels = maps.permute(0, 2, 3, 1)
    wide = pixels.view(count, height * width // together, 1, channels * together)
    return wide.permute(0, 3, 1, 2)


def _narrow(wide: Tensor, maps: Tensor) -> Tensor:
    """Undo `_widen`: return `wide` in the shape of `maps`."""
    count, channels, height, width = maps.shape
    return wide.permute(0, 2, 3, 1).view(count, height, width, channels).permute(0, 3, 1, 2)


def _affine(wide: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return scale·(wide - mean) + shift, each (C), in the precision of `wide`."""
    times = wide.shape[1] // len(mean)
    mean, scale, shift = mean.repeat(times), scale.repeat(times), shift.repeat(times)
    return F.batch_norm(wide, mean, torch.ones_like(mean), scale, shift, eps=_NOTHING)
