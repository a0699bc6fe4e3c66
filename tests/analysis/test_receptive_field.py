import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck

from cifar_cnn import receptive_field, verify
from cifar_cnn.errors import ModelError


def features(model, size=(32, 32), **kwargs):
    """Size, jump and padding of the features, a number where both axes agree."""
    found = receptive_field(model, size, **kwargs).as_dict()["features"]
    answer = (found["receptive_field"], found["jump"], found["padding"])
    return tuple(a[0] if a[0] == a[1] else tuple(a) for a in answer)


class Net(nn.Module):
    """A network written as a function of its image and its layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def conv(kernel, out=4, channels=3, **kwargs):
    return nn.Conv2d(channels, out, kernel, **kwargs)


def test_every_convolution_of_the_baseline_has_the_designs_field_and_jump():
    result = receptive_field("baseline").as_dict()
    rows = [row for row in result["layers"] if row["type"] == "Conv2d"]
    assert [(row["receptive_field"][0], row["jump"] and row["jump"][0]) for row in rows] == [
        (3, 1), (5, 2), (5, 2), (13, 2), (17, 4), (25, 8), (49, None),
    ]  # fmt: skip
    assert result["final"] == {"receptive_field": [49, 49], "covers_input": True}
    assert (result["aligned"], result["units"], result["warnings"]) == (True, None, [])
    assert (result["minimum"], result["passed"]) == (44, True)


def test_a_row_shows_its_window():
    layer = conv((3, 5), stride=(1, 2), padding=(1, 4), dilation=(1, 2))
    (row,) = receptive_field(layer).as_dict()["layers"]
    assert row == {
        "name": "conv2d",
        "type": "conv2d",
        "output_size": [32, 16],
        "kernel": [3, 5],
        "stride": [1, 2],
        "padding": [[1, 1], [4, 4]],
        "dilation": [1, 2],
        "receptive_field": [3, 9],
        "jump": [1, 2],
        "start": [0, 0],
    } | {"name": row["name"], "type": row["type"]}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("vgg16", (212, 32, 90)),
        ("resnet18", (435, 32, 217)),
        ("resnet50", (427, 32, 213)),
        ("alexnet", (195, 32, 66)),
        ("inception_v3", (1311, 32, 618)),
        ("densenet121", (2071, 32, 1021)),
    ],
)
def test_torchvisions_networks_have_the_published_fields(name, known):
    assert features(f"torchvision.models:{name}", (224, 224)) == known


def test_each_stage_of_resnet50_and_its_output():
    result = receptive_field("torchvision.models:resnet50", (224, 224))
    sizes = {}
    for layer in result.layers:
        sizes[layer.name.split(".")[0]] = layer.walks[0].size
    assert [sizes[f"layer{i}"] for i in (1, 2, 3, 4)] == [35, 91, 267, 427]
    assert result.final == (619, 619)


def test_resnet50_with_the_stride_on_the_first_1x1_has_the_original_field():
    with torch.device("meta"):
        original, torchvisions = resnet50(), resnet50()
    for module in original.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    assert features(original, (224, 224)) == (483, 32, 241)
    assert features(torchvisions, (224, 224)) == (427, 32, 213)


def mobilenet_v1():
    layers = [conv(3, 8, stride=2, padding=1)]
    for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
        layers += [conv(3, 8, 8, stride=stride, padding=1, groups=8), nn.ReLU(), conv(1, 8, 8)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def test_mobilenet_v1_has_the_published_field():
    assert features(mobilenet_v1(), (224, 224)) == (315, 32, 157)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_size_jump_and_padding_do_not_depend_on_the_images_size(size):
    assert features("torchvision.models:resnet18", (size, size)) == (435, 32, 217)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (nn.Sequential(conv(3, dilation=2), conv(3, 4, 4, dilation=2)), (9, 1, 0)),
        (conv((3, 5), padding=(1, 2)), ((3, 5), 1, (1, 2))),
        (conv(4, padding=1), (4, 1, 1)),
        (conv(4, padding="same"), (4, 1, 1)),
        (conv(3, padding="same", dilation=3), (7, 1, 3)),
        (nn.Sequential(nn.ZeroPad2d((2, 0, 1, 0)), conv(3)), (3, 1, (1, 2))),
        (nn.Sequential(nn.ReflectionPad2d(1), conv(3)), (3, 1, 1)),
        (conv(3, padding=1, padding_mode="circular"), (3, 1, 1)),
        (nn.MaxPool2d(3, 2, 1, dilation=2), (5, 2, 1)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (3, 2, 0)),
        (nn.AvgPool2d((2, 1)), ((2, 1), (2, 1), 0)),
        (nn.LPPool2d(2, 3, stride=2), (3, 2, 0)),
        (Net(lambda _, x: F.max_pool2d(F.relu(x), 2)), (2, 2, 0)),
        (Net(lambda _, x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)), (3, 2, 1)),
        (Net(lambda _, x: x[:, :, 1::2, ::3]), (1, (2, 3), (-1, 0))),
        (Net(lambda _, x: x[..., 3:-1]), (1, 1, (0, -3))),
        (nn.PixelUnshuffle(2), (2, 2, 0)),
        (Net(lambda _, x: F.avg_pool2d(input=F.normalize(x), kernel_size=3)), (3, 3, 0)),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), (2, 1, 0)),
        (Net(lambda _, x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)), (1, 1, 0)),
    ],
)
def test_each_kind_of_window_has_its_size_jump_and_padding(model, known):
    assert features(model) == known


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
    result = receptive_field(nn.Sequential(conv(3, padding=1), model), (8, 8))
    walk = result.features.walks[0]
    assert (walk.high - walk.low + 1).tolist()[:3] == sizes
    assert walk.size == max(sizes)
    assert float(walk.jump) == jump


def test_a_residual_sum_has_the_hull_of_its_paths():
    model = Net(
        lambda n, x: n.long(x) + n.short(x),
        long=nn.Sequential(conv(3, padding=1), conv(5, 4, 4, padding=2)),
        short=conv(1),
    )
    assert features(model) == (7, 1, 3)
    assert receptive_field(model).aligned


def test_channels_that_are_split_off_keep_their_own_field():
    def forward(net, x):
        first, second = net.stem(x).chunk(2, dim=1)
        joined = torch.cat([first, net.deep(second)], dim=1)
        return joined[:, :2]

    model = Net(forward, stem=conv(1), deep=conv(7, 2, 2, padding=3))
    result = receptive_field(model)
    assert result.final == (1, 1)
    assert max(layer.walks[0].size for layer in result.layers) == 7


def misaligned(net, x):
    return net.strided(x) + net.pool(x)


def test_misaligned_paths_are_named_and_given_as_a_hull_and_by_unit():
    model = Net(misaligned, strided=conv(3, 3, stride=2, padding=1), pool=nn.MaxPool2d(2))
    result = receptive_field(model)
    assert not result.aligned
    assert "misaligned at add" in result.warnings[0]
    assert "jump 2, first center 0 and jump 2, first center 1/2" in result.warnings[0]
    assert features(model) == (3, 2, 1)
    assert {u: field["receptive_field"] for u, field in result.units.items()} == {
        "first": [3, 3], "middle": [3, 3], "last": [3, 3],
    }  # fmt: skip
    assert result.units["last"]["start"] == [30, 30]


def test_paths_of_different_jump_have_units_of_different_size():
    model = Net(
        lambda n, x: n.fine(x)[:, :, :8, :8] + n.coarse(x),
        fine=conv(1),
        coarse=conv(3, stride=2, padding=1),
    )
    result = receptive_field(model, (16, 16))
    assert not result.aligned
    sizes = [result.units[unit]["receptive_field"] for unit in ("first", "middle", "last")]
    assert sizes == [[3, 3], [5, 5], [9, 9]]
    assert result.final == (9, 9)


GATED = Net(
    lambda n, x: n.after(n.before(x) * n.before(x).mean((2, 3), keepdim=True).sigmoid()),
    before=conv(3, padding=1),
    after=conv(3, 4, 4, padding=1),
)


def test_a_squeeze_and_excitation_gate_makes_the_field_global_and_says_the_local_one():
    result = receptive_field(GATED, (16, 16))
    assert result.features.walks[0].size >= 16
    assert result.aligned
    (line,) = result.warnings
    assert "global gate at mul" in line
    assert "without such gates the field at after is 5×5" in line
    assert result.as_dict()["features"]["without_gates"] == [5, 5]


@pytest.mark.parametrize(
    "head",
    [
        lambda _, x: x.mean((2, 3)),
        lambda _, x: x.mean([-2, -1]),
        lambda _, x: F.adaptive_avg_pool2d(x, 1),
        lambda _, x: x.flatten(1) @ torch.zeros(3 * 64, 5),
        lambda n, x: n.attention(*[x.flatten(2).transpose(1, 2)] * 3)[0],
        lambda _, x: F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3),
        lambda _, x: torch.einsum("nchw,hk->nckw", x, torch.zeros(8, 8)).sum(3),
        lambda _, x: x.flatten(2).softmax(-1).view(1, 3, 8, 8),
    ],
)
def test_pooling_attention_and_linear_layers_over_space_see_everything(head):
    attention = nn.MultiheadAttention(3, 1, batch_first=True)
    result = receptive_field(Net(head, attention=attention), (8, 8))
    assert (result.final, result.covers_input) == ((8, 8), True)


def test_flattening_and_unflattening_keeps_the_field_local():
    def forward(net, x):
        tokens = net.norm(net.first(x).flatten(2).transpose(1, 2))
        return net.second(tokens.transpose(1, 2).unflatten(2, (8, 8)))

    model = Net(
        forward, first=conv(3, padding=1), norm=nn.LayerNorm(4), second=conv(3, 4, 4, padding=1)
    )
    assert features(model, (8, 8)) == (5, 1, 2)


def test_after_global_pooling_there_is_no_map():
    result = receptive_field("torchvision.models:resnet18", (64, 64)).as_dict()
    pooled = [row for row in result["layers"] if row["name"] in {"avgpool", "fc"}]
    assert [(row["output_size"], row["jump"]) for row in pooled] == [([1, 1], None)] * 2


def test_normalization_over_the_map_passes_through_and_is_mentioned():
    result = receptive_field(nn.Sequential(conv(3), nn.GroupNorm(2, 4)))
    assert features(nn.Sequential(conv(3), nn.GroupNorm(2, 4))) == (3, 1, 0)
    assert "statistics over the whole map" in result.warnings[0]


def test_an_image_that_is_flattened_at_once_has_no_features_but_a_final_field():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    result = receptive_field(model, (8, 8)).as_dict()
    assert result["features"]["layer"] == "input"
    assert result["final"]["receptive_field"] == [8, 8]


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Sorting(nn.Module):
    def forward(self, x):
        return torch.sort(x, dim=2).values


class Writing(nn.Module):
    def forward(self, x):
        y = F.avg_pool2d(x, 3, 1, 1)
        y[:, torch.randperm(3)] = x
        return y


class Part(nn.Module):
    def forward(self, x):
        y = F.avg_pool2d(x, 3, 1, 1)
        y.narrow(1, 0, 2).add_(x[:, 1:])
        return y


class Constant(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


class Twice(nn.Module):
    def forward(self, x):
        return x.relu().sigmoid()


class Once(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 3)


def test_a_users_own_layer_is_one_row_if_it_does_one_thing():
    result = receptive_field(nn.Sequential(Once(), Twice()))
    rows = [(layer.name, layer.type) for layer in result.layers]
    assert rows == [("0", "Once"), ("1.relu", "relu"), ("1.sigmoid", "sigmoid")]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (TwoInputs(), r"TwoInputs.forward takes 2 inputs \(x, y\)"),
        (TwoOutputs(), "returns a tuple of 2, not one tensor"),
        (nn.Sequential(Deciding()), r"decides by the values in a tensor in 0 \(test_.*\.py:\d+\)"),
        (nn.Sequential(Sorting()), r"unknown operation 'sort' .* in 0 \(test_.*\.py:\d+\)"),
        (
            Writing(),
            r"'setitem' with an index whose numbers are not .* in the network \(test_.*\.py:\d+\)",
        ),
        (Part(), r"'add' in the network \(test_.*\.py:\d+\) writes into a part of a tensor"),
        (
            nn.Sequential(conv(3), conv(40, 4, 4)),
            r"cannot take a 3×32×32 image: RuntimeError in 1 ",
        ),
        (Net(lambda _, x: x[:, [0, 2], [1, 3]]), "'getitem' with several lists as index is not"),
        (Constant(), "does not depend on its input"),
    ],
)
def test_what_cannot_be_analyzed_is_one_line_that_says_what_and_where(model, said):
    with pytest.raises(ModelError, match=said) as raised:
        receptive_field(model)
    assert "\n" not in str(raised.value)


def test_the_user_can_vouch_for_an_operation():
    model = nn.Sequential(conv(3), Net(lambda _, x: torch.special.bessel_j0(x)))
    with pytest.raises(ModelError) as raised:
        receptive_field(model)
    name = re.search(r"--assume-pointwise (\w+)", str(raised.value)).group(1)
    assert receptive_field(model, assume_pointwise=[name]).final == (3, 3)


@pytest.mark.filterwarnings("ignore:.*init_weights:FutureWarning")
@pytest.mark.parametrize(
    "name",
    [
        *("googlenet", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "swin_t"),
        *("shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny", "vit_b_16"),
    ],
)
def test_torchvisions_other_networks_can_be_followed(name):
    result = receptive_field(f"torchvision.models:{name}", (224, 224))
    assert result.covers_input


def test_the_minimum_is_strict_and_on_the_smaller_axis():
    model = conv((3, 9))
    assert not receptive_field(model, minimum=3).passed
    assert receptive_field(model, minimum=2).passed


class DynamicWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.local = nn.Conv2d(3, 3, 3, padding=1)
        self.weights = nn.Linear(3, 81)

    def forward(self, x):
        weights = self.weights(x.mean((2, 3))).view(3, 3, 3, 3)
        return F.conv2d(self.local(x), weights, padding=1)


def test_weights_made_from_the_image_see_what_they_are_made_from():
    result = receptive_field(DynamicWeights(), (32, 32))
    assert result.covers_input
    assert any("the field at conv2d is 5×5" in text for text in result.warnings)
    assert verify(DynamicWeights(), (32, 32)).agreed


def test_a_network_that_returns_its_input_is_refused():
    with pytest.raises(ModelError, match="returns its input as it is"):
        receptive_field(nn.Identity())


def test_paths_with_one_jump_and_first_center_are_told_apart_by_their_centers():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.down = nn.Conv2d(8, 8, 3, 2, 1)
            self.up = nn.ConvTranspose2d(8, 8, 2, 2)

        def forward(self, x):
            x = self.stem(x)
            return torch.cat([x, self.up(self.down(x))], 1)

    assert receptive_field(Half()).warnings[0] == (
        "paths meet misaligned at cat vertically and horizontally: "
        "jump 1, centers 0, 0 and jump 1, centers 0, 1"
    )
