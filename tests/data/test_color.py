import pytest
import torch
from torchvision.transforms.v2 import functional

from cifar_cnn.data.augment import draw_color, recolor
from cifar_cnn.data.dataset import REFERENCE, Normalization, normalize

OTHER = Normalization((0.5, 0.2, 0.7), (0.3, 0.1, 0.2))
NAMES = ("adjust_brightness", "adjust_contrast", "adjust_saturation")


def soft_images(count):
    """Images of middling colors, which no factor near 1 takes out of the range of bytes."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(90, 150, (count, 3, 8, 8), dtype=torch.uint8, generator=source)


def by_torchvision(image, factors):
    values = image.float() / 255
    for name, factor in zip(NAMES, factors.tolist(), strict=True):
        values = getattr(functional, name)(values, factor)
    return values * 255


@pytest.mark.parametrize("only", [0, 1, 2, None])
@pytest.mark.parametrize("normalization", [REFERENCE, OTHER])
def test_each_image_is_changed_as_torchvision_would_by_its_own_factors(only, normalization):
    images = soft_images(6)
    factors = draw_color(0.3, 6, torch.Generator().manual_seed(1))
    if only is not None:
        factors[:, [i for i in range(3) if i != only]] = 1
    expected = torch.stack([by_torchvision(*pair) for pair in zip(images, factors, strict=True)])
    torch.testing.assert_close(
        recolor(normalize(images, normalization), factors, normalization),
        normalize(expected, normalization),
        atol=1e-3,
        rtol=1e-4,
    )
    assert len({tuple(row) for row in factors.tolist()}) == 6


def test_factors_of_one_change_nothing():
    images = normalize(soft_images(3))
    torch.testing.assert_close(recolor(images, torch.ones(3, 3)), images)


def test_factors_fill_their_range_and_no_more():
    factors = draw_color(0.2, 1000, torch.Generator().manual_seed(0))
    assert factors.shape == (1000, 3)
    for column in factors.unbind(1):
        assert 0.8 <= float(column.min()) < 0.81
        assert 1.19 < float(column.max()) <= 1.2
