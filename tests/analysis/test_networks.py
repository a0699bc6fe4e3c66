"""Networks by their fields, each proved by the network itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from cifar_cnn import receptive_field, verify
from cifar_cnn.analysis.layers import layers_of
from cifar_cnn.analysis.network import run_network
from cifar_cnn.analysis.results import Unit

ALL = slice(None)
MODES = ("constant", "reflect", "replicate", "circular")
MASK = torch.tensor([True, False, False, True])


def assert_proved(model, size=(16, 16)):
    proof = verify(model, size)
    assert proof.agreed, proof.first_disagreement


def conv(kernel, out=4, channels=3, **kwargs):
    return nn.Conv2d(channels, out, kernel, **kwargs)


class Behind(nn.Module):
    """A 3×3 convolution, then a function of the network and of its map."""

    def __init__(self, function):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 4, 5, padding=2)
        self.deep = nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1))
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("order", torch.tensor([2, 0]))
        self.function = function

    def forward(self, x):
        return self.function(self, self.first(x))


def put(index, value, then=lambda y: y):
    """Return a function of a network and its map that assigns to a part of the map."""

    def assigned(net, x):
        y = x.clone()
        y[index] = value(net, x) if callable(value) else value
        return then(y)

    return assigned


def wide(*index):
    return lambda net, x: net.wide(x)[index]


def chosen(index):
    """Return a function that chooses from four channels of field 3 and four of field 7."""
    return lambda net, x: torch.cat([x, net.wide(x)], 1)[:, :4][:, index]


def filled(net, x):
    y = torch.zeros_like(x)
    y[:, 0] = net.wide(x)[:, 0]
    y[..., 1:, 2:5, :] = x[:, 1:, 2:5]
    return y


def turned_windows(_, x):
    windows = F.unfold(x, 3, padding=1).unflatten(1, (4, 9))
    return F.fold(windows.flip(2).flatten(1, 2), x.shape[2:], 3, padding=1)


def unpooled(net, x):
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(net.wide(pooled), places, 2)


def added(view, back=lambda y, x: y):
    """Return a function that adds to a view of the map in place."""

    def function(net, x):
        y = view(x)
        y += view(net.wide(x))
        return back(y, x)

    return function


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def without_gradient(net, x):
    with torch.no_grad():
        x = net.wide(x)
        assert not x.requires_grad
    return net.wide(x)


def hooked(*, ask):
    def function(net, x):
        if not ask or x.requires_grad:
            x.register_hook(lambda _: pytest.fail("the proof is no training"))
        return net.wide(x)

    return function


INDICES = [
    *(np.array([0, 3]), np.array(1), np.int64(2), (0, -1), [-4, 2], range(2), torch.tensor(1)),
    *(MASK, MASK.numpy(), MASK.tolist(), torch.tensor([1, 0, 0, 1], dtype=torch.uint8)),
]
EVEN, THIRD = slice(0, 16, 2), slice(1, 16, 3)
# fmt: off
TABLE = {
    18: [
        lambda _, x: (x - x.mean()) / (x.std() + 1e-6), lambda _, x: x * x.std(False),
        lambda _, x: torch.cat(torch.var_mean(x, (2, 3)), 1),
        lambda n, x: nn.LogSoftmax()(x.mean((2, 3))),
        lambda _, x: x.mean((2, 3)), lambda _, x: x.mean([-2, -1]),
        lambda _, x: F.adaptive_avg_pool2d(x, 1), lambda _, x: x.flatten(1) @ torch.ones(1024, 5),
        lambda n, x: n.attention(*[x.flatten(2).mT] * 3)[0],
        lambda _, x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3),
        lambda _, x: torch.einsum("nchw,hk->nckw", x, torch.ones(16, 16)).sum(3),
        lambda _, x: x.flatten(2).softmax(-1).view(x.shape), lambda _, x: x.cumsum(2).cumsum(-1),
        lambda _, x: F.grid_sample(x, x[:, :2].tanh().permute(0, 2, 3, 1)),
    ],
    15: [
        lambda n, x: n.lstm(x[..., ::4, ::4].flatten(2).mT)[0],
        lambda n, x: n.gru(x[..., ::4, ::4].flatten(2).mT)[0],
    ],
    19: [
        lambda _, x: F.conv2d(x, x.mean((2, 3)).view(4, 1, 1, 1).expand(4, 4, 3, 3), padding=1),
        lambda _, x: F.unfold(x, 3, padding=1, stride=2),
    ],
    12: [
        unpooled,
    ],
    11: [
        lambda n, x: n.wide(x.add_(n.wide(x))), without_gradient,
        lambda n, x: n.wide(checkpoint(n.wide, x, use_reentrant=False)),
    ],
    9: [
        lambda n, x: F.avg_pool2d((x.view(len(x), -1).add_(n.wide(x).flatten(1)), x)[1], 3),
    ],
    6: [
        lambda _, x: x.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)),
    ],
    5: [
        lambda n, x: n.deep(x.unsqueeze(2)).squeeze(2),
        lambda _, x: F.avg_pool2d(Clamp.apply(x), 3),
    ],
    3: [
        lambda n, x: torch.cat([x[:, :2], n.wide(x)[:, 2:]], 1).chunk(2, 1)[0],
        lambda _, x: x.index_select(1, torch.tensor([2, 0])), lambda n, x: x[:, n.order],
        lambda n, x: (x[:, np.array([0, 1])].add_(n.wide(x)[:, :2]), x)[1],  # into a copy
        lambda _, x: x[:, torch.arange(0, 4, 2)], lambda _, x: x[:, [0, 2], [1, 3]],
        lambda _, x: x.type_as(F.avg_pool2d(x, 5, 1, 2)).view(len(x), -1).view(x.shape),
        lambda n, x: torch.cat([x, n.wide(x)], 1)[:, [0, 3]],
        lambda n, x: torch.cat([x, n.wide(x)], 1)[:, torch.arange(8) < 4],
        lambda _, x: x.T.mean(2).T, lambda _, x: torch.std_mean(x, 1, keepdim=True)[0],
        lambda _, x: x.median(1, keepdim=True)[0], lambda _, x: x.topk(2, 1)[0],
        lambda _, x: x.topk(k=2, dim=1)[0], lambda _, x: F.normalize(x, dim=(1,)),
        lambda _, x: torch.einsum("bc...,dc->bd...", x, torch.ones(5, 4)), put((..., 0, ...), 0.0),
        lambda _, x: torch.tensordot(x, torch.ones(4, 5), ([1], [0])), put((..., [1, 5, -1]), 0.0),
        lambda _, x: torch.matmul(x.permute(0, 2, 3, 1), torch.ones(4)), *map(chosen, INDICES),
        lambda _, x: F.rms_norm(x, (16,)), put((ALL, slice(4, None)), 0),
        lambda _, x: F.fold(F.unfold(x, 3, 1, 2, 2), x.shape[2:], 3, 1, 2, 2),
        lambda _, x: F.fold(F.unfold(x, (2, 1), padding=1), (16, 16), (2, 1), padding=1),
        put((ALL, slice(2)), wide(ALL, slice(2)), lambda y: y[:, 2:]),
        put((..., EVEN, ALL), wide(..., EVEN, ALL), lambda y: y[:, :, 1::2]),
        put((ALL, [3, 0]), wide(ALL, slice(2)), lambda y: y[:, [1, 2]]),
        put((ALL, ALL, None, 0), lambda _, x: x[:, :, 1:2]), put((ALL, np.array([0, 1])), 0.0),
        put((ALL, ALL, ALL, None, 3), lambda _, x: x[:, :, :, None, 4]),
        put((ALL, MASK.numpy()), 0.0), put((ALL, MASK & False), 0.0),
    ],
    7: [
        lambda n, x: n.wide(F.layer_norm(x.flatten(2).mT, (4,)).mT.unflatten(2, (16, 16))),
        lambda n, x: torch.logaddexp(x, n.wide(x)).atan().sinh(), lambda n, x: n.wide(x.flip(3)),
        lambda n, x: torch.hstack([x, n.wide(x)]), lambda n, x: n.wide(x)[:, torch.randperm(4)],
        *[lambda n, x, mode=mode: n.wide(F.pad(x, [1] * 4, mode=mode)) for mode in MODES],
        lambda n, x: n.wide(x).rot90(1, (2, 3)), lambda n, x: F.cosine_similarity(x, n.wide(x)),
        lambda n, x: torch.max(x, n.wide(x)), lambda n, x: torch.min(x, other=n.wide(x)), filled,
        lambda n, x: F.group_norm(n.wide(x), 2), turned_windows, hooked(ask=False),
        lambda n, x: x + F.relu(x).add_(n.wide(x)),
        lambda n, x: torch.cat([n.wide(image[None]) for image in x]), hooked(ask=True),
        lambda n, x: torch.stack([n.wide(image) for image in x]), put(0, wide(0)),
        lambda n, x: put(n.wide(x) < 0, 0.0)(n, x), added(lambda x: x.permute(0, 2, 3, 1)),
        lambda n, x: n.wide(put((..., slice(4)), 0.0)(n, x)), put((..., None), wide(..., None)),
        lambda n, x: torch.cat([x, n.wide(x)], 1).softmax(1)[:, :1],
        lambda n, x: F.softmax(torch.cat([x, n.wide(x)], 1))[:, :1],
        added(lambda x: x.flatten(2), lambda y, x: y.view(x.shape)),
        added(lambda x: x[:, :2], lambda _, x: x), put((ALL, slice(2)), wide(ALL, slice(2))),
        put((..., EVEN, THIRD), wide(..., EVEN, THIRD)), put((None, ALL, 1), wide(None, ALL, 1)),
        put((ALL, [3, 0], slice(2, 9)), wide(ALL, slice(2), slice(2, 9))),
        put((0, None, ..., None, 2), wide(0, None, ..., None, 3)),
        put((ALL, [0, 2], None), wide(ALL, slice(2), None)), put((ALL, MASK), wide(ALL, slice(2))),
        put((0, [0, 2], ..., 3), wide(0, slice(2), ALL, 4)),
        put((ALL, np.array([3, -3])), wide(ALL, slice(2))), put((ALL, np.int64(-1)), wide(ALL, 1)),
        put((ALL, torch.tensor(2)), wide(ALL, 1)), put((ALL, (0, -1)), wide(ALL, slice(2))),
    ],
}
# fmt: on
"""The networks behind a 3×3 convolution, by their field on 16×16 images."""


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize(
    ("function", "size"), [(function, size) for size, each in TABLE.items() for function in each]
)
def test_each_network_has_its_field_and_the_network_proves_it(function, size):
    assert receptive_field(Behind(function), (16, 16)).final.receptive_field == (size, size)
    assert_proved(Behind(function))


def resize(size, mode, **options):
    return lambda _, x: F.interpolate(x, size, mode=mode, **options)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(conv(3, dilation=2), conv(3, 4, 4, dilation=2)), (9, 1, 0)),
        (conv((3, 5), padding=(1, 2)), ((3, 5), 1, (1, 2))), (conv(4, padding=1), (4, 1, 1)),
        (conv(4, padding="same"), (4, 1, 1)), (conv(3, padding="same", dilation=3), (7, 1, 3)),
        (nn.Sequential(nn.ZeroPad2d((2, 0, 1, 0)), conv(3)), (3, 1, (1, 2))),
        (nn.Sequential(nn.ReflectionPad2d(1), conv(3)), (3, 1, 1)),
        *[(conv(3, padding=1, padding_mode=mode), (3, 1, 1)) for mode in MODES[1:]],
        (nn.utils.parametrizations.spectral_norm(conv(3)), (3, 1, 0)),
        (nn.MaxPool2d(3, 2, 1, dilation=2), (5, 2, 1)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (3, 2, 0)),
        (nn.AvgPool2d((2, 1)), ((2, 1), (2, 1), 0)), (nn.LPPool2d(2, 3, stride=2), (3, 2, 0)),
        (lambda _, x: F.max_pool2d(F.relu(x), 2), (2, 2, 0)),
        (lambda _, x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2), (3, 2, 1)),
        (lambda _, x: x[:, :, 1::2, ::3], (1, (2, 3), (-1, 0))),
        (lambda _, x: x[..., 3:-1], (1, 1, (0, -3))), (nn.PixelUnshuffle(2), (2, 2, 0)),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), (1, 1, 0)),
        (lambda _, x: F.avg_pool2d(input=F.normalize(x), kernel_size=3), (3, 3, 0)),
        (lambda _, x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), (1, 1, 0)),
        (lambda _, x: F.adaptive_avg_pool2d(x, 5), (8, 32 / 5, 0)),
        (lambda _, x: F.conv_transpose2d(x, torch.ones(3, 3, 2, 2), stride=3, dilation=2),
         (1, 1 / 3, 0)),
        (resize(9, "nearest"), (1, 32 / 9, 0)), (resize(9, "nearest-exact"), (1, 32 / 9, -1)),
        (resize(18, "bilinear"), (2, 16 / 9, 0)), (resize(48, "bicubic"), (4, 2 / 3, 2)),
        (resize(23, "bilinear", align_corners=True), (2, 31 / 22, 0)),
        (resize(12, "bilinear", antialias=True), (6, 8 / 3, 1)),
        (resize(60, "bilinear", antialias=True), (2, 8 / 15, 1)),
        (resize(16, "bicubic", antialias=True), (8, 2, 3)),
    ],
)  # fmt: skip
def test_each_kind_of_window_has_its_size_jump_and_padding(net, model, expected):
    model = nn.Sequential(nn.ReLU(), net(model))
    found = receptive_field(model).features
    answer = (found.receptive_field, found.jump, found.padding)
    assert tuple(a[0] if a[0] == a[1] else a for a in answer) == expected
    assert_proved(model, (32, 32))


@pytest.mark.parametrize(
    ("model", "sizes", "jump"),
    [
        (nn.Upsample(scale_factor=2), [3] * 3, 0.5),
        (nn.Upsample(scale_factor=2, mode="bilinear"), [4] * 3, 0.5),
        (nn.Upsample(size=(16, 16), mode="bilinear", align_corners=True), [3, 4, 4], 7 / 15),
        (nn.ConvTranspose2d(4, 4, 2, stride=2), [3] * 3, 0.5),
        (nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1), [3, 4, 3], 0.5),
        (nn.PixelShuffle(2), [3] * 3, 0.5),
    ],
)
def test_upsampled_units_see_what_their_phase_sees(model, sizes, jump):
    run, _ = run_network(nn.Sequential(conv(3, padding=1), model), (8, 8))
    walk = layers_of(run)[-1].walks[0]
    assert (walk.high - walk.low + 1).tolist()[:3] == sizes
    assert (walk.size, float(walk.jump)) == (max(sizes), jump)


def padded(_, x):
    wide = torch.zeros(len(x), 3, 20, 20)
    wide[:, :, 2:-2, 2:-2] = x
    return wide


def cleared(_, x):
    x = x * 1
    x[..., :4] = 0
    return x


@pytest.mark.parametrize(
    ("function", "jump", "start", "padding"),
    [
        (padded, [1, 1], [0, 0], [1, 1]),
        (cleared, [1, 1], [0, 4], [1, -3]),
        (lambda n, x: cleared(n, x).flip(3), [1, -1], [0, 15], [1, -3]),
        (lambda n, x: F.avg_pool2d(padded(n, x), 5, 1, 2), [1, 1], [0, 0], [1, 1]),
        (lambda n, x: F.interpolate(padded(n, x), scale_factor=2.0), [0.5] * 2, [0, 0], [1, 1]),
        (lambda n, x: F.max_pool2d(cleared(n, x), 2), [2, 2], [0.5, 4.5], [1, -3]),
        (lambda _, x: torch.roll(x, (1, -3), (2, 3)), [1, 1], None, [1, 1]),
        (lambda _, x: x.flip(3), [1, -1], [0, 15], [1, 1]),
    ],
)
def test_units_that_see_nothing_and_moved_maps_keep_jump_start_and_padding(
    net, function, jump, start, padding
):
    model = nn.Sequential(conv(3, 3, padding=1), net(function))
    found = receptive_field(model, (16, 16)).model_dump(mode="json")
    assert (found["features"]["jump"], found["features"]["padding"]) == (jump, padding)
    assert start is None or found["layers"][-1]["start"] == start
    assert_proved(model)


def test_a_unit_that_sees_nothing_has_no_field_and_no_center(net):
    first = conv(3, 3, padding=1)
    units = receptive_field(nn.Sequential(first, net(padded)), (16, 16)).units
    assert units.first == Unit(receptive_field=(0, 0), start=(None, None))
    assert units.middle == Unit(receptive_field=(3, 3), start=(7, 7))

    def emptied(_, x):
        x = x * 1
        x[...] = 0
        return x

    nothing = receptive_field(nn.Sequential(first, net(emptied)), (16, 16)).model_dump(mode="json")
    assert nothing["final"]["receptive_field"] == [0, 0]
    assert nothing["layers"][-1]["start"] == [None, None]
