import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, summarize


def found(model, name, size=(16, 16)):
    budget = Budget(require=(name,))
    summary = summarize(model, size, budget=budget)
    (item,) = [r for r in summary.budget.requirements if r.name == f"require:{name}"]
    assert item.passed == (item.actual > 0)
    return item.detail if item.passed else None


def depthwise(channels=4, **kwargs):
    return nn.Conv2d(channels, channels, 3, groups=channels, **kwargs)


POINTWISE = nn.Conv2d(4, 8, 1)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(3, 1, 3, 3))
        self.second = nn.Parameter(torch.zeros(8, 3, 1, 1))

    def forward(self, x):
        maps = F.conv2d(x, self.first, groups=3)
        maps = maps * torch.sigmoid(maps)
        return F.conv2d(maps, self.second)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise(), POINTWISE),
        nn.Sequential(
            nn.Conv2d(3, 4, 1), depthwise(), nn.BatchNorm2d(4), nn.ReLU6(), nn.Dropout(), POINTWISE
        ),
        Functional(),
    ],
)
def test_a_depthwise_convolution_then_a_pointwise_one_is_found_whatever_its_class(model):
    assert found(model, "depthwise-separable")


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise()),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=2), POINTWISE),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=4), POINTWISE),
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise(), nn.Conv2d(4, 8, 1, groups=2)),
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise(), nn.Conv2d(4, 8, 3)),
    ],
)
def test_what_only_resembles_a_depthwise_separable_convolution_is_not(model):
    assert found(model, "depthwise-separable") is None


class Between(nn.Module):
    """A depthwise convolution, what a function does with it and its input, a pointwise one."""

    def __init__(self, function, last=POINTWISE):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.depthwise = depthwise(padding=1)
        self.excite = nn.Conv2d(4, 4, 1)
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("blur", torch.ones(4, 1, 3, 3) / 9)
        self.function = function
        self.last = last

    def forward(self, x):
        before = self.stem(x)
        return self.last(self.function(self, self.depthwise(before), before))


def shuffled(x, groups=2):
    batch, channels, *sides = x.shape
    grouped = x.view(batch, groups, channels // groups, *sides)
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
    "group norm": lambda _, x, __: F.group_norm(x, 2),
    "instance norm": lambda _, x, __: F.instance_norm(x),
    "upsampled": lambda _, x, __: F.interpolate(x, scale_factor=2),
    "in another's form": lambda _, x, before: x.type_as(before).view_as(before),
    "mixed beside it": lambda net, x, before: x + net.mix(before),
}
MIXED = {
    "vector norm over channels": lambda _, x, __: torch.linalg.vector_norm(x, dim=2, keepdim=True),
    "divided by its norm": lambda _, x, __: x / x.norm(dim=1, keepdim=True),
    "normalized to length 1": lambda _, x, __: F.normalize(x, dim=1),
    "softmax over channels": lambda _, x, __: x.softmax(1),
    "softmax over places": lambda _, x, __: x.flatten(2).softmax(-1).view(x.shape),
    "convolution": lambda net, x, _: net.mix(x),
    "global pooling": lambda _, x, __: x.mean((2, 3), keepdim=True),
    "only in the gate": lambda net, x, before: before * gate(net, x),
}


@pytest.mark.parametrize("between", CHANNEL_BY_CHANNEL.values(), ids=CHANNEL_BY_CHANNEL.keys())
def test_what_works_channel_by_channel_may_stand_between_depthwise_and_pointwise(between):
    assert found(Between(between), "depthwise-separable") == "depthwise + last"


@pytest.mark.parametrize("between", MIXED.values(), ids=MIXED.keys())
def test_what_mixes_channels_or_places_may_not_stand_between(between):
    assert found(Between(between), "depthwise-separable") is None


@pytest.mark.parametrize(
    ("order", "pointwise"),
    [((0, 2, 3, 1), True), ((0, 1, 3, 2), False), ((0, 3, 1, 2), False)],
)
def test_a_linear_layer_counts_as_pointwise_where_it_mixes_channels(order, pointwise):
    sizes = [1, 4, 16, 16]
    last = nn.Linear(sizes[order[-1]], 8)
    model = Between(lambda _, x, __: x.permute(order), last)
    assert (found(model, "depthwise-separable") is not None) == pointwise


def test_a_linear_layer_on_tokens_is_pointwise():
    def tokens(_, x, __):
        return F.layer_norm(x.flatten(2).transpose(1, 2), (4,))

    assert found(Between(tokens, nn.Linear(4, 8)), "depthwise-separable")


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 8, 1)),
        nn.Sequential(depthwise(3), nn.Conv2d(3, 8, 1)),
        nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.utils.parametrizations.weight_norm(depthwise()), POINTWISE
        ),
    ],
    ids=["depth multiplier", "on the image", "weight norm"],
)
def test_every_learned_convolution_of_one_channel_a_group_is_depthwise(model):
    assert found(model, "depthwise-separable")


