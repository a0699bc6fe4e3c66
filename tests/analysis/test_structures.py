"""Structures that a budget may require, and weights that are not what they seem."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cifar_cnn import Budget, summarize


def judge(model, size=(16, 16), **options):
    summary = summarize(model, size, budget=Budget(), **options)
    return {item.name: item for item in summary.budget.requirements}, summary


def locate(model, name, size=(16, 16), **options):
    """Return where a structure is; None if it is nowhere."""
    item = judge(model, size, **options)[0][f"require:{name}"]
    assert item.passed == (item.actual > 0)
    return item.detail if item.passed else None


def depthwise(channels=4, **kwargs):
    return nn.Conv2d(channels, channels, 3, groups=channels, **kwargs)


def point(*, channels=4, **kwargs):
    return nn.Conv2d(channels, 8, 1, **kwargs)


def stem():
    return nn.Conv2d(3, 4, 1)


def ones(*shape):
    return nn.Parameter(torch.ones(*shape))


@pytest.mark.parametrize(
    ("layers", "is_separable"),
    [
        ([depthwise(), point()], True),
        ([depthwise(), nn.BatchNorm2d(4), nn.ReLU6(), nn.Dropout(), point()], True),
        ([nn.Conv2d(4, 8, 3, groups=4), point(channels=8)], True),
        ([nn.utils.parametrizations.weight_norm(depthwise()), point()], True),
        ([depthwise()], False),
        ([nn.Conv2d(4, 4, 3, groups=2), point()], False),
        ([nn.Conv2d(4, 4, 1, groups=4), point()], False),
        ([depthwise(), point(groups=2)], False),
        ([depthwise(), nn.Conv2d(4, 8, 3)], False),
    ],
)
def test_a_depthwise_then_a_pointwise_convolution_is_found_whatever_its_class(layers, is_separable):
    name = locate(nn.Sequential(stem(), *layers), "depthwise-separable")
    assert (name is not None) == is_separable


def gate(net, x):
    return net.excite(x.mean((2, 3), keepdim=True)).sigmoid()


def shuffled(x):
    return x.unflatten(1, (2, x.shape[1] // 2)).transpose(1, 2).reshape(x.shape)


def tokens(x):
    return F.layer_norm(x.flatten(2).transpose(1, 2), (4,))


BETWEEN = {
    "squeeze and excitation": lambda net, x, _: x * gate(net, x),
    "gated in place": lambda net, x, _: x.mul_(gate(net, x)),
    "residual": lambda _, x, before: before + F.gelu(x),
    "max-pool": lambda _, x, __: F.max_pool2d(x, 2),
    "pad": lambda _, x, __: F.pad(x, [1, 1, 1, 1]),
    "channel shuffle": lambda _, x, __: shuffled(x),
    "blur behind it": lambda net, x, _: F.conv2d(x, net.blur, groups=4),
    "group norm": lambda _, x, __: F.group_norm(x, 2).relu(),
    "instance norm": lambda _, x, __: F.instance_norm(x),
    "upsampled": lambda _, x, __: F.interpolate(x, scale_factor=2),
    "in another's form": lambda _, x, before: x.type_as(before).view_as(before),
    "mixed beside it": lambda net, x, before: x + net.mix(before),
    "bessel": lambda _, x, __: torch.special.i0e(x),
    "vouched for": lambda _, x, __: x.cummax(2)[0],
    "linear layer on channels": lambda _, x, __: x.permute(0, 2, 3, 1),
    "linear layer on tokens": lambda _, x, __: tokens(x),
}
MIXING = {
    "vector norm over channels": lambda _, x, __: torch.linalg.vector_norm(x, dim=2, keepdim=True),
    "expanded norm": lambda _, x, __: x.norm(dim=1, keepdim=True).expand_as(x),
    "divided by its norm": lambda _, x, __: x / x.norm(dim=1, keepdim=True),
    "normalized to length 1": lambda _, x, __: F.normalize(x, dim=1),
    "softmax over channels": lambda _, x, __: x.softmax(1),
    "softmax over places": lambda _, x, __: x.flatten(2).softmax(-1).view(x.shape),
    "convolution": lambda net, x, _: net.mix(x),
    "global pooling": lambda _, x, __: x.mean((2, 3), keepdim=True),
    "only in the gate": lambda net, x, before: before * gate(net, x),
    "linear layer on columns": lambda _, x, __: x.permute(0, 1, 3, 2),
    "linear layer on rows": lambda _, x, __: x.permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("between", [*BETWEEN, *MIXING])
def test_what_works_channel_by_channel_may_stand_between_and_what_mixes_may_not(net, between):
    function = {**BETWEEN, **MIXING}[between]

    def forward(n, x):
        before = n.stem(x)
        return n.last(function(n, n.depthwise(before), before))

    layers = {"stem": stem(), "depthwise": depthwise(padding=1), "excite": nn.Conv2d(4, 4, 1)}
    layers |= {"mix": nn.Conv2d(4, 4, 3, padding=1), "blur": nn.Buffer(torch.ones(4, 1, 3, 3) / 9)}
    is_linear, inputs = between.startswith("linear"), 4 if between in BETWEEN else 16
    model = net(forward, last=nn.Linear(inputs, 8) if is_linear else point(), **layers)
    name = locate(model, "depthwise-separable", assume_pointwise=["cummax"])
    assert name == ("depthwise + last" if between in BETWEEN else None)


def attended(net, x):
    tokens = net.stem(x).flatten(2).transpose(1, 2)
    return net.mix(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, (8, 8))


def squeezed(net, x):
    x = net.stem(x)
    return torch.squeeze(F.avg_pool2d(torch.cat([x, net.more(x)], 1), 8))


ATTENTION = {
    "stem": nn.Conv2d(3, 16, 4, 4),
    "mix": nn.MultiheadAttention(16, 2, batch_first=True),
    "more": nn.Conv2d(16, 16, 3, padding=1),
    "rows": nn.Linear(64, 64),
}
POOL = "adaptive_avg_pool2d"
BRANCHES = {
    "three": depthwise(3, padding=1),
    "five": nn.Conv2d(3, 3, 5, padding=2, groups=3),
    "point": point(channels=6),
}
BLOCKS = [nn.Sequential(depthwise(padding=1), nn.Conv2d(4, 4, 1)) for _ in range(5)]
POOLED = [nn.Conv2d(3, 8, 3, 4, 1), nn.AvgPool2d(8), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten()]


@pytest.mark.parametrize(
    ("function", "layers", "structure", "where"),
    [
        (lambda n, x: F.conv2d(F.conv2d(x, n.one, groups=3).sigmoid(), n.two),
         {"one": ones(3, 1, 3, 3), "two": ones(8, 3, 1, 1)},
         "depthwise-separable", "conv2d + conv2d_1"),
        (lambda n, x: n.point(torch.cat([n.three(x), n.five(x)], 1)), BRANCHES,
         "depthwise-separable", "three + point, five + point"),
        (lambda n, x: n.point(F.conv2d(x, n.blur * 2, groups=3)),
         {"blur": nn.Buffer(torch.ones(3, 1, 3, 3) / 9), "point": point(channels=3)},
         "depthwise-separable", None),
        (nn.Sequential(stem(), *BLOCKS), {},
         "depthwise-separable", "1.0 + 1.1, 2.0 + 2.1, 3.0 + 3.1 and 2 more"),
        (lambda n, x: (n.unused(x), n.used(x))[1],
         {"used": nn.Conv2d(3, 4, 3), "unused": nn.Conv2d(3, 4, 3, dilation=2)}, "dilated", None),
        (nn.Conv2d(3, 4, 3, dilation=2), {}, "dilated", "Conv2d"),
        (nn.Conv2d(3, 4, (1, 3), dilation=(1, 2)), {}, "dilated", "Conv2d"),
        (nn.Conv2d(3, 4, (1, 3), dilation=(2, 1)), {}, "dilated", None),
        (nn.Conv2d(3, 4, 1, dilation=2), {}, "dilated", None),
        (lambda n, x: F.adaptive_avg_pool2d(attended(n, x), 1).flatten(1), ATTENTION, "gap", POOL),
        (lambda n, x: F.adaptive_avg_pool2d(n.stem(x) + attended(n, x), 1), ATTENTION, "gap", POOL),
        (lambda n, x: (n.stem(x) + attended(n, x)).flatten(2).transpose(1, 2).mean(1), ATTENTION,
         "gap", "mean"),
        (lambda n, x: (n.stem(x).flatten(2) + n.rows(n.stem(x).flatten(2))).mean(2), ATTENTION,
         "gap", "mean"),
        (squeezed, ATTENTION, "gap", "avg_pool2d"),
        (lambda n, x: n.conv(x * n.gate(x.mean((2, 3), keepdim=True)).sigmoid()),
         {"gate": nn.Conv2d(3, 3, 1), "conv": nn.Conv2d(3, 8, 3)}, "gap", None),
        (nn.Sequential(*POOLED), {}, "gap", None),
        (torchvision.models.resnet18(), {}, "gap", "avgpool"),  # of a map that is already 1×1
    ],
)  # fmt: skip
def test_structures_are_found_in_what_the_network_does(net, function, layers, structure, where):
    assert locate(net(function, **layers), structure, (32, 32)) == where


def head(net, pool, size=16):
    """Return a network that pools its map by a layer or a function."""
    layer = pool if isinstance(pool, nn.Module) else net(lambda _, x: pool(x))
    model = net(
        lambda n, x: n.fc(n.pool(n.conv(x)).flatten(1)),
        conv=nn.Conv2d(3, 4, 3, padding=1),
        pool=layer,
        fc=nn.LazyLinear(10),
    )
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    return model


@pytest.mark.parametrize(
    ("pool", "is_gap"),
    [
        (nn.AdaptiveAvgPool2d(1), True), (nn.AvgPool2d(16), True),
        (lambda x: x.mean((2, 3)), True), (lambda x: x.mean([-2, -1], keepdim=True), True),
        (lambda x: x.mean(3).mean(2), True), (lambda x: x.flatten(2).mean(-1), True),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 1)), True),
        (lambda x: F.avg_pool2d(x, x.shape[-2:]), True),
        (lambda x: x.sum((2, 3)) / x[0, 0].numel(), True),
        (lambda x: x.flatten(2).sum(-1).view(-1, 4, 1, 1).mul(1 / 256), True),
        (lambda x: (x / 256).sum((2, 3)), True),
        (lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1), True),
        (lambda x: F.avg_pool1d(x.flatten(2), 256), True),
        (lambda x: torch.einsum("bchw->bc", x) / 256, True),
        (lambda x: x.flatten(2).transpose(1, 2).mean(1), True), (lambda x: x.sum((2, 3)), False),
        (lambda x: x.sum((2, 3)) / x.amax((2, 3)), False), (lambda x: x.amax((2, 3)) / 2, False),
        (nn.AdaptiveAvgPool2d(2), False), (nn.AdaptiveMaxPool2d(1), False),
        (nn.AvgPool2d(2), False), (nn.Identity(), False),
    ],
)  # fmt: skip
def test_global_average_pooling_is_found_in_every_spelling(net, pool, is_gap):
    assert (locate(head(net, pool), "gap") is not None) == is_gap


@pytest.mark.parametrize(
    ("pool", "detail"),
    [
        (nn.AvgPool2d(2), "pool pools 2×2 of 3×3"),
        (nn.AdaptiveAvgPool2d(2), "pool pools 2×2 of 3×3"),
        (nn.AvgPool2d((3, 1)), "pool pools 3×1 of 3×3"),
        (lambda x: x.mean(3), "pool pools 1×3 of 3×3"),
        (nn.MaxPool2d(3), "no layer of this kind"),
        (nn.Sequential(nn.AvgPool2d(2, 1), nn.Conv2d(4, 4, 2)), "no layer of this kind"),
    ],
)
def test_a_pooling_of_a_part_of_the_map_is_said(net, pool, detail):
    items, _ = judge(head(net, pool, 3), (3, 3))
    assert items["require:gap"].detail == detail


def branch(net, x):
    return net.head(x.mean((2, 3))) + 0.0 * net.side(x).mean((2, 3))


def test_a_branch_without_effect_is_named_and_its_structures_do_not_count(net):
    side = nn.Sequential(depthwise(3, dilation=2), point(channels=3))
    items, summary = judge(net(branch, side=side, head=nn.Linear(3, 8)))
    assert not items["require:depthwise-separable"].passed
    assert not items["require:dilated"].passed
    assert summary.warnings == (
        "no effect on the output: side.0.weight, side.1.weight (gradient 0)",
    )
    assert summary.model_dump(mode="json")["warnings"] == list(summary.warnings)


class Rezero(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.first, self.wide = stem(), nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 10)
        self.alpha = nn.Parameter(torch.ones(1))
        for parameter in start(self):
            nn.init.zeros_(parameter)

    def forward(self, x):
        x = self.first(x)
        return self.head((x + self.alpha * self.norm(self.wide(x))).mean((2, 3)))


@pytest.mark.parametrize(
    "start",
    [
        lambda net: [net.alpha],
        lambda net: [net.norm.weight],
        lambda net: [net.norm.weight, net.norm.bias, net.head.weight],
        lambda net: [net.wide.weight, net.wide.bias],
        lambda net: net.parameters(),
    ],
    ids=["ReZero", "last norm", "norm and head", "convolution", "everything"],
)
def test_weights_that_begin_at_zero_have_an_effect(start):
    items, summary = judge(Rezero(start))
    assert summary.warnings == ()
    assert items["require:dilated"].passed


LAYER = nn.Conv2d(3, 3, 3, padding=1)
TENSOR = torch.ones(3, 3, 3, 3, requires_grad=True)


def closing_over(layer):
    return lambda x: layer(x) + 0


@pytest.mark.parametrize(
    ("kept", "read"),
    [
        ([LAYER], lambda kept, x: kept[0](x)),
        ({"one": LAYER}, lambda kept, x: kept["one"](x)),
        ([{"one": (LAYER,)}], lambda kept, x: kept[0]["one"][0](x)),
        (closing_over(LAYER), lambda kept, x: kept(x)),
        (TENSOR, lambda kept, x: F.conv2d(x, kept)),
    ],
    ids=["list", "dict", "nested", "closure", "tensor"],
)
def test_learned_tensors_outside_of_the_parameters_fail_and_are_named(net, kept, read):
    model = net(lambda n, x: n.head(read(n.blocks, x).mean((2, 3))), head=nn.Linear(3, 10))
    model.blocks = kept
    items, summary = judge(model)
    registered = items["registered"]
    assert (registered.actual, registered.limit, registered.passed) == (1, 0, False)
    assert registered.detail.startswith("blocks holds learned tensors that are not among")
    assert "nn.ModuleList" in registered.detail
    assert summary.warnings == (registered.detail,)
    assert (summary.totals.parameters, summary.budget.passed) == (40, False)


def test_a_layer_made_in_the_forward_is_named_by_its_line(net):
    model = net(lambda n, x: n.head(nn.Conv2d(3, 3, 3)(x).mean((2, 3))), head=nn.Linear(3, 10))
    items, _ = judge(model)
    assert not items["registered"].passed
    assert "(test_structures.py:" in items["registered"].detail


@pytest.mark.parametrize(
    ("kept", "read"),
    [
        (nn.ModuleList([LAYER]), lambda kept, x: kept[0](x)),
        (nn.Buffer(TENSOR.detach()), lambda kept, x: F.conv2d(x, kept)),
    ],
)
def test_registered_and_fixed_tensors_are_no_lost_weights(net, kept, read):
    layers = {"kept": kept, "head": nn.Linear(3, 9)}
    items, summary = judge(net(lambda n, x: n.head(read(n.kept, x).mean((2, 3))), **layers))
    assert "registered" not in items
    assert summary.warnings == ()
