"""Building blocks that networks share, and how they are folded for evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cifar_cnn.models.layers.batch_norm import QuickBatchNorm2d
from cifar_cnn.models.layers.convolution import QuickConv2d
from cifar_cnn.models.layers.dropout import QuickDropout


class Chain(nn.Sequential):
    """`torch.nn.Sequential` whose modules are used in this order only, never one by itself.

    So evaluation may take a convolution and the normalization behind it as one.
    """


class DepthwiseSeparableConv(nn.Module):
    """A 3×3 convolution of each channel by itself, then a 1×1 convolution across channels.

    Input (N, in_channels, H, W), output (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉), floating point.
    Source: Howard et al., "MobileNets" (2017), section 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = QuickConv2d(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the filtered maps."""
        out: Tensor = self.pointwise(self.depthwise(images))
        return out


class MirrorConv2d(QuickConv2d):
    """A convolution of which half the filters are parameters and half are those, mirrored.

    The first half of the channels holds features, the second half the same features of the mirrored
    image, mirrored back; mirroring the image mirrors the maps and swaps the halves. Source: Cohen
    and Welling, "Group Equivariant Convolutional Networks" (2016), sections 4 to 6, for the group
    of the horizontal mirror.

    Maps (N, in_channels, H, W) to (N, out_channels, H, W), stride 1, without bias. The weight is
    (out_channels / 2, in_channels / groups, k, k), k odd; groups is 1 or the number of channels.
    `swaps` are slices of the input channels, in the order in which they stand for all in the
    mirrored image; without them the two halves are swapped.
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


def normalized(convolution: nn.Module, channels: int, dropout: float) -> list[nn.Module]:
    """Return `convolution` followed by batch normalization, ReLU and dropout."""
    return [convolution, QuickBatchNorm2d(channels), nn.ReLU(), QuickDropout(dropout)]


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Fold normalizations and write out mirrored filters in the model's chains while this is open.

    The model is in evaluation mode. The normalization
    y = g·(w*x + b - μ)/√(σ² + ε) + h is one convolution, of weight w·g/√(σ² + ε). Source: Jacob et
    al., "Quantization and Training of Neural Networks" (2018), section 3.2.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def replace(parent: nn.Module, name: str, module: nn.Module) -> None:
        replaced.append((parent, name, getattr(parent, name)))
        setattr(parent, name, module)

    try:
        for chain in [module for module in nn.Module.modules(model) if isinstance(module, Chain)]:
            for (name, first), (next_name, norm) in pairwise(list(chain.named_children())):
                separable = isinstance(first, DepthwiseSeparableConv)
                parent, place = (first, "pointwise") if separable else (chain, name)
                convolution = getattr(parent, place)
                if isinstance(convolution, MirrorConv2d):
                    convolution = convolution.plain()
                    replace(parent, place, convolution)
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    replace(parent, place, fuse_conv_bn_eval(convolution, norm))
                    replace(chain, next_name, nn.Identity())
        yield
    finally:
        for parent, name, module in reversed(replaced):
            setattr(parent, name, module)