def test_concatenated_depthwise_branches_count():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.three = nn.Conv2d(3, 3, 3, padding=1, groups=3)
            self.five = nn.Conv2d(3, 3, 5, padding=2, groups=3)
            self.point = nn.Conv2d(6, 8, 1)

        def forward(self, x):
            return self.point(torch.cat([self.three(x), self.five(x)], 1))

    assert found(Branches(), "depthwise-separable") == "three + point, five + point"


def test_a_fixed_blur_is_no_depthwise_convolution():
    class Blurred(nn.Module):
        def __init__(self):
            super().__init__()
            self.point = nn.Conv2d(3, 8, 1)
            self.register_buffer("blur", torch.ones(3, 1, 3, 3) / 9)

        def forward(self, x):
            return self.point(F.conv2d(x, self.blur * 2, groups=3))

    assert found(Blurred(), "depthwise-separable") is None


def test_an_operation_that_the_user_vouches_for_may_stand_between():
    model = Between(lambda _, x, __: torch.special.i0e(x))
    summary = summarize(model, (16, 16), budget=Budget(), assume_pointwise=["special_i0e", "i0e"])
    (item,) = [r for r in summary.budget.requirements if "separable" in r.name]
    assert item.passed


def test_of_many_layers_three_are_named_and_the_others_counted():
    blocks = [nn.Sequential(depthwise(padding=1), nn.Conv2d(4, 4, 1)) for _ in range(5)]
    detail = found(nn.Sequential(nn.Conv2d(3, 4, 1), *blocks), "depthwise-separable")
    assert detail == "1.0 + 1.1, 2.0 + 2.1, 3.0 + 3.1 and 2 more"


def test_a_layer_that_the_output_does_not_need_does_not_count():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Conv2d(3, 4, 3)
            self.unused = nn.Conv2d(3, 4, 3, dilation=2)

        def forward(self, x):
            self.unused(x)
            return self.used(x)

    assert found(Unused(), "dilated") is None


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


class Head(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = pool
        self.fc = nn.LazyLinear(10)

    def forward(self, x):
        return self.fc(self.pool(self.conv(x)).flatten(1))


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("pool", "is_gap"),
    [
        (nn.AdaptiveAvgPool2d(1), True),
        (nn.AvgPool2d(16), True),
        (Lambda(lambda x: x.mean((2, 3))), True),
        (Lambda(lambda x: x.mean([-2, -1], keepdim=True)), True),
        (Lambda(lambda x: x.mean(3).mean(2)), True),
        (Lambda(lambda x: x.flatten(2).mean(-1)), True),
        (Lambda(lambda x: F.adaptive_avg_pool2d(x, (1, 1))), True),
        (Lambda(lambda x: F.avg_pool2d(x, x.shape[-2:])), True),
        (Lambda(lambda x: x.sum((2, 3)) / x[0, 0].numel()), True),
        (Lambda(lambda x: x.flatten(2).sum(-1).view(-1, 4, 1, 1).mul(1 / 256)), True),
        (Lambda(lambda x: (x / 256).sum((2, 3))), True),
        (Lambda(lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1)), True),
        (Lambda(lambda x: F.avg_pool1d(x.flatten(2), 256)), True),
        (Lambda(lambda x: torch.einsum("bchw->bc", x) / 256), True),
        (Lambda(lambda x: x.flatten(2).transpose(1, 2).mean(1)), True),
        (Lambda(lambda x: x.sum((2, 3))), False),
        (Lambda(lambda x: x.sum((2, 3)) / x.amax((2, 3))), False),
        (Lambda(lambda x: x.amax((2, 3)) / 2), False),
        (nn.AdaptiveAvgPool2d(2), False),
        (nn.AdaptiveMaxPool2d(1), False),
        (nn.AvgPool2d(2), False),
        (nn.Identity(), False),
    ],
)
def test_global_average_pooling_is_found_in_every_spelling(pool, is_gap):
    model = Head(pool)
    with torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    assert (found(model, "gap") is not None) == is_gap


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(3, 3, 1)
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


def test_the_pooling_of_a_squeeze_and_excitation_gate_is_not_global_pooling():
    assert found(SqueezeExcite(), "gap") is None


def test_global_pooling_of_a_map_that_is_already_1x1_counts():
    assert found("torchvision.models:resnet18", "gap", (32, 32)) == "avgpool"


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (nn.AvgPool2d(2), "pool pools 2×2 of 3×3"),
        (nn.AdaptiveAvgPool2d(2), "pool pools 2×2 of 3×3"),
        (nn.AvgPool2d((3, 1)), "pool pools 3×1 of 3×3"),
        (Lambda(lambda x: x.mean(3)), "pool pools 1×3 of 3×3"),
        (nn.MaxPool2d(3), "no layer of this kind"),
        (nn.Sequential(nn.AvgPool2d(2, 1), nn.Conv2d(4, 4, 2)), "no layer of this kind"),
    ],
)
def test_a_pooling_of_a_part_of_the_map_is_said(pool, said):
    model = Head(pool)
    with torch.no_grad():
        model(torch.zeros(1, 3, 3, 3))
    summary = summarize(model, (3, 3), budget=Budget(require=("gap",)))
    assert summary.budget.requirements[-1].detail == said
