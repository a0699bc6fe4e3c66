"""Building blocks that networks share."""

from torch import Tensor, nn

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


def normalized(convolution: nn.Module, channels: int, dropout: float) -> list[nn.Module]:
    """Return `convolution` followed by batch normalization, ReLU and dropout."""
    return [convolution, QuickBatchNorm2d(channels), nn.ReLU(), QuickDropout(dropout)]
