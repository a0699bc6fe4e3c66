"""The proof, and the table of networks whose fields it proves."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from cifar_cnn import receptive_field, verify
from cifar_cnn.analysis import taps
from cifar_cnn.errors import ModelError, UserError

RANDOM_GRAPHS = int(os.environ.get("CIFAR_CNN_RANDOM_GRAPHS", "40"))
ALL = slice(None)
MASK = torch.tensor([True, False, False, True])


class Net(nn.Module):
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


def masked_in_the_forward(net, x):
    mask = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    return torch.cat([x, net.wide(x)], 1)[:, mask]


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


def through_a_view(net, x):
    x.view(len(x), -1).add_(net.wide(x).flatten(1))
    return F.avg_pool2d(x, 3)


def apart(net, x):
    x[:, np.array([0, 1])].add_(net.wide(x)[:, :2])  # a copy
    return x


def weighted_by_the_image(_, x):
    weights = x.mean((2, 3)).view(4, 1, 1, 1).expand(4, 4, 3, 3)
    return F.conv2d(x, weights, padding=1)


def kept_apart(net, x):
    y = F.relu(x)
    y += net.wide(x)
    return x + y


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


def converted(_, x):
    return x[:, :2].type_as(F.avg_pool2d(x, 5, 1, 2)).view(len(x), -1).view(x[:, :2].shape)


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
        weighted_by_the_image,
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
        through_a_view,
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
        lambda _, x: x.index_select(1, torch.tensor([2, 0])), lambda n, x: x[:, n.order], apart,
        lambda _, x: x[:, torch.arange(0, 4, 2)], lambda _, x: x[:, [0, 2], [1, 3]], converted,
        lambda n, x: torch.cat([x, n.wide(x)], 1)[:, [0, 3]], masked_in_the_forward,
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
        lambda n, x: n.wide(x).rot90(1, (2, 3)), lambda n, x: F.cosine_similarity(x, n.wide(x)),
        lambda n, x: torch.max(x, n.wide(x)), lambda n, x: torch.min(x, other=n.wide(x)), filled,
        lambda n, x: F.group_norm(n.wide(x), 2), turned_windows, kept_apart, hooked(ask=False),
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
    assert receptive_field(Net(function), (16, 16)).final.receptive_field == (size, size)
    proof = verify(Net(function), (16, 16))
    assert proof.agreed, proof.first_disagreement


def conv(kernel, **kwargs):
    return nn.Conv2d(3, 3, kernel, **kwargs)


class Strict(nn.Module):
    """A network that takes only one size, or only a batch of one."""

    def __init__(self, network, most=1 << 20, size=None):
        super().__init__()
        self.network, self.most, self.size = network, most, size

    def forward(self, x):
        assert len(x) <= self.most, "only a batch of one"
        assert self.size is None or x.shape[-2:] == self.size, "only this size"
        return self.network(x)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_a_pad_of_every_mode_is_proved_as_a_layer_of_its_own_and_in_a_convolution(mode):
    name = "constant" if mode == "zeros" else mode
    apart = Net(lambda n, x: n.wide(F.pad(x, (1, 1, 1, 1), mode=name)))
    inside = nn.Sequential(conv(3, padding=1), conv(5, padding=2, padding_mode=mode))
    for model in (inside, apart):
        assert receptive_field(model, (16, 16)).final.receptive_field == (7, 7)
        proof = verify(model, (16, 16))
        assert proof.agreed, proof.first_disagreement


def test_parametrised_weights_are_proved():
    model = nn.utils.parametrizations.spectral_norm(conv(3))
    assert receptive_field(model).final.receptive_field == (3, 3)
    assert verify(model).agreed


def test_every_layer_of_a_deep_network_is_compared():
    proof = verify("torchvision.models:resnet18", (64, 64))
    rows = receptive_field("torchvision.models:resnet18", (64, 64)).layers
    assert (proof.agreed, proof.not_shown) == (True, ())
    assert proof.layers >= len({row.name for row in rows})
    assert proof.units > 1000


def test_fields_larger_than_the_image_are_shown_whole_but_those_of_everything():
    proof, rows = verify("baseline"), receptive_field("baseline").layers
    assert (proof.agreed, proof.not_shown) == (True, ())
    assert proof.clipped == ("gap", "convblock5.0", "log_softmax")
    assert proof.layers >= len({row.name for row in rows if row.type != "Dropout"})
    ((height, same), (other, width)) = proof.canvases
    assert height == width > 32 == same == other
    far = verify(nn.Sequential(conv(3), conv(9, dilation=6, padding=24)), (32, 32))
    assert (far.agreed, far.clipped) == (True, ())
    assert far.canvases[0][0] > 51


@pytest.mark.parametrize("most", [1, 100], ids=["batch of one", "batch"])
def test_a_network_that_takes_only_its_own_size_is_proved_there_and_what_is_clipped_is_named(most):
    far = conv(9, dilation=4, padding=16)
    network = nn.Sequential(conv(3, padding=1), nn.MaxPool2d(1), far)
    proof = verify(Strict(network, most, (32, 32)))
    assert proof.agreed
    assert proof.canvases == ((32, 32), (32, 32))
    assert proof.clipped == ("network.2",)
    assert not proof.not_shown


def test_a_linear_layer_made_for_one_size_does_not_stop_the_proof():
    proof = verify(nn.Sequential(conv(3), nn.Flatten(), nn.Linear(3 * 30 * 30, 10)))
    assert proof.agreed
    assert (proof.not_shown, proof.clipped) == ((), ("2",))


def test_a_network_that_takes_only_a_batch_of_one_is_proved_image_by_image():
    def cropped(x):
        return conv_of(x.squeeze(0))[None, :, 4:]

    conv_of, network = conv(3, padding=1), nn.Sequential(conv(3, padding=1), conv(5))
    for model in (Strict(network, 1), Strict(cropped_by(cropped, conv_of), 1)):
        proof = verify(model, (16, 16))
        assert proof.agreed
        assert (proof.gridding, proof.not_shown, proof.clipped) == ((), (), ())


def cropped_by(function, layer):
    module = nn.Module()
    module.layer, module.forward = layer, function
    return module


def blocks():
    return nn.Sequential(
        conv(3, padding=1),
        conv(3, stride=2, padding=1),
        nn.ReLU(),
        conv(3, padding=2, dilation=2),
        nn.MaxPool2d(2),
        conv(3, padding=1),
    )


WINDOW = taps.window
ERRORS = {
    "no dilation": (lambda k, s, p, d: WINDOW(k, s, p, 1), "3"),
    "one tap wider": (lambda k, s, p, d: WINDOW(k + 1, s, p, d), "0"),
    "one tap narrower": (lambda k, s, p, d: WINDOW(max(k - 1, 1), s, p, d), "0"),
    "one dilated tap wider": (lambda k, s, p, d: WINDOW(k + (d > 1), s, p, d), "3"),
    "a wrong stride": (lambda k, s, p, d: WINDOW(k, s + (s > 1), p, d), "1"),
    "no stride": (lambda k, s, p, d: WINDOW(k, 1, p, d), "1"),
    "no padding": (lambda k, s, p, d: WINDOW(k, s, 0, d), "0"),
}


WRAPS = pytest.mark.parametrize(
    "wrap", [{}, {"most": 1}, {"size": (32, 32)}, {"most": 1, "size": (32, 32)}]
)


@WRAPS
def test_without_an_error_networks_of_every_restriction_agree(wrap):
    assert verify(Strict(blocks(), **wrap)).agreed


@WRAPS
@pytest.mark.parametrize(("error", "layer"), ERRORS.values(), ids=ERRORS.keys())
def test_a_planted_error_is_found_and_its_layer_is_named(monkeypatch, error, layer, wrap):
    monkeypatch.setattr(taps, "window", error)
    proof = verify(Strict(blocks(), **wrap))
    assert not proof.agreed
    assert proof.first_disagreement.layer == f"network.{layer}"


def test_a_planted_error_in_the_built_in_network_is_found(monkeypatch):
    monkeypatch.setattr(taps, "window", ERRORS["no dilation"][0])
    assert verify("baseline").first_disagreement.layer == "convblock3.0"


def test_holes_are_reported_where_they_are_and_are_no_error():
    proof = verify(nn.Sequential(conv(3, dilation=2), conv(3, dilation=2)))
    assert proof.agreed
    assert proof.gridding[-1].model_dump() == {
        "layer": "1",
        "axis": "horizontally",
        "contributing": 5,
        "total": 9,
    }

    class Filled(nn.Module):
        def __init__(self):
            super().__init__()
            self.sparse, self.spread = conv(1, stride=2), conv(3, padding=1)
            self.dense = conv(5, stride=2, padding=2)

        def forward(self, x):
            return F.relu(self.spread(self.sparse(x)) + self.dense(x))

    told = verify(Filled()).gridding
    assert {(g.layer, g.contributing, g.total) for g in told} == {("spread", 3, 5)}


def test_the_proof_tells_how_far_it_is_after_each_batch():
    told = []
    verify(Strict(blocks(), 1, (8, 8)), (8, 8), progress=lambda *now: told.append(now))
    assert len(told) == 2 * 8
    assert told == sorted(told)
    assert {total for _, total in told} == {told[-1][0]}


@pytest.mark.parametrize(
    ("function", "reasons"),
    [
        (
            lambda net, x: net.wide(x.sign()) + x,
            dict.fromkeys(("sign", "wide", "add"), "sign gives numbers for NaN"),
        ),
        (
            lambda net, x: net.wide(torch.where(x.isnan(), 0, x)),
            {"isnan": "isnan gives no numbers", "wide": "no numbers that can be NaN"},
        ),
        (
            lambda _, x: x.argmax(1, keepdim=True).float(),
            {"argmax": "argmax gives no numbers", "float": "float is given"},
        ),
        (
            lambda net, x: net.wide(F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
            dict.fromkeys(("max_unpool2d", "wide"), "max_unpool2d"),
        ),
        (lambda net, x: net.wide(x.topk(4, 1)[0]), {"topk": "NaN does not follow topk"}),
        (
            lambda _, x: F.max_pool2d(x, 2, return_indices=True)[1].float(),
            {"float": "float is given"},
        ),
    ],
    ids=["sign", "isnan", "argmax", "unpool", "topk", "indices"],
)
def test_what_nan_does_not_follow_is_not_shown_and_the_reason_names_it(function, reasons):
    proof = verify(Net(function), (16, 16))
    assert proof.agreed  # as far as it goes
    assert proof.layers >= 1  # "first"
    found = {each.layer: each.reason for each in proof.not_shown}
    assert all(reason in found.get(layer, "") for layer, reason in reasons.items()), found


def finite(net, x):
    torch._assert_async(torch.isfinite(x).all())  # noqa: SLF001
    return net.wide(x)


def test_a_network_that_nan_ends_is_one_line_with_exit_status_1():
    model = Net(finite)
    assert receptive_field(model, (16, 16)).final.receptive_field == (7, 7)
    said = r"network cannot run on them: RuntimeError in its forward \(test_proof\.py:\d+\): "
    with pytest.raises(UserError, match=said) as raised:
        verify(model, (16, 16))
    assert raised.value.exit_status == 1
    assert "\n" not in str(raised.value)


def test_kernels_that_spread_nan_end_the_proof_and_never_agree(monkeypatch):
    right = F.conv2d

    def spreading(x, *args, **kwargs):
        y = right(x, *args, **kwargs)
        return torch.full_like(y, torch.nan) if y.isnan().any() else y

    def losing(x, *args, **kwargs):
        return right(x, *args, **kwargs).nan_to_num()

    for kernel in (spreading, losing):
        monkeypatch.setattr(F, "conv2d", kernel)
        with pytest.raises(UserError, match="this machine's convolutions spread NaN") as raised:
            verify("baseline")
        assert raised.value.exit_status == 1


CHANNELS = 4


class Step(nn.Module):
    """One random piece of a network; maps that must meet are cropped to the smaller."""

    def __init__(self, kind, window):
        super().__init__()
        kernel, stride, dilation = window["kernel"], window["stride"], window["dilation"]
        same = [(k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
        wider, ceil = [k + 1 for k in kernel], window["ceil"]
        both = (CHANNELS, CHANNELS)
        make = {
            "conv": lambda: nn.Conv2d(*both, kernel, stride, same, dilation, window["groups"]),
            "valid": lambda: nn.Conv2d(*both, kernel, stride, 0, dilation),
            "same": lambda: nn.Conv2d(*both, kernel, 1, "same", dilation),
            "max": lambda: nn.MaxPool2d(wider, stride, 1, dilation, ceil_mode=ceil),
            "avg": lambda: nn.AvgPool2d(kernel, stride, ceil_mode=ceil),
            "lp": lambda: nn.LPPool2d(2, kernel, stride, ceil_mode=ceil),
            "transposed": lambda: nn.ConvTranspose2d(*both, kernel, 2, dilation=dilation),
            "split": lambda: nn.Conv2d(CHANNELS // 2, CHANNELS // 2, kernel, 1, same, dilation),
        }
        layer = {"added": "conv", "joined": "conv"}.get(kind, kind)
        layer = "same" if kind in {"written", "assigned", "part"} else layer
        self.layer = make.get(layer, nn.Identity)()
        self.other = nn.Conv2d(*both, 1, stride)
        self.join = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        self.kind, self.window = kind, window

    def forward(self, x):
        return getattr(self, f"run_{self.kind}", self.layer)(x)

    def run_nearest(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def run_bilinear(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    def run_corners(self, x):
        size = [n * 2 for n in x.shape[-2:]]
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def run_padded(self, x):
        return F.relu(F.pad(x, [*self.window["kernel"], *self.window["stride"]]))

    def run_sliced(self, x):
        (top, left), (rows, columns) = self.window["kernel"], self.window["stride"]
        return x[:, :, top - 1 :: rows, left - 1 :: columns]

    def run_shuffled(self, x):
        even = F.pad(x, [0, x.shape[-1] % 2, 0, x.shape[-2] % 2])
        return self.join(F.pixel_unshuffle(even, 2)[:, : 2 * CHANNELS])

    def run_added(self, x):
        one, other = cropped(self.layer(x), self.other(x))
        return one + other

    def run_joined(self, x):
        return self.join(torch.cat(cropped(self.layer(x), self.other(x)), 1))

    def run_split(self, x):
        first, second = x.chunk(2, dim=1)
        first, second = cropped(first, self.layer(second))
        return torch.cat([second, first], dim=1)

    def run_written(self, x):
        y = x.clone()
        y.flatten(2).add_(self.layer(x).flatten(2))
        return y

    def run_assigned(self, x):
        (top, left), y = self.window["kernel"], x[:, [3, 1, 0, 2]]
        y[:, 1:, top - 1 :, left - 1 :] = self.layer(x)[:, 1:, top - 1 :, left - 1 :]
        y[:, [2, 0], ::top, ::left] = self.layer(x)[:, 2:, ::top, ::left]
        return y

    def run_part(self, x):
        y = x * 1
        y[:, : self.window["groups"]] += self.layer(x)[:, : self.window["groups"]]
        return y

    def run_unpooled(self, x):
        kernel, size = self.window["kernel"], x.shape[-2:]
        pooled, places = F.max_pool2d(x, kernel, return_indices=True)
        joined = self.join(torch.cat([pooled, pooled], 1))
        return F.max_unpool2d(joined, places, kernel, output_size=size)

    def run_windows(self, x):
        (rows, columns), (down, along) = self.window["kernel"], self.window["stride"]
        return x.unfold(2, rows, down).unfold(3, columns, along).mean((4, 5))

    def run_statistics(self, x):
        return torch.var_mean(x, 1, keepdim=True)[1] + x.topk(CHANNELS, 1)[0]


def cropped(one, other):
    rows, columns = (min(one.shape[d], other.shape[d]) for d in (-2, -1))
    return one[..., :rows, :columns], other[..., :rows, :columns]


KINDS = [
    *("conv", "valid", "same", "max", "avg", "lp", "transposed", "nearest", "bilinear"),
    *("corners", "sliced", "padded", "shuffled", "added", "joined", "split"),
    *("written", "assigned", "part", "unpooled", "windows", "statistics"),
]


def pairs(most):
    return st.tuples(st.integers(1, most), st.integers(1, most))


WINDOWS = st.fixed_dictionaries(
    {
        "kernel": pairs(4),
        "stride": pairs(2),
        "dilation": pairs(3),
        "groups": st.sampled_from([1, 2, 4]),
        "ceil": st.booleans(),
    }
)


@settings(
    max_examples=RANDOM_GRAPHS,
    deadline=None,
    derandomize="CIFAR_CNN_RANDOM_GRAPHS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(st.lists(st.tuples(st.sampled_from(KINDS), WINDOWS), min_size=1, max_size=6))
def test_random_networks_agree_with_their_proof(pieces):
    """`CIFAR_CNN_RANDOM_GRAPHS=1000 pytest tests/analysis/test_proof.py -k random` tries 1,000."""
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), *(Step(*piece) for piece in pieces))
    try:
        result = receptive_field(model, (48, 48))
    except ModelError as error:
        assume("cannot take" not in str(error))  # too small for its windows
        raise
    proof = verify(model, (48, 48))
    assert proof.agreed, proof.first_disagreement
    assert np.isfinite(result.features.receptive_field).all()


def test_statistics_over_the_whole_batch_are_proved_one_image_at_a_time():
    class Standardized(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv((x - x.mean()) / (x.std() + 1e-6))

    proof = verify(Standardized(), (16, 16))
    assert proof.agreed
    assert not proof.not_shown
    assert proof.layers >= 3
