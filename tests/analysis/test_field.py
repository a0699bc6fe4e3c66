from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import hull, image_field
from cifar_cnn.analysis.layout import reshape
from cifar_cnn.analysis.moves import locate_views
from cifar_cnn.analysis.taps import Taps, apply_taps

SHAPE = (1, 3, 6, 4)
WIDE = Taps(1, ((-1, 0, 1),))
TWICE = Taps(1, ((0,), (0,)))
IN = 12


def seen(field, axis=0):
    """Low and high of every element, as full arrays."""
    return [np.broadcast_to(end, field.shape) for end in field.span(axis)]


def test_windows_reach_beyond_the_border_and_strides_walk():
    low, high = seen(apply_taps(image_field(SHAPE), 2, Taps(2, ((-1, 0, 1),)), 3))
    assert low[0, 0, :, 0].tolist() == [-1, 1, 3]
    assert high[0, 0, :, 0].tolist() == [1, 3, 5]


def test_a_family_keeps_its_shortest_period():
    up = apply_taps(image_field(SHAPE), 2, TWICE, 12)
    assert up.families[0].period == 2
    down = apply_taps(up, 2, Taps(2, ((0,),)), 6)
    assert (down.families[0].period, down.families[0].slope) == (1, 1)


def test_paths_of_different_jump_stay_exact_beyond_the_border():
    image = image_field((1, 1, 8, 1))
    coarse = apply_taps(image, 2, Taps(2, ((0,),)), 4)
    fine = apply_taps(image, 2, Taps(1, ((0,),)), 4)
    low, high = seen(apply_taps(hull(coarse.shape, [coarse, fine]), 2, WIDE, 4))
    assert low[0, 0, :, 0].tolist() == [-2, 0, 1, 2]
    assert high[0, 0, :, 0].tolist() == [2, 4, 6, 8]


def permute(field, order):
    (view,) = locate_views(lambda tensor: tensor.permute(order), field.shape)
    return view.read(field)


def test_reshaping_moves_elements_as_numpy_does():
    field = apply_taps(image_field(SHAPE), 2, WIDE, 6)
    low, _ = seen(field)
    flat = reshape(field, (1, 3, 24))
    assert (seen(flat)[0] == low.reshape(1, 3, 24)).all()
    moved = permute(flat, (0, 2, 1))
    assert (seen(moved)[0] == low.reshape(1, 3, 24).transpose(0, 2, 1)).all()
    back = reshape(permute(moved, (0, 2, 1)), SHAPE)
    assert (seen(back)[0] == low).all()
    assert back.families[0].dim == 2, "an even walk is recognized again"


def read_by(operation):
    """Which input units each output unit of a function on (1, 1, IN, 1) maps depends on."""
    image = torch.ones(1, 1, IN, 1, dtype=torch.float64, requires_grad=True)
    units = operation(image)[0, 0, :, 0]
    slopes = [torch.autograd.grad(unit, image, retain_graph=True)[0] for unit in units]
    return [set(slope[0, 0, :, 0].nonzero().flatten().tolist()) for slope in slopes]


def read_by_taps(tap, unit):
    turn, phase = divmod(unit, len(tap.offsets))
    return {turn * tap.step + offset for offset in tap.offsets[phase]}


def ones(*size):
    return torch.ones(1, 1, *size, 1, dtype=torch.float64)


def resized(size, mode, **kwargs):
    return lambda x: F.interpolate(x, size=(size, 1), mode=mode, **kwargs)


@pytest.mark.parametrize(
    ("tap", "operation"),
    [
        (taps.window(3, 2, 1, 2), lambda x: F.conv2d(x, ones(3), None, (2, 1), (1, 0), (2, 1))),
        (taps.transposed(3, 2, 1, 1), lambda x: F.conv_transpose2d(x, ones(3), None, 2, (1, 0))),
        (
            taps.transposed(2, 3, 0, 2),
            lambda x: F.conv_transpose2d(x, ones(2), None, (3, 1), 0, 0, 1, (2, 1)),
        ),
        (taps.adaptive(IN, 5), lambda x: F.adaptive_avg_pool2d(x, (5, 1))),
        (taps.nearest(Fraction(IN, 9), exact=False), resized(9, "nearest")),
        (taps.nearest(Fraction(IN, 9), exact=True), resized(9, "nearest-exact")),
        (taps.interpolated(Fraction(IN, 18), 1, align_corners=False), resized(18, "bilinear")),
        (
            taps.interpolated(Fraction(IN - 1, 22), 1, align_corners=True),
            resized(23, "bilinear", align_corners=True),
        ),
        (taps.interpolated(Fraction(IN, 24), 2, align_corners=False), resized(24, "bicubic")),
        (taps.antialiased(Fraction(IN, 5), 1), resized(5, "bilinear", antialias=True)),
        (taps.antialiased(Fraction(IN, 30), 1), resized(30, "bilinear", antialias=True)),
        (taps.antialiased(Fraction(IN, 6), 2), resized(6, "bicubic", antialias=True)),
    ],
)
def test_taps_are_what_torch_reads_away_from_the_border(tap, operation):
    expected = read_by(operation)
    found = [read_by_taps(tap, unit) for unit in range(len(expected))]
    inside = [i for i, reads in enumerate(found) if all(0 <= unit < IN for unit in reads)]
    assert len(inside) >= len(found) // 3
    assert [found[i] for i in inside] == [expected[i] for i in inside]
