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
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 8, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=4), POINTWISE),
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise(), nn.MaxPool2d(2), POINTWISE),
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise(), nn.Conv2d(4, 8, 1, groups=2)),
        nn.Sequential(nn.Conv2d(3, 4, 1), depthwise(), nn.Conv2d(4, 8, 3)),
    ],
)
def test_what_only_resembles_a_depthwise_separable_convolution_is_not(model):
    assert found(model, "depthwise-separable") is None


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
