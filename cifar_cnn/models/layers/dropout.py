"""Dropout whose cost is that of the elements it drops, not of all."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class QuickDropout(nn.Dropout):
    """`torch.nn.Dropout` that draws random numbers on a CPU for the dropped elements only.

    Input and output (N, …), floating point. Each element is zeroed with probability p by itself and
    the others scaled by 1/(1 - p), as in torch's. Instead of one draw for each element, the
    distances between dropped ones are drawn, which are geometric: at p = 0.02 a fiftieth of the
    draws. Positions count along the memory, whatever the layout.

    `generator` is where the draws come from, torch's global one unless set.
    """

    generator: torch.Generator | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Return the input with elements dropped, in training; the input itself otherwise."""
        if not self.training or self.p in {0, 1} or input.device.type != "cpu":
            return super().forward(input)
        output: Tensor = _Drop.apply(
            input, dropped_positions(input.numel(), self.p, self.generator), 1 / (1 - self.p)
        )
        return output


def dropped_positions(count: int, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw which of `count` elements are dropped: int64 positions, ascending.

    Successes of independent trials lie geometric distances apart (a Bernoulli process); 1 plus the
    whole part of log(1 - u) / log(1 - p) is one, for u uniform in [0, 1) (Devroye, "Non-Uniform
    Random Variate Generation", 1986, section X.2). The draws come from `generator`,
    torch's global one where there is none.
    """
    expected = count * p
    batch = int(expected + 6 * expected**0.5 + 10)  # enough at once, but for one time in 10^9
    last, parts = -1, []
    while last < count:
        uniform = torch.rand(batch, dtype=torch.float64, generator=generator)
        distances = uniform.neg_().log1p_().div_(math.log1p(-p)).floor_().long().add_(1)
        parts.append(distances.cumsum(0).add_(last))
        last = int(parts[-1][-1])
    positions = torch.cat(parts)
    return positions[: torch.searchsorted(positions, count)]


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, positions: Tensor, scale: float) -> Tensor:
        output = values * scale
        ctx.save_for_backward(positions)
        ctx.scale, ctx.strides = scale, output.stride()
        return _zero(output, positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (positions,) = ctx.saved_tensors
        scaled = torch.empty_strided(gradient.shape, ctx.strides, dtype=gradient.dtype)
        torch.mul(gradient, ctx.scale, out=scaled)
        return _zero(scaled, positions), None, None


def _zero(values: Tensor, positions: Tensor) -> Tensor:
    values.as_strided((values.numel(),), (1,)).index_fill_(0, positions, 0)
    return values
