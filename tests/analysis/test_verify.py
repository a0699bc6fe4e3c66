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
from cifar_cnn.errors import ModelError

RANDOM_GRAPHS = int(os.environ.get("CIFAR_CNN_RANDOM_GRAPHS", "40"))


@pytest.mark.parametrize("name", ["baseline", "torchvision.models:resnet18"])
def test_every_layer_agrees_with_the_gradient(name):
    proof = verify(name, (64, 64))
    assert proof.agreed
    assert proof.skipped == ()
    assert {unit.layer for unit in proof.checked} >= {
        layer.name for layer in receptive_field(name, (64, 64)).layers
    }


def test_a_wrong_field_is_found_and_named(monkeypatch):
    def without_dilation(kernel, stride, padding, dilation):
        return window(kernel, stride, padding, 1)

    window = taps.window
    monkeypatch.setattr(taps, "window", without_dilation)
    proof = verify("baseline")
    assert not proof.agreed
    assert proof.first_disagreement.layer == "convblock3.0"
    assert proof.as_dict()["first_disagreement"]["layer"] == "convblock3.0"


def test_gridding_is_reported_and_is_no_error():
    dilated = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, dilation=2))
    proof = verify(dilated)
    assert proof.agreed
    assert proof.as_dict()["gridding"][-1] == {
        "layer": "1",
        "axis": "horizontally",
        "contributing": 5,
        "total": 9,
    }


def test_a_network_that_takes_only_its_own_size_is_proved_at_that_size():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 5, padding=2)

        def forward(self, x):
            assert x.shape[-2:] == (32, 32), "only 32"
            return self.conv(x)

    proof = verify(Strict())
    assert proof.agreed
    assert proof.strips == ((32, 32), (32, 32))


def test_a_linear_layer_made_for_one_size_does_not_stop_the_proof():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
    assert verify(model).agreed
    assert verify(model).skipped == ()


def test_in_place_sums_whose_result_is_not_used_are_followed():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Conv2d(3, 4, 5, padding=2)
            self.point = nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            out = self.point(x)
            out.add_(self.wide(x))
            return self.last(out)

    proof = verify(InPlace())
    assert proof.agreed
    assert receptive_field(InPlace()).final == (7, 7)


class Converting(nn.Module):
    def forward(self, x):
        wide = F.avg_pool2d(x, 5, 1, 2)
        return x[:, :2].type_as(wide).view(x.shape[0], -1).view(x[:, :2].shape)


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (Converting(), 1),
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), 3),
    ],
)
def test_conversions_and_parametrised_weights_do_not_disturb(model, size):
    assert receptive_field(model).features.walks[0].size == size
    assert verify(model).agreed


def test_a_mirrored_image_is_proved():
    class Mirrored(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.second(self.first(x.flip(3)))

    assert verify(Mirrored(), (16, 16)).agreed


def test_a_users_own_gradient_is_followed():
    class Custom(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(Clamp.apply(x), 3)

    assert verify(Custom()).agreed
    assert receptive_field(Custom()).final == (3, 3)


def test_activation_checkpointing_is_analyzed_and_proved():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.last = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.last(checkpoint(self.conv, x, use_reentrant=False))

    assert receptive_field(Checkpointed()).final == (5, 5)
    proof = verify(Checkpointed())
    assert proof.agreed
    assert proof.skipped == ()


class Hooked(nn.Module):
    def __init__(self, *, ask):
        super().__init__()
        self.ask = ask
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        if not self.ask or x.requires_grad:
            x.register_hook(lambda _: pytest.fail("the proof is no training"))
        return self.last(x)


@pytest.mark.parametrize("ask", [True, False])
def test_a_network_that_hooks_onto_its_gradient_is_proved(ask):
    proof = verify(Hooked(ask=ask))
    assert proof.agreed
    assert proof.skipped == ()


def test_a_backbone_without_gradient_is_proved_like_any_other():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 2, dilation=2))
            self.head = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            with torch.no_grad():
                x = self.backbone(x)
                assert not x.requires_grad
            return self.head(x)

    proof = verify(Frozen())
    assert proof.agreed
    assert proof.skipped == ()
    assert {(unit.layer, unit.total) for unit in proof.checked} == {
        ("backbone.0", 3),
        ("backbone.1", 7),
        ("head", 11),
    }


