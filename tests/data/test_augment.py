import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode, functional

from cifar_cnn.data.augment import (
    Mix,
    Purpose,
    apply,
    check_augmentation,
    derive_seed,
    draw,
    draw_mix,
    generator,
    mix_images,
    recolor,
)
from cifar_cnn.data.dataset import REFERENCE, Normalization, normalize
from cifar_cnn.errors import SettingsError
from cifar_cnn.settings import resolve_settings

PLAIN = {"flip": 0, "shift": 0, "affine": 0, "cutout": 0, "rotation": 0, "color_jitter": 0}


def augment(images, seed=0, epoch=0, step=0, **overrides):
    chosen = resolve_settings(
        {"input_size": tuple(images.shape[-2:]), "cutout_size": 4} | PLAIN | overrides
    )
    draws = draw(chosen, len(images), generator(seed, Purpose.AUGMENTATION, epoch, step))
    return apply(images, draws, chosen.cutout_size), draws


def random_images(count, height=32, width=32):
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=source)


amounts = {
    "flip": st.sampled_from([0, 0.5, 1]),
    "shift": st.integers(0, 7),
    "affine": st.sampled_from([0, 0.5, 1]),
    "rotation": st.sampled_from([0, 20]),
    "cutout": st.sampled_from([0, 0.5, 1]),
}


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.fixed_dictionaries(amounts))
@settings(deadline=None)
def test_some_of_the_images_come_out_as_among_all(count, first, more, overrides):
    images = random_images(count)
    out, draws = augment(images, **overrides)
    some = slice(first, first + more)
    if len(images[some]):
        assert torch.equal(apply(images[some], draws.of(some), 4), out[some])


@given(
    st.integers(1, 9),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.tuples(st.integers(0, 2**40), st.integers(0, 999), st.integers(0, 999)),
    st.fixed_dictionaries(amounts),
)
@settings(deadline=None)
def test_shape_type_range_and_determinism(count, size, coordinates, overrides):
    images = random_images(count, *size)
    out, _ = augment(images, *coordinates, **overrides)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    lowest = normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    highest = normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert bool((out >= lowest - 1e-5).all())
    assert bool((out <= highest + 1e-5).all())
    again, _ = augment(images, *coordinates, **overrides)
    assert torch.equal(out, again)


def test_about_half_the_images_are_flipped_each_by_itself():
    images = random_images(1000, 8, 8)
    out, _ = augment(images, flip=0.5)
    flipped = (out == normalize(images.flip(-1))).flatten(1).all(dim=1)
    kept = (out == normalize(images)).flatten(1).all(dim=1)
    assert bool((flipped ^ kept).all())
    assert 430 < int(flipped.sum()) < 570


def test_a_shift_moves_every_image_by_its_own_pixels_and_reflects_the_border():
    images = random_images(50, 9, 12)
    out, draws = augment(images.flip(-1), flip=1, shift=3)  # mirrored first, then moved
    assert len({tuple(each) for each in draws.shift.tolist()}) > 25  # of 49
    padded = torch.nn.functional.pad(images.float(), (3, 3, 3, 3), mode="reflect").byte()
    for image, moved, (down, right) in zip(padded, out, draws.shift.tolist(), strict=True):
        window = image[:, 3 - down : 12 - down, 3 - right : 15 - right]
        assert torch.equal(moved, normalize(window[None])[0])


def test_a_cut_out_is_one_square_of_the_mean_color_inside_the_image():
    images = random_images(300, 10, 14)
    out, _ = augment(images, cutout=0.5)
    holes = (out == 0).all(dim=1)
    cut = holes.flatten(1).any(dim=1)
    assert 110 < int(cut.sum()) < 190
    assert set(holes.flatten(1).sum(dim=1).tolist()) == {0, 16}
    for hole in holes[cut]:
        rows, columns = hole.nonzero().unbind(1)
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 3
    assert torch.equal(out[~cut], normalize(images[~cut]))


def test_an_affine_leaves_the_images_it_does_not_choose():
    images = random_images(200, 8, 8)
    out, draws = augment(images, affine=0.5)
    assert 70 < len(draws.warped) < 130
    kept = torch.ones(200, dtype=torch.bool)
    kept[draws.warped] = False
    assert torch.equal(out[kept], normalize(images[kept]))
    assert not bool((out == normalize(images)).flatten(1).all(dim=1)[~kept].any())


def test_affines_are_rotations_scalings_and_shifts_within_the_references_limits():
    _, draws = augment(random_images(2000), affine=1)
    matrix = draws.affine[:, :, :2]
    scale = 1 / matrix.det().sqrt()
    angle = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    shift = (torch.linalg.inv(matrix) @ draws.affine[:, :, 2:]).squeeze(2) * 31 / 2 / 32
    for values, limit in ((scale - 1, 0.1), (angle, 15), (shift, 0.1)):
        assert float(values.abs().max()) <= limit * 1.001
        assert float(values.max()) > 0.95 * limit
        assert float(values.min()) < -0.95 * limit


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"shift": 32}, "shift 32 is as large as the image"),
        ({"cutout": 0.5, "cutout_size": 33}, "cutout_size 33 is larger than the image"),
        ({"affine": 0.5, "input_size": 1, "shift": 0}, "set --affine 0"),
    ],
)
def test_an_augmentation_larger_than_the_image_is_refused(overrides, message):
    with pytest.raises(SettingsError, match=message):
        check_augmentation(resolve_settings(overrides))


