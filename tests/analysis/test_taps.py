from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.analysis import taps

IN = 12


def read_by(operation):
    """Which input units each output unit of a function on (1, 1, IN, 1) maps depends on."""
    image = torch.ones(1, 1, IN, 1, dtype=torch.float64, requires_grad=True)
    out = operation(image)[0, 0, :, 0]
    reads = []
    for unit in out:
        (gradient,) = torch.autograd.grad(unit, image, retain_graph=True)
        reads.append(set(gradient[0, 0, :, 0].nonzero().flatten().tolist()))
    return reads


def read_by_taps(tap, count):
    reads = []
    for unit in range(count):
        turn, phase = divmod(unit, len(tap.offsets))
        reads.append({turn * tap.step + offset for offset in tap.offsets[phase]})
    return reads


def ones(*size):
    return torch.ones(1, 1, *size, 1, dtype=torch.float64)


def resized(size, mode, **kwargs):
    return lambda x: F.interpolate(x, size=(size, 1), mode=mode, **kwargs)


@pytest.mark.parametrize(
    ("tap", "operation"),
    [
        (taps.window(3, 2, 1, 2), lambda x: F.conv2d(x, ones(3), None, (2, 1), (1, 0), (2, 1))),
        (
            taps.transposed(3, 2, 1, 1),
            lambda x: F.conv_transpose2d(x, ones(3), None, (2, 1), (1, 0)),
        ),
        (
            taps.transposed(2, 3, 0, 2),
            lambda x: F.conv_transpose2d(x, ones(2), None, (3, 1), 0, 0, 1, (2, 1)),
        ),
        (taps.strided(1, 3), lambda x: x[:, :, 1::3]),
        (taps.repeated(3), lambda x: x.repeat_interleave(3, 2)),
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
    found = read_by_taps(tap, len(expected))
    inside = [i for i, reads in enumerate(found) if all(0 <= unit < IN for unit in reads)]
    assert len(inside) >= len(found) // 3
    assert [found[i] for i in inside] == [expected[i] for i in inside]
