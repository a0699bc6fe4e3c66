"""The network for accuracy within the brief.

Shaped like airbench (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498,
2024), cut down to 200,000 parameters: fixed whitening filters in front, then stages that convolve,
pool, and refine what is left.

- Three quarters of the weights are 3×3 convolutions at 15×15, where each is used 225 times an
  image; `baseline` has most of its weights on a 4×4 map.
- Behind them convolutions are depthwise separable: there, dense ones would cost a third of the
  parameters and bring no accuracy that could be measured.
- The whitening filters are made from the training images and do not learn, so that nothing has to
  be computed backwards through the first and largest maps.
- Nothing has a bias that a normalisation behind it would take away.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.models.batch_norm import BatchNorm2d
from cifar_cnn.models.blocks import Chain
from cifar_cnn.models.convolution import Conv2d
from cifar_cnn.models.dropout import Dropout
from cifar_cnn.models.pooling import AdaptiveAvgPool2d

SMALLEST_VARIANCE = 5e-4
"""Added to each patch variance, so that directions without any are not blown up."""


class Whitening(nn.Conv2d):
    """Fixed 2×2 filters whose answers on the training images are uncorrelated, of variance 1.

    Images (N, 3, H, W) to (N, 24, H - 1, W - 1): each of the 12 principal directions of the patches
    and its negative. Until it has seen images, the filters are random.
    """

    def __init__(self) -> None:
        super().__init__(3, 24, 2, bias=False)
        self.weight.requires_grad = False

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the filters from the patches of normalised images (N, 3, H, W), float32."""
        patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + SMALLEST_VARIANCE).sqrt()).T.view(12, 3, 2, 2)
        self.weight.copy_(torch.cat([filters, -filters]))


def convolution(in_channels: int, out_channels: int, dilation: int = 1) -> list[nn.Module]:
    """Return a 3×3 convolution that keeps the size, without bias."""
    return [nn.Conv2d(in_channels, out_channels, 3, 1, dilation, dilation, bias=False)]


def separable(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a depthwise 3×3 convolution and a pointwise one behind it, without bias."""
    depthwise = Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    return [depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=False)]


class Stage(nn.Module):
    """Convolve, halve the map, and add what one or two more convolutions make of it.

    Maps (N, C, H, W) to (N, C', ⌊H/2⌋, ⌊W/2⌋), floating point.
    """

    def __init__(self, enter: list[nn.Module], channels: int, *refine: list[nn.Module]) -> None:
        super().__init__()
        self.enter = Chain(*enter, nn.MaxPool2d(2), BatchNorm2d(channels), nn.SiLU())
        layers = [layer for each in refine for layer in (*each, BatchNorm2d(channels), nn.SiLU())]
        self.refine = Chain(*layers[:-1])  # the last SiLU is behind the sum

    def forward(self, maps: Tensor) -> Tensor:
        """Return the refined maps."""
        maps = self.enter(maps)
        return F.silu(maps + self.refine(maps))


class Compact(nn.Module):
    """Whitening, three stages, global average pooling and a linear classifier.

    Input (N, 3, H, W) normalised float images, H and W from 9; output (N, num_classes) logits.
    """

    def __init__(self, num_classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.whiten = Whitening()
        self.stages = nn.Sequential(
            Stage(convolution(24, 64), 64, convolution(64, 64), convolution(64, 64, dilation=2)),
            Stage(convolution(64, 96), 96, separable(96, 96), separable(96, 96)),
            Stage(separable(96, 128), 128, separable(128, 128)),
        )
        self.gap = AdaptiveAvgPool2d(1)
        self.dropout = Dropout(dropout)
        self.classify = nn.Linear(128, num_classes, bias=False)

    def see_images(self, images: Tensor) -> None:
        """Whiten by these training images: normalised float32 (N, 3, H, W)."""
        self.whiten.fit(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        maps = self.gap(self.stages(F.silu(self.whiten(images))))
        logits: Tensor = self.classify(self.dropout(maps.flatten(1)))
        return logits
