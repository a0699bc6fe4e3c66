"""Mirrored convolutions, and normalizations folded into convolutions."""

import pytest
import torch
from torch import nn

from cifar_cnn.models import build_model
from cifar_cnn.models.blocks import MirrorConv2d, folded


def mirrored(maps):
    """What maps become when the image is mirrored: each in the other half, and mirrored."""
    return maps.roll(maps.shape[1] // 2, dims=1).flip(-1)


@pytest.mark.parametrize(
    ("kernel", "dilation", "groups", "out"),
    [(3, 1, 1, 6), (3, 2, 1, 6), (1, 1, 1, 10), (3, 1, 8, 8), (5, 1, 8, 8)],
)
def test_a_mirrored_map_gives_the_mirrored_answer(kernel, dilation, groups, out):
    torch.manual_seed(0)
    convolution = MirrorConv2d(8, out, kernel, dilation, groups)
    maps = torch.randn(2, 8, 7, 9)
    answer = convolution(maps)
    assert answer.shape == (2, out, 7, 9)
    torch.testing.assert_close(convolution(mirrored(maps)), mirrored(answer))


def test_it_has_half_the_parameters_of_a_plain_one():
    parameters = dict(MirrorConv2d(8, 6, 3).named_parameters())
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {"weight": (3, 8, 3, 3)}


def test_channels_that_become_themselves_or_another_are_named():
    torch.manual_seed(0)
    convolution = MirrorConv2d(3, 4, 3, swaps=(slice(0, 1), slice(2, 3), slice(1, 2)))
    maps = torch.randn(1, 3, 5, 5)
    other = maps[:, [0, 2, 1]].flip(-1)
    torch.testing.assert_close(convolution(other), mirrored(convolution(maps)))


@pytest.mark.parametrize("groups", [1, 8])
def test_the_plain_one_computes_the_same(groups):
    convolution = MirrorConv2d(8, 8, 3, 1, groups)
    plain = convolution.plain()
    assert type(plain) is torch.nn.Conv2d
    maps = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(plain(maps), convolution(maps))


def test_the_gradient_is_that_of_both_halves_in_bf16_training_too():
    torch.manual_seed(0)
    convolution = MirrorConv2d(8, 8, 3, groups=8)
    maps = torch.randn(4, 8, 6, 6)
    exact = torch.autograd.grad(convolution(maps).square().mean(), convolution.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = convolution(maps).float().square().mean()
    quick = torch.autograd.grad(loss, convolution.weight)[0]
    torch.testing.assert_close(quick, exact, rtol=0.05, atol=2e-3)


def trained_a_little(name):
    torch.manual_seed(0)
    model = build_model(name).train()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.randn(8, 3, 32, 32) + 1)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 2.0)
                norm.bias.normal_()
    return model.eval()


@pytest.mark.parametrize(("name", "norms_left"), [("baseline", 0), ("compact", 3)])
def test_answers_are_the_same_and_the_network_afterwards(name, norms_left):
    model = trained_a_little(name)
    images = torch.randn(4, 3, 32, 32)
    before, modules = dict(model.state_dict()), list(model.named_modules())
    learning = [p.requires_grad for p in model.parameters()]
    with torch.inference_mode():
        expected = model(images)
        with folded(model):
            got = model(images)
            assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == norms_left
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(got, expected)
    assert list(model.named_modules()) == modules
    assert all(
        value is not None and torch.equal(value, before[key])
        for key, value in model.state_dict().items()
    )
    assert [p.requires_grad for p in model.parameters()] == learning
    assert not any(p.is_inference() for p in model.parameters())


def test_an_error_inside_restores_the_network():
    model = trained_a_little("baseline")
    modules = list(model.named_modules())
    with pytest.raises(KeyError), folded(model):
        raise KeyError
    assert list(model.named_modules()) == modules


def test_a_network_of_somebody_else_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    modules = list(model.named_modules())
    with folded(model):
        assert list(model.named_modules()) == modules
