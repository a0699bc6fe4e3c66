import numpy as np
import pytest
import torch
from torch import nn

from cifar_cnn import effective_receptive_field
from cifar_cnn.analysis.effective import smallest_square
from cifar_cnn.errors import ModelError


@pytest.fixture
def images():
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def linear_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, stride=2, padding=1))


def test_a_linear_networks_heat_is_its_kernels_magnitude_where_the_unit_looks(images):
    model = linear_model()
    found = effective_receptive_field(model, images)
    leaf = images[:1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, :, 4, 4].sum(), leaf)
    expected = expected.abs().sum((0, 1)).double().numpy()
    np.testing.assert_allclose(found.heat, expected / expected.sum(), rtol=1e-5)
    assert (found.layer, found.unit, found.samples) == ("1", (4, 4), 5)
    field = found.theoretical
    assert (field.top, field.left, field.receptive_field, field.clipped) == (6, 6, (5, 5), 0)
    assert found.heat[6:11, 6:11].sum() == pytest.approx(1)
    assert found.squares[1].side <= 5


def test_the_result_does_not_depend_on_how_images_are_grouped(images, monkeypatch):
    from cifar_cnn.analysis import effective

    model = nn.Sequential(linear_model(), nn.ReLU(), nn.Conv2d(2, 2, 3))
    whole = effective_receptive_field(model, images).heat
    monkeypatch.setattr(effective, "BATCH", 2)
    np.testing.assert_allclose(effective_receptive_field(model, images).heat, whole, rtol=1e-5)


def test_logits_see_the_whole_image_and_the_clipped_share_is_said(images):
    model = nn.Sequential(linear_model(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10))
    found = effective_receptive_field(model, images, target="logits")
    field = found.theoretical
    assert (found.unit, field.top, field.left, field.receptive_field) == (None, -2, -2, (19, 19))
    assert field.clipped == pytest.approx(1 - 16**2 / 19**2)
    assert np.count_nonzero(found.heat) == 16**2


def test_squares_are_the_smallest_that_hold_their_share():
    heat = np.zeros((8, 12))
    heat[2:4, 5:7] = 1
    heat[6, 0] = 4
    square = smallest_square(heat, 0.5)
    assert (square.side, square.top, square.left) == (1, 6, 0)
    half_of_the_rest = smallest_square(np.where(heat == 4, 0, heat), 0.9)
    assert (half_of_the_rest.side, half_of_the_rest.top, half_of_the_rest.left) == (2, 2, 5)
    assert smallest_square(np.ones((8, 12)), 0.5).side == 7
    assert smallest_square(np.ones((8, 12)), 0.9).side == 11


def test_a_network_without_a_map_is_refused_for_features(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    with pytest.raises(ModelError, match="target logits"):
        effective_receptive_field(model, images)
    assert effective_receptive_field(model, images, target="logits").theoretical.clipped == 0


def test_dead_units_are_one_line(images, net):
    with pytest.raises(ModelError, match="zero on every image"):
        effective_receptive_field(net(lambda _, x: (x * 0).relu()), images)
