"""A network everybody knows, cut to the same budget: what a recipe alone brings.

ResNet-20 for CIFAR-10 (He et al., "Deep Residual Learning", 2016, section 4.2) with two blocks a
stage in place of three, which makes it ResNet-14: 175,066 parameters with 16 channels in front.

    cifar-cnn train --model tests/benchmarks/control.py:Control --recipe best
    cifar-cnn train --model tests/benchmarks/control.py:Control --model-arg channels=8 --recipe best
"""

from torch import nn
from torchvision.models.resnet import BasicBlock


def stage(in_channels, channels, stride):
    """Return two blocks; where the map halves, the skip is a 1×1 convolution."""
    skip = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if stride > 1 else None
    return BasicBlock(in_channels, channels, stride, skip), BasicBlock(channels, channels)


class Control(nn.Sequential):
    """As many channels, twice and four times as many at 32×32, 16×16 and 8×8; (N, 3, H, W)."""

    def __init__(self, channels=16):
        a, b, c = channels, 2 * channels, 4 * channels
        super().__init__(
            *(nn.Conv2d(3, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU()),
            *(*stage(a, a, 1), *stage(a, b, 2), *stage(b, c, 2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10)),
        )
