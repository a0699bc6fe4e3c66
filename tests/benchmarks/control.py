"""A network everybody knows, cut to the same budget: what a recipe alone brings.

ResNet-20 for CIFAR-10 (He et al., "Deep Residual Learning", 2016, section 4.2) with two blocks a
stage in place of three, which makes it ResNet-14: 175,066 parameters.

    cifar-cnn train --model tests/benchmarks/control.py:Control --recipe best
"""

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions beside a skip; where the map halves, the skip is a 1×1 convolution."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.skip = nn.Identity()
        if stride > 1:
            self.skip = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, maps):
        change = self.second_norm(self.second(F.relu(self.norm(self.first(maps)))))
        return F.relu(change + self.skip(maps))


class Control(nn.Module):
    """16, 32 and 64 channels at 32×32, 16×16 and 8×8; (N, 3, H, W) to logits."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            *(Block(16, 16, 1), Block(16, 16, 1)),
            *(Block(16, 32, 2), Block(32, 32, 1)),
            *(Block(32, 64, 2), Block(64, 64, 1)),
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, images):
        return self.classify(self.blocks(self.stem(images)).mean((2, 3)))
