"""Random brightness, contrast and saturation of images that are already normalized.

All three are linear in the colors of a pixel, so one 3×3 matrix and one color for each image do
them together. Formulas: torchvision's `adjust_brightness`, `adjust_contrast` and
`adjust_saturation` in this order; but nothing is clipped to the range of bytes in between.
"""

import torch
from torch import Tensor

from cifar_cnn.data.dataset import REFERENCE, Normalization

LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in the gray value (ITU-R BT.601), as torchvision rounds them."""


def draw_color(strength: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw float32 (N, 3): factors of brightness, contrast, saturation, uniform in 1 ± strength."""
    return 1 + strength * (2 * torch.rand(count, 3, generator=generator) - 1)


def recolor(images: Tensor, factors: Tensor, normalization: Normalization = REFERENCE) -> Tensor:
    """Return the images with their colors changed.

    Args:
        images: float32 (N, 3, H, W), normalized as `normalize` does.
        factors: float32 (N, 3), of brightness, contrast and saturation; 1 changes nothing.
        normalization: that of the images.
    """
    mean, std = normalization.on(images.device)
    luma = torch.tensor(LUMA).to(images.device, non_blocking=True)
    brightness, contrast, saturation = factors[:, :, None, None].unbind(1)
    identity, gray = torch.eye(3, device=images.device), luma.expand(3, 3)
    saturate = saturation * identity + (1 - saturation) * gray
    matrix = brightness * contrast * saturate
    average = brightness * (images.mean((2, 3)) * std + mean)[:, :, None]
    offset = saturate @ ((1 - contrast) * (gray @ average))
    # from and to normalized colors: x -> ((matrix (x std + mean) + offset) - mean) / std
    matrix_there = matrix * std / std[:, None]
    offset_there = (matrix @ mean[:, None] + offset - mean[:, None]) / std[:, None]
    return torch.baddbmm(offset_there, matrix_there, images.flatten(2)).view_as(images)
