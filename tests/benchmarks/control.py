"""A network everybody knows, cut to the same budget: what a recipe alone brings.

ResNet-20 for CIFAR-10 (He et al., "Deep Residual Learning", 2016, section 4.2) with two blocks a
stage in place of three, which makes it ResNet-14: 175,066 parameters.

    cifar-cnn train --model tests/benchmarks/control.py:Control --recipe best
"""

from torch import nn
from torchvision.models.resnet import BasicBlock


def stage(in_channels, channels, stride):
    """Return two blocks; where the map halves, the skip is a 1×1 convolution."""
    skip = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if stride > 1 else None
    return BasicBlock(in_channels, channels, stride, skip), BasicBlock(channels, channels)


class Control(nn.Sequential):
    """16, 32 and 64 channels at 32×32, 16×16 and 8×8; (N, 3, H, W) to logits."""

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(*stage(16, 16, 1), *stage(16, 32, 2), *stage(32, 64, 2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )
