"""Structures that a budget may require, and weights that are not what they seem."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, summarize


def judged(model, size=(16, 16), **options):
    summary = summarize(model, size, budget=Budget(**options))
    return {item.name: item for item in summary.budget.requirements}, summary


def found(model, name, size=(16, 16)):
    """Return where a structure is; None if it is nowhere."""
    item = judged(model, size, require=(name,))[0][f"require:{name}"]
    assert item.passed == (item.actual > 0)
    return item.detail if item.passed else None


def depthwise(channels=4, **kwargs):
    return nn.Conv2d(channels, channels, 3, groups=channels, **kwargs)


def point(*, channels=4, **kwargs):
    return nn.Conv2d(channels, 8, 1, **kwargs)


def stem():
    return nn.Conv2d(3, 4, 1)


BETWEEN = [nn.BatchNorm2d(4), nn.ReLU6(), nn.Dropout()]


def ones(*shape):
    return nn.Parameter(torch.ones(*shape))


@pytest.mark.parametrize(
    ("model", "is_separable"),
    [
        (nn.Sequential(stem(), depthwise(), point()), True),
        (nn.Sequential(stem(), depthwise(), *BETWEEN, point()), True),
        (nn.Sequential(stem(), nn.Conv2d(4, 8, 3, groups=4), point(channels=8)), True),
        (nn.Sequential(depthwise(3), point(channels=3)), True),
        (nn.Sequential(stem(), nn.utils.parametrizations.weight_norm(depthwise()), point()), True),
        (nn.Sequential(stem(), depthwise()), False),
        (nn.Sequential(stem(), nn.Conv2d(4, 4, 3, groups=2), point()), False),
        (nn.Sequential(stem(), nn.Conv2d(4, 4, 1, groups=4), point()), False),
        (nn.Sequential(stem(), depthwise(), point(groups=2)), False),
        (nn.Sequential(stem(), depthwise(), nn.Conv2d(4, 8, 3)), False),
    ],
)
def test_a_depthwise_then_a_pointwise_convolution_is_found_whatever_its_class(model, is_separable):
    assert (found(model, "depthwise-separable") is not None) == is_separable


def test_functional_convolutions_are_found(net):
    def forward(net, x):
        maps = F.conv2d(x, net.one, groups=3)
        return F.conv2d(maps * torch.sigmoid(maps), net.two)

    model = net(forward, one=ones(3, 1, 3, 3), two=ones(8, 3, 1, 1))
    assert found(model, "depthwise-separable") == "conv2d + conv2d_1"


@pytest.fixture
def between(net):
    """Make a depthwise convolution, what a function does with it and its input, a pointwise one."""

    def make(function, last=None):
        def forward(n, x):
            before = n.stem(x)
            return n.last(function(n, n.depthwise(before), before))

        layers = {"stem": stem(), "depthwise": depthwise(padding=1), "excite": nn.Conv2d(4, 4, 1)}
        layers |= {"mix": nn.Conv2d(4, 4, 3, padding=1), "last": last or point()}
        return net(forward, blur=nn.Buffer(torch.ones(4, 1, 3, 3) / 9), **layers)

    return make


def shuffled(x, groups=2):
    grouped = x.unflatten(1, (groups, x.shape[1] // groups))
    return grouped.transpose(1, 2).reshape(x.shape)


def gate(net, x):
    return net.excite(x.mean((2, 3), keepdim=True)).sigmoid()


CHANNEL_BY_CHANNEL = {
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
}
MIXED = {
    "vector norm over channels": lambda _, x, __: torch.linalg.vector_norm(x, dim=2, keepdim=True),
    "expanded norm": lambda _, x, __: x.norm(dim=1, keepdim=True).expand_as(x),
    "divided by its norm": lambda _, x, __: x / x.norm(dim=1, keepdim=True),
    "normalized to length 1": lambda _, x, __: F.normalize(x, dim=1),
    "softmax over channels": lambda _, x, __: x.softmax(1),
    "softmax over places": lambda _, x, __: x.flatten(2).softmax(-1).view(x.shape),
    "convolution": lambda net, x, _: net.mix(x),
    "global pooling": lambda _, x, __: x.mean((2, 3), keepdim=True),
    "only in the gate": lambda net, x, before: before * gate(net, x),
}


@pytest.mark.parametrize("function", CHANNEL_BY_CHANNEL.values(), ids=CHANNEL_BY_CHANNEL.keys())
def test_what_works_channel_by_channel_may_stand_between(between, function):
    assert found(between(function), "depthwise-separable") == "depthwise + last"


@pytest.mark.parametrize("function", MIXED.values(), ids=MIXED.keys())
def test_what_mixes_channels_or_places_may_not_stand_between(between, function):
    assert found(between(function), "depthwise-separable") is None


@pytest.mark.parametrize(
    ("order", "is_pointwise"),
    [((0, 2, 3, 1), True), ((0, 1, 3, 2), False), ((0, 3, 1, 2), False)],
)
def test_a_linear_layer_counts_as_pointwise_where_it_mixes_channels(between, order, is_pointwise):
    last = nn.Linear([1, 4, 16, 16][order[-1]], 8)
    model = between(lambda _, x, __: x.permute(order), last)
    assert (found(model, "depthwise-separable") is not None) == is_pointwise


def test_a_linear_layer_on_tokens_is_pointwise(between):
    tokens = between(
        lambda _, x, __: F.layer_norm(x.flatten(2).transpose(1, 2), (4,)), nn.Linear(4, 8)
    )
    assert found(tokens, "depthwise-separable")


def test_concatenated_depthwise_branches_count(net):
    model = net(
        lambda n, x: n.point(torch.cat([n.three(x), n.five(x)], 1)),
        three=depthwise(3, padding=1),
        five=nn.Conv2d(3, 3, 5, padding=2, groups=3),
        point=point(channels=6),
    )
    assert found(model, "depthwise-separable") == "three + point, five + point"


def test_a_fixed_blur_is_no_depthwise_convolution(net):
    blur = nn.Buffer(torch.ones(3, 1, 3, 3) / 9)
    model = net(
        lambda n, x: n.point(F.conv2d(x, n.blur * 2, groups=3)), blur=blur, point=point(channels=3)
    )
    assert found(model, "depthwise-separable") is None


def test_an_operation_that_the_user_vouches_for_may_stand_between(between):
    model = between(lambda _, x, __: x.cummax(2)[0])
    summary = summarize(model, (16, 16), budget=Budget(), assume_pointwise=["cummax"])
    (item,) = [r for r in summary.budget.requirements if "separable" in r.name]
    assert item.passed


def test_of_many_layers_three_are_named_and_the_others_counted():
    blocks = [nn.Sequential(depthwise(padding=1), nn.Conv2d(4, 4, 1)) for _ in range(5)]
    detail = found(nn.Sequential(stem(), *blocks), "depthwise-separable")
    assert detail == "1.0 + 1.1, 2.0 + 2.1, 3.0 + 3.1 and 2 more"


def test_a_layer_that_the_output_does_not_need_does_not_count(net):
    layers = {"used": nn.Conv2d(3, 4, 3), "unused": nn.Conv2d(3, 4, 3, dilation=2)}
    assert found(net(lambda n, x: (n.unused(x), n.used(x))[1], **layers), "dilated") is None


@pytest.mark.parametrize(
    ("convolution", "is_dilated"),
    [
        (nn.Conv2d(3, 4, 3, dilation=2), True),
        (nn.Conv2d(3, 4, (1, 3), dilation=(1, 2)), True),
        (nn.Conv2d(3, 4, (1, 3), dilation=(2, 1)), False),
        (nn.Conv2d(3, 4, 1, dilation=2), False),
        (nn.Conv2d(3, 4, 3), False),
    ],
)
def test_dilation_counts_only_where_the_kernel_has_more_than_one_place(convolution, is_dilated):
    assert (found(convolution, "dilated") is not None) == is_dilated


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
    assert (found(head(net, pool), "gap") is not None) == is_gap


def mixed(net, x):
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


@pytest.mark.parametrize(
    ("function", "layer"),
    [
        (lambda n, x: F.adaptive_avg_pool2d(mixed(n, x), 1).flatten(1), "adaptive_avg_pool2d"),
        (lambda n, x: F.adaptive_avg_pool2d(n.stem(x) + mixed(n, x), 1), "adaptive_avg_pool2d"),
        (lambda n, x: (n.stem(x) + mixed(n, x)).flatten(2).transpose(1, 2).mean(1), "mean"),
        (lambda n, x: (n.stem(x).flatten(2) + n.rows(n.stem(x).flatten(2))).mean(2), "mean"),
        (squeezed, "avg_pool2d"),
    ],
    ids=["attention", "residual", "tokens", "mixer", "squeezed"],
)
def test_an_average_over_all_places_is_global_pooling_though_they_were_mixed(net, function, layer):
    assert found(net(function, **ATTENTION), "gap", (32, 32)) == layer


def test_the_pooling_of_a_squeeze_and_excitation_gate_is_not_global_pooling(net):
    model = net(
        lambda n, x: n.conv(x * n.gate(x.mean((2, 3), keepdim=True)).sigmoid()),
        gate=nn.Conv2d(3, 3, 1),
        conv=nn.Conv2d(3, 8, 3),
    )
    assert found(model, "gap") is None


def test_a_pool_that_a_convolution_follows_is_not_global_pooling():
    pooled = [nn.Conv2d(3, 8, 3, 2, 1), nn.AvgPool2d(8), nn.Conv2d(8, 8, 3, padding=1)]
    assert found(nn.Sequential(*pooled, nn.Flatten(), nn.Linear(8, 10)), "gap") is None


def test_global_pooling_of_a_map_that_is_already_1x1_counts():
    assert found("torchvision.models:resnet18", "gap", (32, 32)) == "avgpool"


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (nn.AvgPool2d(2), "pool pools 2×2 of 3×3"),
        (nn.AdaptiveAvgPool2d(2), "pool pools 2×2 of 3×3"),
        (nn.AvgPool2d((3, 1)), "pool pools 3×1 of 3×3"),
        (lambda x: x.mean(3), "pool pools 1×3 of 3×3"),
        (nn.MaxPool2d(3), "no layer of this kind"),
        (nn.Sequential(nn.AvgPool2d(2, 1), nn.Conv2d(4, 4, 2)), "no layer of this kind"),
    ],
)
def test_a_pooling_of_a_part_of_the_map_is_said(net, pool, said):
    items, _ = judged(head(net, pool, 3), (3, 3), require=("gap",))
    assert items["require:gap"].detail == said


def branch(net, x):
    return net.head(x.mean((2, 3))) + 0.0 * net.side(x).mean((2, 3))


def test_a_branch_without_effect_is_named_and_its_structures_do_not_count(net):
    side = nn.Sequential(depthwise(3, dilation=2), point(channels=3))
    items, summary = judged(net(branch, side=side, head=nn.Linear(3, 8)))
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
    items, summary = judged(Rezero(start))
    assert summary.warnings == ()
    assert items["require:dilated"].passed


def kept_in(kind):
    layer = nn.Conv2d(3, 3, 3, padding=1)
    return {
        "list": [layer],
        "dict": {"one": layer},
        "nested": [{"one": (layer,)}],
        "closure": lambda x: layer(x) + 0,
        "tensor": torch.ones(3, 3, 3, 3, requires_grad=True),
    }[kind]


def read(kept, x):
    if isinstance(kept, torch.Tensor):
        return F.conv2d(x, kept)
    while isinstance(kept, list | tuple | dict):
        kept = next(iter(kept.values())) if isinstance(kept, dict) else kept[0]
    return kept(x)


@pytest.mark.parametrize("kind", ["list", "dict", "nested", "closure", "tensor"])
def test_learned_tensors_outside_of_the_parameters_fail_and_are_named(net, kind):
    model = net(lambda n, x: n.head(read(n.blocks, x).mean((2, 3))), head=nn.Linear(3, 10))
    model.blocks = kept_in(kind)
    items, summary = judged(model)
    registered = items["registered"]
    assert (registered.actual, registered.limit, registered.passed) == (1, 0, False)
    assert registered.detail.startswith("blocks holds learned tensors that are not among")
    assert "nn.ModuleList" in registered.detail
    assert summary.warnings == (registered.detail,)
    assert (summary.totals.parameters, summary.budget.passed) == (40, False)


def test_a_layer_made_in_the_forward_is_named_by_its_line(net):
    model = net(lambda n, x: n.head(nn.Conv2d(3, 3, 3)(x).mean((2, 3))), head=nn.Linear(3, 10))
    items, _ = judged(model)
    assert not items["registered"].passed
    assert "(test_structures.py:" in items["registered"].detail


@pytest.mark.parametrize("kind", ["module", "buffer"])
def test_registered_and_fixed_tensors_are_no_lost_weights(net, kind):
    kept = (
        nn.ModuleList([nn.Conv2d(3, 3, 3)])
        if kind == "module"
        else nn.Buffer(torch.ones(3, 3, 3, 3))
    )
    read_it = (lambda n, x: n.kept[0](x)) if kind == "module" else lambda n, x: F.conv2d(x, n.kept)
    items, summary = judged(
        net(lambda n, x: n.head(read_it(n, x).mean((2, 3))), kept=kept, head=nn.Linear(3, 9))
    )
    assert "registered" not in items
    assert summary.warnings == ()
