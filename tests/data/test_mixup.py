import pytest
import torch

from cifar_cnn.data.mixup import Mix, draw_mix, largest_fraction, mix_images
from cifar_cnn.data.randomness import Purpose, generator
from cifar_cnn.settings import resolve_settings


def draw(epoch, count=1000, **overrides):
    settings = resolve_settings({"mixup": 0.5, "epochs": 10} | overrides)
    return draw_mix(settings, epoch, count, generator(0, Purpose.MIXUP, epoch))


def test_each_image_gets_its_own_fraction_of_its_own_partner():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    mix = Mix(torch.tensor([2, 0, 3, 1]), torch.tensor([0.5, 0.25, 0.0, 0.1]))
    mixed = mix_images(images, mix)
    assert mixed.shape == images.shape
    for value, image in zip([0 + 1.0, 0.75, 2.0, 2.8], mixed, strict=True):
        torch.testing.assert_close(image, torch.full((3, 2, 2), value))


def test_the_largest_fraction_grows_to_its_full_size_halfway():
    settings = resolve_settings({"mixup": 0.4, "epochs": 10})
    fractions = [largest_fraction(settings, epoch) for epoch in range(10)]
    assert fractions == pytest.approx([0, 0.08, 0.16, 0.24, 0.32, *[0.4] * 5])


def test_draws_are_fractions_up_to_the_largest_and_every_image_is_a_partner_once():
    mix = draw(epoch=9)
    assert sorted(mix.partner.tolist()) == list(range(1000))
    assert 0 <= float(mix.fraction.min()) < 0.01
    assert 0.49 < float(mix.fraction.max()) < 0.5
    assert len(set(mix.fraction.tolist())) > 900


def test_the_first_epoch_mixes_nothing():
    assert float(draw(epoch=0).fraction.max()) == 0


def test_the_same_step_draws_the_same():
    one, other = draw(epoch=3), draw(epoch=3)
    assert torch.equal(one.partner, other.partner)
    assert torch.equal(one.fraction, other.fraction)
