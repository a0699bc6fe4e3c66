"""Convolutions that treat an image and its mirror image alike, with half the parameters.

The first half of the channels holds features, the second half the same features of the mirrored
image, mirrored back; mirroring the image mirrors the maps and swaps the halves. Source: Cohen and
Welling, "Group Equivariant Convolutional Networks" (2016), sections 4 to 6, for the group of the
horizontal mirror.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cifar_cnn.models.layers.convolution import QuickConv2d


class MirrorConv2d(QuickConv2d):
    """A convolution of which half the filters are parameters and half are those, mirrored.

    Maps (N, in_channels, H, W) to (N, out_channels, H', W'), stride 1, the size kept, without bias.
    The weight is (out_channels / 2, in_channels / groups, k, k), k odd; groups is 1 or the number
    of channels. `swaps` are slices of the input channels, in the order in which they stand for all
    in the mirrored image; without them the two halves are swapped.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        groups: int = 1,
        swaps: Sequence[slice] = (),
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            *(in_channels, out_channels, kernel_size, 1, padding, dilation, groups), bias=False
        )
        self.weight = nn.Parameter(self.weight.detach()[: out_channels // 2].clone())
        self.swaps = swaps

    def both(self) -> Tensor:
        """Return all filters (out_channels, in_channels / groups, k, k): these and the mirrored."""
        own = swapped = self.weight
        if self.swaps:
            swapped = torch.cat([own[:, each] for each in self.swaps], dim=1)
        elif self.groups == 1:
            swapped = own.roll(self.in_channels // 2, dims=1)
        return torch.cat([own, swapped.flip(-1)]).contiguous(memory_format=torch.channels_last)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Return the filtered maps."""
        return self._conv_forward(input, self.both(), None)

    def plain(self) -> nn.Conv2d:
        """Return the same convolution with all filters as its weight, for use without training."""
        size, padding = int(self.kernel_size[0]), self.dilation[0] * (self.kernel_size[0] // 2)
        plain = nn.Conv2d(
            *(self.in_channels, self.out_channels, size, 1, padding, self.dilation[0], self.groups),
            bias=False,
            device="meta",
        )
        plain.weight = nn.Parameter(self.both().detach(), requires_grad=False)
        return plain.train(self.training)
