import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar_cnn.data.dataset import (
    MEAN,
    STD,
    Normalization,
    Split,
    measure,
    normalize,
    parse_normalization,
)
from cifar_cnn.errors import SettingsError


def make_split(labels, classes=3):
    labels = torch.tensor(labels)
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return Split(images, labels, tuple("abcdef"[:classes]))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 60))
def test_a_subset_is_as_class_balanced_as_the_labels_allow(labels, size):
    subset = make_split(labels).limited(size)
    assert len(subset) == min(size, len(labels))
    taken = torch.bincount(subset.labels, minlength=3)
    available = torch.bincount(torch.tensor(labels), minlength=3)
    for image, label in zip(subset.images, subset.labels, strict=True):
        assert labels[int(image[0, 0, 0])] == label
    for here in range(3):
        for there in range(3):
            assert taken[here] <= taken[there] + 1 or taken[there] == available[there]


def test_a_subset_is_part_of_larger_ones_and_none_is_larger_than_the_whole():
    split = make_split([0, 1, 2] * 20)
    small, large = (split.limited(size).images[:, 0, 0, 0].tolist() for size in (10, 25))
    assert set(small) < set(large)
    assert split.limited(None) is split
    assert split.limited(61) is split


@given(st.lists(st.integers(0, 2), min_size=2, max_size=60), st.data())
def test_a_cut_takes_the_same_share_of_each_class_and_the_exact_total(labels, data):
    size = data.draw(st.integers(1, len(labels) - 1))
    rest, part = make_split(labels).cut(size)
    assert len(part) == size
    both = torch.cat([rest.images, part.images])[:, 0, 0, 0]
    assert sorted(both.tolist()) == list(range(len(labels)))
    exact = torch.bincount(torch.tensor(labels), minlength=3) * size / len(labels)
    taken = torch.bincount(part.labels, minlength=3)
    assert ((taken - exact).abs() < 1).all()


@pytest.mark.parametrize("value", [0, 100, 255])
def test_normalization_is_that_of_the_reference(value):
    out = normalize(torch.full((1, 3, 1, 1), value, dtype=torch.uint8)).flatten()
    expected = (value / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(out, expected)
    assert out.dtype == torch.float32


def test_mean_and_deviation_are_those_of_all_pixels():
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (50, 3, 7, 9), dtype=torch.uint8, generator=source)
    images[:, 1] //= 3
    pixels = images.double().transpose(0, 1).flatten(1) / 255
    found = measure(images)
    assert found.mean == pytest.approx(pixels.mean(dim=1).tolist(), rel=1e-14)
    assert found.std == pytest.approx(pixels.std(dim=1, correction=0).tolist(), rel=1e-14)
    out = normalize(images, found).transpose(0, 1).flatten(1)
    assert out.mean(dim=1).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert out.std(dim=1, correction=0).tolist() == pytest.approx([1, 1, 1], rel=1e-6)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_channel_of_one_value_becomes_zero(value):
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    images[:, 2] = value
    found = measure(images)
    assert (found.mean[2], found.std[2]) == (value / 255, 1.0)
    assert normalize(images, found)[:, 2].abs().max() < 1e-6


def test_many_images_are_summed_exactly():
    images = torch.full((3, 3, 1, 1), 255, dtype=torch.uint8).expand(-1, -1, 2000, 2000)
    assert measure(images) == Normalization((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["imagenet", "0.5", "0.5/0", "1,2/3", "0.5/0.5/0.5"])
def test_a_normalization_that_is_none_is_one_line(name):
    with pytest.raises(SettingsError, match="is unknown: give cifar10, dataset, or MEAN/STD"):
        parse_normalization(name)
