"""Mixup: training images blended with others of their batch, each by its own fraction.

Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), equation 1; the fractions
are uniform and grow with the run, so that the network sees plain images first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_cnn.settings import Settings


@dataclass(frozen=True)
class Mix:
    """Which image is mixed into each of N images.

    Args:
        partner: int64 (N), index into the batch; no image is mixed into two others.
        fraction: float32 (N), of the partner; the image itself keeps the rest.
    """

    partner: Tensor
    fraction: Tensor

    def to(self, device: torch.device) -> "Mix":
        """Return the mix on another device."""
        partner, fraction = (
            each.to(device, non_blocking=True) for each in (self.partner, self.fraction)
        )
        return Mix(partner, fraction)


def draw_mix(settings: Settings, epoch: int, count: int, generator: torch.Generator) -> Mix:
    """Draw for `count` images; fractions are uniform from 0 to what `largest_fraction` says."""
    partner = torch.randperm(count, generator=generator)
    return Mix(partner, largest_fraction(settings, epoch) * torch.rand(count, generator=generator))


def largest_fraction(settings: Settings, epoch: int) -> float:
    """Return the epoch's largest: from 0 in a straight line to `mixup` halfway, then that."""
    return settings.mixup * min(1.0, 2 * epoch / settings.epochs)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Return floating-point images (N, C, H, W), each with its fraction of its partner."""
    return torch.lerp(images, images[mix.partner], mix.fraction[:, None, None, None])
