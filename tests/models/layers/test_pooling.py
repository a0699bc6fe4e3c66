import pytest
import torch
from torch import nn

from cifar_cnn.models.layers import QuickAdaptiveAvgPool2d

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 2])
def test_averages_and_gradients_are_torchs(layout, size):
    maps = torch.randn(3, 6, 5, 4, dtype=torch.float64).contiguous(memory_format=layout)
    ours, torchs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    got, expected = QuickAdaptiveAvgPool2d(size)(ours), nn.AdaptiveAvgPool2d(size)(torchs)
    torch.testing.assert_close(got, expected)
    weights = torch.randn_like(expected)
    got.backward(weights)
    expected.backward(weights)
    torch.testing.assert_close(ours.grad, torchs.grad)


def test_the_gradient_has_the_layout_of_the_maps():
    maps = torch.randn(3, 6, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    seen = []
    layer = maps * 1
    layer.register_hook(seen.append)
    QuickAdaptiveAvgPool2d(1)(layer).sum().backward()
    assert seen[0].stride() == maps.stride()
