import pytest
import torch
from torch import nn

from cifar_cnn.models.layers.convolution import QuickConv2d


def outcome(conv, images, weights, *, bf16):
    """Return output and the gradients of images, weight and, where there is one, bias."""
    images = images.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = conv(images)
    output.backward(weights.to(output.dtype))
    return [output, images.grad, *(parameter.grad for parameter in conv.parameters())]


DEPTHWISE = [
    {"in_channels": channels, "out_channels": channels, "groups": channels, **window}
    for channels in (6, 8, 24)
    for window in (
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": (2, 0), "dilation": (2, 1)},
        {"kernel_size": 3, "bias": False},
    )
]
STRIDED = [
    {"in_channels": 6, "out_channels": 9, **window}
    for window in (
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
        {"kernel_size": (2, 5), "stride": (3, 1), "padding": (0, 2)},
        {"kernel_size": 3, "stride": (1, 2), "dilation": (2, 1), "padding": (2, 0)},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 3},
        {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "reflect"},
    )
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [*DEPTHWISE, *STRIDED])
def test_bf16_gradients_are_the_fp32_ones_rounded(options, layout):
    torch.manual_seed(0)
    conv = QuickConv2d(**options).to(memory_format=layout)
    images = (
        torch.randn(5, conv.in_channels, 12, 11).bfloat16().float().contiguous(memory_format=layout)
    )
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


@pytest.mark.parametrize(("groups", "stride"), [(1, 2), (4, 1)])
def test_without_a_gradient_of_the_images_those_of_the_weights_are_there(groups, stride):
    conv = QuickConv2d(4, 4, 3, stride, groups=groups)
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(torch.randn(2, 4, 8, 8))
    output.sum().backward()
    assert float(conv.weight.grad.abs().min()) > 0
    assert conv.bias.grad.tolist() == [output[:, 0].numel()] * 4


def test_evaluation_and_fp32_are_torchs_own():
    torch.manual_seed(0)
    conv, images = QuickConv2d(4, 8, 3, stride=2), torch.randn(2, 4, 9, 9)
    own = nn.Conv2d(4, 8, 3, stride=2)
    own.load_state_dict(conv.state_dict())
    assert torch.equal(conv(images), own(images))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(images), own(images))
