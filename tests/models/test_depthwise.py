import pytest
import torch
from torch import nn

from cifar_cnn.models.depthwise import depthwise_conv2d


def outcome(conv, images, weights, *, bf16):
    """Return output and the gradients of images, weight and bias."""
    images = images.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = depthwise_conv2d(conv, images)
    output.backward(weights.to(output.dtype))
    return output, images.grad, conv.weight.grad, conv.bias.grad


@pytest.mark.parametrize(
    "options",
    [{"padding": 1}, {"padding": 1, "stride": 2}, {"padding": (2, 0), "dilation": (2, 1)}],
)
@pytest.mark.parametrize("channels", [6, 8, 24])
def test_bf16_gradients_are_the_fp32_ones_rounded(channels, options):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, channels, 3, groups=channels, **options)
    conv = conv.to(memory_format=torch.channels_last)
    images = torch.randn(5, channels, 12, 11).bfloat16().float()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter.bfloat16())
    weights = torch.randn_like(conv(images)).bfloat16().float()
    exact = outcome(conv, images, weights, bf16=False)
    rounded = outcome(conv, images, weights, bf16=True)
    assert rounded[0].dtype == torch.bfloat16
    for got, expected in zip(rounded, exact, strict=True):
        difference = (got.float() - expected).detach().abs().max() / expected.detach().abs().max()
        assert float(difference) < 2**-8, float(difference)


def test_without_a_gradient_of_the_images_those_of_the_weights_are_there():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    with torch.autocast("cpu", torch.bfloat16):
        depthwise_conv2d(conv, torch.randn(2, 4, 8, 8)).sum().backward()
    assert float(conv.weight.grad.abs().min()) > 0
    assert conv.bias.grad.tolist() == [2 * 6 * 6] * 4
