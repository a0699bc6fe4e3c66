"""Building blocks that networks share, and how they are folded for evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cifar_cnn.models.layers.batch_norm import QuickBatchNorm2d
from cifar_cnn.models.layers.convolution import QuickConv2d
from cifar_cnn.models.layers.dropout import QuickDropout
from cifar_cnn.models.mirror import MirrorConv2d


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


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Fold the normalizations in the chains of `model`, in evaluation mode, while this is open.

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
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    replace(parent, place, fuse_conv_bn_eval(convolution, norm))
                    replace(chain, next_name, nn.Identity())
        yield
    finally:
        for parent, name, module in replaced:
            setattr(parent, name, module)
