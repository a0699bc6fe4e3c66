"""The proof: what it compares, what it finds, and what it cannot show."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from cifar_cnn import receptive_field, verify
from cifar_cnn.analysis import taps
from cifar_cnn.errors import ModelError, UserError

RANDOM_GRAPHS = int(os.environ.get("CIFAR_CNN_RANDOM_GRAPHS", "40"))


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


@pytest.mark.parametrize(("name", "side"), [("baseline", 32), ("torchvision.models:resnet18", 64)])
def test_every_layer_is_compared(name, side):
    proof, rows = verify(name, (side, side)), receptive_field(name, (side, side)).layers
    assert (proof.agreed, proof.not_shown) == (True, ())
    assert proof.layers >= len({row.name for row in rows if row.type != "Dropout"})
    assert proof.units > 400


def test_fields_larger_than_the_image_are_shown_whole_but_those_of_everything():
    proof = verify("baseline")
    assert proof.clipped == ("gap", "convblock5.0", "log_softmax")
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


def test_a_network_that_takes_only_a_batch_of_one_is_proved_image_by_image(net):
    cropped = net(lambda n, x: n.conv(x.squeeze(0))[None, :, 4:], conv=conv(3, padding=1))
    for network in (nn.Sequential(conv(3, padding=1), conv(5)), cropped):
        proof = verify(Strict(network, 1), (16, 16))
        assert proof.agreed
        assert (proof.gridding, proof.not_shown, proof.clipped) == ((), (), ())


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
ERRORS = [
    (WINDOW, None),
    (lambda k, s, p, d: WINDOW(k, s, p, 1), "3"),
    (lambda k, s, p, d: WINDOW(k + 1, s, p, d), "0"),
    (lambda k, s, p, d: WINDOW(max(k - 1, 1), s, p, d), "0"),
    (lambda k, s, p, d: WINDOW(k + (d > 1), s, p, d), "3"),
    (lambda k, s, p, d: WINDOW(k, s + (s > 1), p, d), "1"),
    (lambda k, s, p, d: WINDOW(k, 1, p, d), "1"),
    (lambda k, s, p, d: WINDOW(k, s, 0, d), "0"),
]


@pytest.mark.parametrize(
    "wrap", [{}, {"most": 1}, {"size": (32, 32)}, {"most": 1, "size": (32, 32)}]
)
@pytest.mark.parametrize(("error", "layer"), ERRORS)
def test_a_planted_error_is_found_and_its_layer_is_named(monkeypatch, error, layer, wrap):
    monkeypatch.setattr(taps, "window", error)
    wrong = verify(Strict(blocks(), **wrap)).first_disagreement
    assert (wrong and wrong.layer) == (layer and f"network.{layer}")


def test_holes_are_reported_where_they_are_and_are_no_error(net):
    proof = verify(nn.Sequential(conv(3, dilation=2), conv(3, dilation=2)))
    assert proof.agreed
    last = proof.gridding[-1]
    assert (last.layer, last.axis) == ("1", "horizontally")
    assert (last.contributing, last.total) == (5, 9)

    layers = {"sparse": conv(1, stride=2), "spread": conv(3, padding=1)}
    layers["dense"] = conv(5, stride=2, padding=2)
    reports = verify(net(lambda n, x: n.spread(n.sparse(x)) + n.dense(x), **layers)).gridding
    assert {(g.layer, g.contributing, g.total) for g in reports} == {("spread", 3, 5)}


def test_the_proof_tells_how_far_it_is_after_each_batch():
    reports = []
    verify(Strict(blocks(), 1, (8, 8)), (8, 8), progress=lambda *now: reports.append(now))
    assert len(reports) == 2 * 8
    assert reports == sorted(reports, key=lambda now: now[2])
    assert {(doing, total) for doing, _, _, total in reports} == {("proving", reports[-1][2])}


@pytest.mark.parametrize(
    ("function", "reasons"),
    [
        (lambda n, x: n.wide(x.sign()) + x, dict.fromkeys(("sign", "wide", "add"), "sign gives")),
        (lambda n, x: n.wide(torch.where(x.isnan(), 0, x)),
         {"isnan": "isnan gives no numbers", "wide": "no numbers that can be NaN"}),
        (lambda _, x: x.argmax(1, keepdim=True).float(),
         {"argmax": "argmax gives no numbers", "float": "float is given"}),
        (lambda n, x: n.wide(F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
         dict.fromkeys(("max_unpool2d", "wide"), "max_unpool2d")),
        (lambda n, x: n.wide(x.topk(3, 1)[0]), {"topk": "NaN does not follow topk"}),
        (lambda _, x: F.max_pool2d(x, 2, return_indices=True)[1].float(), {"float": "is given"}),
    ],
    ids=["sign", "isnan", "argmax", "unpool", "topk", "indices"],
)  # fmt: skip
def test_what_nan_does_not_follow_is_not_shown_and_the_reason_names_it(net, function, reasons):
    first, wide = conv(3, padding=1), conv(5, padding=2)
    model = net(lambda n, x: function(n, n.first(x)), first=first, wide=wide)
    proof = verify(model, (16, 16))
    assert proof.agreed  # as far as it goes
    assert proof.layers >= 1  # "first"
    found = {each.layer: each.reason for each in proof.not_shown}
    assert all(reason in found.get(layer, "") for layer, reason in reasons.items()), found


def finite(_, x):
    torch._assert_async(torch.isfinite(x).all())  # noqa: SLF001
    return F.avg_pool2d(x, 5)


def test_a_network_that_nan_ends_is_one_line_with_exit_status_1(net):
    model = net(finite)
    assert receptive_field(model, (16, 16)).final.receptive_field == (5, 5)
    message = r"network cannot run on them: RuntimeError in its forward \(test_proof\.py:\d+\): "
    with pytest.raises(UserError, match=message) as raised:
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
    """One random piece of a network: a layer, or a function of its layers and the map."""

    def __init__(self, kind, window):
        super().__init__()
        kernel, stride, dilation = window["kernel"], window["stride"], window["dilation"]
        same = [(k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
        wider, ceil = [k + 1 for k in kernel], window["ceil"]
        both, half = (CHANNELS, CHANNELS), (CHANNELS // 2, CHANNELS // 2)
        self.layer = {
            "valid": lambda: nn.Conv2d(*both, kernel, stride, 0, dilation),
            "same": lambda: nn.Conv2d(*both, kernel, 1, "same", dilation),
            "max": lambda: nn.MaxPool2d(wider, stride, 1, dilation, ceil_mode=ceil),
            "avg": lambda: nn.AvgPool2d(kernel, stride, ceil_mode=ceil),
            "lp": lambda: nn.LPPool2d(2, kernel, stride, ceil_mode=ceil),
            "transposed": lambda: nn.ConvTranspose2d(*both, kernel, 2, dilation=dilation),
            "split": lambda: nn.Conv2d(*half, kernel, 1, same, dilation),
        }.get(
            "same" if kind in {"written", "assigned", "part"} else kind,
            lambda: nn.Conv2d(*both, kernel, stride, same, dilation, window["groups"]),
        )()
        self.other = nn.Conv2d(*both, 1, stride)
        self.join = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        self.kind, self.window = kind, window

    def forward(self, x):
        function = FUNCTIONS.get(self.kind) or getattr(Step, f"run_{self.kind}", None)
        return function(self, x) if function else self.layer(x)

    def run_sliced(self, x):
        (top, left), (rows, columns) = self.window["kernel"], self.window["stride"]
        return x[:, :, top - 1 :: rows, left - 1 :: columns]

    def run_shuffled(self, x):
        even = F.pad(x, [0, x.shape[-1] % 2, 0, x.shape[-2] % 2])
        return self.join(F.pixel_unshuffle(even, 2)[:, : 2 * CHANNELS])

    def run_split(self, x):
        first, second = x.chunk(2, dim=1)
        return torch.cat(cropped(first, self.layer(second))[::-1], dim=1)

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


def cropped(one, other):
    """Crop maps that must meet to the smaller."""
    rows, columns = (min(one.shape[d], other.shape[d]) for d in (-2, -1))
    return one[..., :rows, :columns], other[..., :rows, :columns]


def resized(x, **options):
    return F.interpolate(x, [n * 2 for n in x.shape[-2:]], **options)


FUNCTIONS = {
    "nearest": lambda _, x: resized(x),
    "bilinear": lambda _, x: resized(x, mode="bilinear"),
    "corners": lambda _, x: resized(x, mode="bilinear", align_corners=True),
    "padded": lambda n, x: F.relu(F.pad(x, [*n.window["kernel"], *n.window["stride"]])),
    "added": lambda n, x: sum(cropped(n.layer(x), n.other(x))),
    "joined": lambda n, x: n.join(torch.cat(cropped(n.layer(x), n.other(x)), 1)),
    "statistics": lambda _, x: torch.var_mean(x, 1, keepdim=True)[1] + x.topk(CHANNELS, 1)[0],
}
KINDS = [
    *("conv", "valid", "same", "max", "avg", "lp", "transposed", *FUNCTIONS, "sliced", "shuffled"),
    *("split", "written", "assigned", "part", "unpooled", "windows"),
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
