"""The reference network: 24 layers, 197,922 parameters, receptive field 49."""

import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.models.blocks import Chain, DepthwiseSeparableConv, normalized
from cifar_cnn.models.layers import QuickAdaptiveAvgPool2d
from cifar_cnn.models.layers.convolution import QuickConv2d


class Baseline(nn.Module):
    """The reference program's network, with its layer and state-dict names.

    Input (N, 3, H, W) normalized float images, H and W from 1 (32 in the reference); output
    (N, num_classes) log-probabilities. Receptive field / jump after each convolution: 3/1, 5/2,
    5/2 (pointwise), 13/2 (dilated), 17/4, 25/8; after global pooling of a 32×32 image 25 + 3·8 =
    49 pixels.
    """

    outputs_log_probabilities = True
    recipe = "tuned"
    reached = ((20, 0.8369, 1), (100, 0.8568, 1))
    """Epochs, mean test accuracy on CIFAR-10 as JPEG after the last one, and number of runs."""

    def __init__(self, num_classes: int = 10, dropout: float = 0.02) -> None:
        super().__init__()
        self.convblock1 = Chain(
            *normalized(nn.Conv2d(3, 24, 3, padding=1, bias=False), 24, dropout)
        )
        self.convblock2 = Chain(*normalized(DepthwiseSeparableConv(24, 48, stride=2), 48, dropout))
        self.convblock3 = Chain(
            *normalized(nn.Conv2d(48, 64, 3, padding=2, dilation=2), 64, dropout),
            *normalized(QuickConv2d(64, 96, 3, stride=2, padding=1), 96, dropout),
        )
        self.convblock4 = Chain(
            *normalized(QuickConv2d(96, 128, 3, stride=2, padding=1), 128, dropout)
        )
        self.gap = QuickAdaptiveAvgPool2d(1)
        self.convblock5 = nn.Sequential(nn.Conv2d(128, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities (N, num_classes)."""
        maps = self.convblock4(self.convblock3(self.convblock2(self.convblock1(images))))
        logits = self.convblock5(self.gap(maps)).flatten(1)
        return F.log_softmax(logits.float(), dim=1)
