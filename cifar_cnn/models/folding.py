"""Batch normalization folded into the convolution before it, for evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cifar_cnn.models.blocks import Chain, DepthwiseSeparableConv
from cifar_cnn.models.mirror import MirrorConv2d


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