def test_holes_that_a_later_layer_fills_are_told_only_where_they_are():
    class Filled(nn.Module):
        def __init__(self):
            super().__init__()
            self.sparse = nn.Conv2d(3, 4, 1, stride=2)
            self.spread = nn.Conv2d(4, 4, 3, padding=1)
            self.dense = nn.Conv2d(3, 4, 5, stride=2, padding=2)

        def forward(self, x):
            return F.relu(self.spread(self.sparse(x)) + self.dense(x))

    told = verify(Filled()).as_dict()["gridding"]
    assert {(g["layer"], g["contributing"], g["total"]) for g in told} == {("spread", 3, 5)}


def test_the_proof_tells_how_far_it_is_and_takes_each_operation_once_an_axis():
    told = []
    verify(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), progress=lambda *now: told.append(now))
    assert told == [(1, 2), (2, 2)] * 2


class Step(nn.Module):
    """One random piece of a network; maps that must meet are cropped to the smaller."""

    def __init__(self, kind, channels, window):
        super().__init__()
        self.kind = kind
        kernel, stride, dilation = window["kernel"], window["stride"], window["dilation"]
        same = [(k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
        groups = window["groups"]
        make = {
            "conv": lambda c=channels: nn.Conv2d(c, c, kernel, stride, same, dilation, groups),
            "valid": lambda: nn.Conv2d(channels, channels, kernel, stride, 0, dilation),
            "same": lambda: nn.Conv2d(channels, channels, kernel, 1, "same", dilation),
            "max": lambda: nn.MaxPool2d(
                [k + 1 for k in kernel], stride, 1, dilation, ceil_mode=window["ceil"]
            ),
            "avg": lambda: nn.AvgPool2d(kernel, stride, ceil_mode=window["ceil"]),
            "lp": lambda: nn.LPPool2d(2, kernel, stride, ceil_mode=window["ceil"]),
            "transposed": lambda: nn.ConvTranspose2d(
                channels, channels, kernel, 2, dilation=dilation
            ),
            "half": lambda: nn.Conv2d(channels // 2, channels // 2, kernel, 1, same, dilation),
        }
        first = {
            "add": "conv",
            "cat": "conv",
            "split": "half",
            "written": "same",
            "assigned": "same",
            "part": "same",
        }.get(kind, kind)
        self.layer = make[first]() if first in make else nn.Identity()
        self.other = nn.Conv2d(channels, channels, 1, stride)
        self.join = nn.Conv2d(2 * channels, channels, 1)
        self.window = window

    def forward(self, x):
        return FORWARDS.get(self.kind, Step.apply_layer)(self, x)

    def apply_layer(self, x):
        return self.layer(x)

    def sliced(self, x):
        (top, left), (rows, columns) = self.window["kernel"], self.window["stride"]
        return x[:, :, top - 1 :: rows, left - 1 :: columns]

    def unshuffled(self, x):
        even = F.pad(x, [0, x.shape[-1] % 2, 0, x.shape[-2] % 2])
        return self.join(F.pixel_unshuffle(even, 2)[:, : self.join.in_channels])

    def added(self, x):
        one, other = cropped(self.layer(x), self.other(x))
        return one + other

    def concatenated(self, x):
        return self.join(torch.cat(cropped(self.layer(x), self.other(x)), 1))

    def split(self, x):
        first, second = x.chunk(2, dim=1)
        first, second = cropped(first, self.layer(second))
        return torch.cat([second, first], dim=1)

    def written(self, x):
        y = x.clone()
        y.flatten(2).add_(self.layer(x).flatten(2))
        return y

    def assigned(self, x):
        (top, left), channels = self.window["kernel"], [3, 1, 0, 2]
        y = x[:, channels]
        y[:, 1:, top - 1 :, left - 1 :] = self.layer(x)[:, 1:, top - 1 :, left - 1 :]
        y[:, [2, 0], ::top, ::left] = self.layer(x)[:, 2:, ::top, ::left]
        return y

    def part(self, x):
        y = x * 1
        y[:, : self.window["groups"]] += self.layer(x)[:, : self.window["groups"]]
        return y

    def unpooled(self, x):
        kernel, stride = self.window["kernel"], self.window["kernel"]
        pooled, places = F.max_pool2d(x, kernel, stride, return_indices=True)
        return F.max_unpool2d(self.join(torch.cat([pooled, pooled], 1)), places, kernel, stride)

    def windows(self, x):
        (rows, columns), (down, along) = self.window["kernel"], self.window["stride"]
        return x.unfold(2, rows, down).unfold(3, columns, along).mean((4, 5))


FORWARDS = {
    "nearest": lambda _, x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "bilinear": lambda _, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "corners": lambda _, x: F.interpolate(
        x, [n * 2 for n in x.shape[-2:]], mode="bilinear", align_corners=True
    ),
    "pad": lambda step, x: F.relu(F.pad(x, [*step.window["kernel"], *step.window["stride"]])),
    "slice": Step.sliced,
    "shuffle": Step.unshuffled,
    "add": Step.added,
    "cat": Step.concatenated,
    "split": Step.split,
    "written": Step.written,
    "assigned": Step.assigned,
    "part": Step.part,
    "unpooled": Step.unpooled,
    "windows": Step.windows,
    "statistics": lambda _, x: torch.var_mean(x, 1, keepdim=True)[1] + x.topk(4, 1)[0],
}


def cropped(one, other):
    rows = min(one.shape[-2], other.shape[-2])
    columns = min(one.shape[-1], other.shape[-1])
    return one[..., :rows, :columns], other[..., :rows, :columns]


KINDS = [
    *("conv", "valid", "same", "max", "avg", "lp", "transposed", "nearest", "bilinear"),
    *("corners", "slice", "pad", "shuffle", "add", "cat", "split"),
    *("written", "assigned", "part", "unpooled", "windows", "statistics"),
]
WINDOWS = st.fixed_dictionaries(
    {
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "groups": st.sampled_from([1, 2, 4]),
        "ceil": st.booleans(),
    }
)
NETWORKS = st.lists(st.tuples(st.sampled_from(KINDS), WINDOWS), min_size=1, max_size=6)


@settings(
    max_examples=RANDOM_GRAPHS,
    deadline=None,
    derandomize="CIFAR_CNN_RANDOM_GRAPHS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(NETWORKS)
def test_random_graphs_agree_with_the_gradient(pieces):
    """`CIFAR_CNN_RANDOM_GRAPHS=300 pytest tests/analysis/test_verify.py -k random` tries 300."""
    steps = [Step(kind, 4, window) for kind, window in pieces]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *steps)
    try:
        result = receptive_field(model, (48, 48))
    except ModelError as error:
        assume("cannot take" not in str(error))  # too small for its windows
        raise
    proof = verify(model, (48, 48))
    assert proof.agreed, proof.first_disagreement
    assert len({unit.axis for unit in proof.checked}) == 2
    assert np.isfinite([walk.size for walk in result.features.walks]).all()


def test_a_layer_on_an_image_without_a_batch_is_verified():
    class OneByOne(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return torch.stack([self.layer(image) for image in x.unbind()]).mean((2, 3))

    proof = verify(OneByOne())
    assert proof.agreed
    assert "layer" in {unit.layer for unit in proof.checked}
