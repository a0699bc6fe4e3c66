import numpy as np

from cifar_cnn.analysis.field import Taps, apply_taps, hull, image_field
from cifar_cnn.analysis.field_layout import concatenate, permute, reduce, reshape, select

SHAPE = (1, 3, 6, 4)
WIDE = Taps(1, ((-1, 0, 1),))
TWICE = Taps(1, ((0,), (0,)))


def seen(field, axis=0):
    """Low and high of every element, as full arrays."""
    low, high = np.full(field.shape, 1 << 40), np.full(field.shape, -(1 << 40))
    for family in field.axes[axis]:
        listed = family.listed(field.shape)
        low, high = np.minimum(low, listed.low), np.maximum(high, listed.high)
    return low, high


def test_the_image_sees_itself():
    low, high = seen(image_field(SHAPE))
    rows = np.broadcast_to(np.arange(6)[:, None], SHAPE)
    assert (low == rows).all()
    assert (high == rows).all()


def test_windows_reach_beyond_the_border_and_strides_walk():
    low, high = seen(apply_taps(image_field(SHAPE), 2, Taps(2, ((-1, 0, 1),)), 3))
    assert low[0, 0, :, 0].tolist() == [-1, 1, 3]
    assert high[0, 0, :, 0].tolist() == [1, 3, 5]


def test_a_family_keeps_its_shortest_period():
    up = apply_taps(image_field(SHAPE), 2, TWICE, 12)
    assert up.axes[0][0].period == 2
    down = apply_taps(up, 2, Taps(2, ((0,),)), 6)
    assert down.axes[0][0].period == 1
    assert down.axes[0][0].slope == 1


def test_paths_of_different_jump_stay_exact_beyond_the_border():
    image = image_field((1, 1, 8, 1))
    coarse = apply_taps(image, 2, Taps(2, ((0,),)), 4)
    fine = apply_taps(image, 2, Taps(1, ((0,),)), 4)
    both = apply_taps(hull(coarse.shape, [coarse, fine]), 2, WIDE, 4)
    low, high = seen(both)
    assert low[0, 0, :, 0].tolist() == [-2, 0, 1, 2]
    assert high[0, 0, :, 0].tolist() == [2, 4, 6, 8]


def test_channels_keep_apart_until_they_are_mixed():
    image = image_field(SHAPE)
    joined = concatenate([image, apply_taps(image, 2, WIDE, 6)], 1)
    low, _ = seen(joined)
    assert low[0, :, 2, 0].tolist() == [2, 2, 2, 1, 1, 1]
    assert (seen(select(joined, 1, np.array([0, 1])))[0][0, :, 2, 0] == 2).all()
    assert (seen(reduce(joined, [1]))[0][0, 0, 2] == 1).all()


def test_reshaping_moves_elements_as_numpy_does():
    field = apply_taps(image_field(SHAPE), 2, WIDE, 6)
    low, _ = seen(field)
    flat = reshape(field, (1, 3, 24))
    assert (seen(flat)[0] == low.reshape(1, 3, 24)).all()
    moved = permute(flat, (0, 2, 1))
    assert (seen(moved)[0] == low.reshape(1, 3, 24).transpose(0, 2, 1)).all()
    back = reshape(permute(moved, (0, 2, 1)), SHAPE)
    assert (seen(back)[0] == low).all()
    assert back.axes[0][0].dim == 2, "an even walk is recognized again"


def test_a_gate_widens_to_everything_it_saw():
    image = image_field(SHAPE)
    gate = reduce(image, [2, 3])
    low, high = seen(hull(SHAPE, [image, gate]))
    assert (low == 0).all()
    assert (high == 5).all()
