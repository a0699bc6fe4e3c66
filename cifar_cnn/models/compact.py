"""The network for accuracy within the brief.

Shaped like airbench (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498,
2024), cut down to 200,000 parameters: fixed whitening filters in front, then stages that convolve,
pool, and refine what is left. What is different:

- An image and its mirror image give the same answer, but for normalization: half the filters of
  each convolution are the other half, mirrored. So as many maps take half the parameters.
- The whitening filters are made from the training images and do not learn, so that nothing has to
  be computed backwards through the first and largest maps.
- Poolings overlap: 31, 15, 7 and 3 pixels a side are the same from the left and from the right.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.models.blocks import Chain, MirrorConv2d
from cifar_cnn.models.layers import QuickAdaptiveAvgPool2d
from cifar_cnn.models.layers.batch_norm import QuickBatchNorm2d
from cifar_cnn.models.layers.dropout import QuickDropout

SMALLEST_VARIANCE = 5e-4  # is added to each, so that directions without any are not blown up


class Whitening(nn.Conv2d):
    """Fixed 2×2 filters whose outputs on the training images are uncorrelated, with variance 1.

    Images (N, 3, H, W) to (N, 24, H - 1, W - 1): the principal directions of patches and their
    mirror images, six that are their own mirror image and six that become their negative; and the
    negatives of both. Until it has seen images, the filters are random.
    """

    SWAPS = (slice(0, 12), slice(18, 24), slice(12, 18))
    """Output channels in the order in which the mirrored image gives the same values."""

    def __init__(self) -> None:
        super().__init__(3, 24, 2, bias=False)
        self.weight.requires_grad = False

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the filters from the patches of normalized images (N, 3, H, W), float32."""
        filters = []
        for sign in (1, -1):  # of the right column beside the left one
            moments = torch.zeros(6, 6, dtype=torch.float64)
            for some in torch.split(images, 100):  # all patches at once would take a gigabyte
                patches = F.unfold(some, 2).transpose(1, 2).reshape(-1, 6, 2).double()
                columns = (patches[..., 0] + sign * patches[..., 1]) / 2**0.5
                moments += columns.T @ columns / len(columns) * (len(some) / len(images))
            variances, directions = torch.linalg.eigh(moments)
            scaled = (directions / (2 * variances + 2 * SMALLEST_VARIANCE).sqrt()).T
            pairs = torch.stack([scaled, sign * scaled], dim=-1).view(6, 3, 2, 2)
            filters += [pairs, -pairs]
        self.weight.copy_(torch.cat(filters))


CHANNELS = (64, 96, 192)  # of the three stages at width 1
VECTOR = 16  # channels are multiples of this, which processors compute fastest
WIDTHS = (0.13, 4.0)  # smallest and largest width


def channels_of(width: object) -> list[int]:
    """Return the channels of the three stages, or raise a ValueError for an invalid width."""
    if not isinstance(width, int | float) or not WIDTHS[0] <= width <= WIDTHS[1]:
        raise ValueError(f"width = {width!r} must be a number from {WIDTHS[0]} to {WIDTHS[1]}")
    return [VECTOR * round(width * each / VECTOR) for each in CHANNELS]


def separable(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a depthwise 3×3 convolution and a pointwise one behind it."""
    return [
        MirrorConv2d(in_channels, in_channels, 3, groups=in_channels),
        MirrorConv2d(in_channels, out_channels, 1),
    ]


class Stage(nn.Module):
    """Convolve and halve the map, then add the output of one or two more convolutions to it.

    Maps (N, C, H, W) to (N, C', ⌊(H - 1)/2⌋, ⌊(W - 1)/2⌋), floating point.
    """

    def __init__(self, enter: list[nn.Module], channels: int, *refine: list[nn.Module]) -> None:
        super().__init__()
        self.enter = Chain(*enter, nn.MaxPool2d(3, 2), QuickBatchNorm2d(channels), nn.SiLU())
        layers = [each for c in refine for each in (*c, QuickBatchNorm2d(channels), nn.SiLU())]
        self.refine = Chain(*layers[:-1])  # the last SiLU is behind the sum

    def forward(self, maps: Tensor) -> Tensor:
        """Return the refined maps."""
        maps = self.enter(maps)
        return F.silu(maps + self.refine(maps))


class Compact(nn.Module):
    """Whitening, three stages, global average pooling and a linear classifier.

    Input (N, 3, H, W) normalized float images, H and W from 16; output (N, num_classes) logits.
    `width` scales the channels: 0.13 gives 9,240 parameters, 1 gives 186,288, 2 gives 722,496.
    """

    recipe = "best"
    reached = ((10, 0.8808, 3), (30, 0.8956, 3))
    """Epochs, mean test accuracy on CIFAR-10 as JPEG after the last one, and number of runs."""

    def __init__(self, num_classes: int = 10, dropout: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        self.whiten = Whitening()
        a, b, c = channels_of(width)
        first = MirrorConv2d(24, a, 3, swaps=Whitening.SWAPS)
        self.stages = nn.Sequential(
            Stage([first], a, [MirrorConv2d(a, a, 3)], [MirrorConv2d(a, a, 3, dilation=2)]),
            Stage([MirrorConv2d(a, b, 3)], b, [MirrorConv2d(b, b, 3)], [MirrorConv2d(b, b, 3)]),
            Stage(separable(b, c), c, separable(c, c)),
        )
        self.gap = QuickAdaptiveAvgPool2d(1)
        self.dropout = QuickDropout(dropout)
        self.classify = nn.Linear(c // 2, num_classes, bias=False)

    def see_images(self, images: Tensor) -> None:
        """Make the whitening filters from training images: normalized float32 (N, 3, H, W)."""
        self.whiten.fit(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        maps = self.gap(self.stages(F.silu(self.whiten(images)))).flatten(1)
        features, mirrored = maps.chunk(2, dim=1)
        logits: Tensor = self.classify(self.dropout((features + mirrored) / 2))
        return logits