def test_a_rotation_turns_each_image_by_its_own_angle_within_the_limit():
    images = random_images(2000, 8, 8)
    out, draws = augment(images, rotation=30)
    matrix = draws.rotation[:, :, :2]
    torch.testing.assert_close(matrix.det(), torch.ones(2000))
    angle = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    assert 29 < float(angle.max()) <= 30.001
    assert -30.001 <= float(angle.min()) < -29
    assert float(draws.rotation[:, :, 2].abs().max()) == 0
    assert not bool((out == normalize(images)).flatten(1).all(dim=1).any())


def test_a_rotation_is_torchvisions_away_from_the_border():
    image = torch.nn.functional.avg_pool2d(random_images(1).float(), 3, 1, 1).byte()
    out, draws = augment(image, rotation=90)
    degrees = math.degrees(math.atan2(draws.rotation[0, 0, 1], draws.rotation[0, 0, 0]))
    expected = functional.rotate(
        normalize(image), -degrees, interpolation=InterpolationMode.BILINEAR
    )
    middle = (..., slice(10, 22), slice(10, 22))
    torch.testing.assert_close(out[middle], expected[middle], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_an_affine_moves_pixels_where_the_formula_says(height, width):
    ramp_y, ramp_x = torch.meshgrid(
        torch.arange(height) * 2, torch.arange(width) * 2, indexing="ij"
    )
    image = torch.stack([ramp_y, ramp_x, ramp_x]).byte()[None]
    out, draws = augment(image, affine=1)
    theta = draws.affine[0].double()
    row, column = height // 2 + 3, width // 2 - 4
    x, y = 2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1
    source_x, source_y = (theta @ torch.tensor([x, y, 1.0], dtype=torch.float64)).tolist()
    expected = torch.tensor([(source_y + 1) * (height - 1), (source_x + 1) * (width - 1)])
    mean, std = torch.tensor([0.4914, 0.4822]), torch.tensor([0.2470, 0.2435])
    seen = (out[0, :2, row, column] * std + mean) * 255
    torch.testing.assert_close(seen, expected.float(), atol=0.05, rtol=0)


def test_what_is_drawn_goes_to_the_device_and_indices_stay():
    _, draws = augment(random_images(8), affine=1, cutout=1)
    moved = vars(draws.to(torch.device("meta")))
    devices = {name: value.device.type for name, value in moved.items() if value is not None}
    assert devices.pop("warped") == "cpu"
    assert set(devices) == {"flip", "affine", "cutout"}
    assert set(devices.values()) == {"meta"}


OTHER = Normalization((0.5, 0.2, 0.7), (0.3, 0.1, 0.2))
NAMES = ("adjust_brightness", "adjust_contrast", "adjust_saturation")


def soft_images(count):
    """Images of middling colors, which no factor near 1 takes out of the range of bytes."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(90, 150, (count, 3, 8, 8), dtype=torch.uint8, generator=source)


def draw_factors(strength, count):
    chosen = resolve_settings(PLAIN | {"color_jitter": strength})
    return draw(chosen, count, torch.Generator().manual_seed(1)).color


def by_torchvision(image, factors):
    values = image.float() / 255
    for name, factor in zip(NAMES, factors.tolist(), strict=True):
        values = getattr(functional, name)(values, factor)
    return values * 255


@pytest.mark.parametrize("only", [0, 1, 2, None])
@pytest.mark.parametrize("normalization", [REFERENCE, OTHER])
def test_each_image_is_changed_as_torchvision_would_by_its_own_factors(only, normalization):
    images = soft_images(6)
    factors = draw_factors(0.3, 6)
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
    lowest, highest = draw_factors(0.2, 1000).aminmax(dim=0)
    torch.testing.assert_close(lowest, torch.full((3,), 0.8), atol=0.01, rtol=0)
    torch.testing.assert_close(highest, torch.full((3,), 1.2), atol=0.01, rtol=0)


def test_each_image_gets_its_own_fraction_of_its_own_partner():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    mix = Mix(torch.tensor([2, 0, 3, 1]), torch.tensor([0.5, 0.25, 0.0, 0.1]))
    mixed = mix_images(images, mix)
    assert mixed.shape == images.shape
    for value, image in zip([0 + 1.0, 0.75, 2.0, 2.8], mixed, strict=True):
        torch.testing.assert_close(image, torch.full((3, 2, 2), value))


def test_fractions_grow_until_halfway_and_every_image_is_a_partner_once():
    chosen = resolve_settings({"mixup": 0.5, "epochs": 10})
    for epoch, largest in enumerate([0, 0.1, 0.2, 0.3, 0.4, *[0.5] * 5]):
        mix = draw_mix(chosen, epoch, 1000, generator(0, Purpose.MIXUP, epoch))
        assert sorted(mix.partner.tolist()) == list(range(1000))
        assert len(set(mix.fraction.tolist())) > 900 or largest == 0
        assert 0.98 * largest <= float(mix.fraction.max()) <= largest


def test_a_draw_depends_on_seed_purpose_epoch_and_step_and_nothing_else():
    torch.manual_seed(1)
    first = torch.rand(4, generator=generator(7, Purpose.ORDER, 3, 5))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(4, generator=generator(7, Purpose.ORDER, 3, 5)))


def test_draws_with_other_coordinates_differ():
    coordinates = [
        (seed, purpose, epoch, step)
        for seed in (0, 1, 2**62)
        for purpose in Purpose
        for epoch in range(5)
        for step in range(5)
    ]
    assert len({derive_seed(*each) for each in coordinates}) == len(coordinates)
