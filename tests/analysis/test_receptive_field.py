import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck

from cifar_cnn import receptive_field


def features(model, size=(32, 32)):
    """Size, jump and padding of the features, a number where both axes agree."""
    found = receptive_field(model, size).features
    answer = (found.receptive_field, found.jump, found.padding)
    return tuple(a[0] if a[0] == a[1] else a for a in answer)


def conv(kernel, out=4, channels=3, **kwargs):
    return nn.Conv2d(channels, out, kernel, **kwargs)


def test_every_convolution_of_the_baseline_has_the_designs_field_and_jump():
    result = receptive_field("baseline").model_dump(mode="json")
    rows = [row for row in result["layers"] if row["type"] == "Conv2d"]
    assert [(row["receptive_field"][0], row["jump"] and row["jump"][0]) for row in rows] == [
        (3, 1), (5, 2), (5, 2), (13, 2), (17, 4), (25, 8), (49, None),
    ]  # fmt: skip
    assert result["final"] == {"receptive_field": [49, 49], "covers_input": True}
    assert (result["aligned"], result["units"], result["warnings"]) == (True, None, [])
    assert (result["minimum"], result["passed"]) == (44, True)


def test_a_row_shows_its_window():
    layer = conv((3, 5), stride=(1, 2), padding=(1, 4), dilation=(1, 2))
    (row,) = receptive_field(layer).model_dump(mode="json")["layers"]
    assert row == {
        "name": row["name"],
        "type": row["type"],
        "output_size": [32, 16],
        "kernel": [3, 5],
        "stride": [1, 2],
        "padding": [[1, 1], [4, 4]],
        "dilation": [1, 2],
        "receptive_field": [3, 9],
        "jump": [1, 2],
        "start": [0, 0],
    }


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("vgg16", 224, (212, 32, 90)),
        *[("resnet18", side, (435, 32, 217)) for side in (32, 64, 224)],
        ("resnet50", 224, (427, 32, 213)),
        ("alexnet", 224, (195, 32, 66)),
        ("inception_v3", 224, (1311, 32, 618)),
        ("densenet121", 224, (2071, 32, 1021)),
    ],
)
def test_torchvisions_networks_have_the_published_fields_at_every_size(name, side, expected):
    assert features(f"torchvision.models:{name}", (side, side)) == expected


@pytest.mark.filterwarnings("ignore:.*init_weights:FutureWarning")
@pytest.mark.parametrize(
    "name",
    [
        *("googlenet", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "swin_t"),
        *("shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny", "vit_b_16"),
    ],
)
def test_torchvisions_other_networks_can_be_followed(name):
    assert receptive_field(f"torchvision.models:{name}", (224, 224)).final.covers_input


def test_each_stage_of_resnet50_and_its_output():
    result = receptive_field("torchvision.models:resnet50", (224, 224))
    sizes = {layer.name.split(".")[0]: layer.receptive_field[0] for layer in result.layers}
    assert [sizes[f"layer{i}"] for i in (1, 2, 3, 4)] == [35, 91, 267, 427]
    assert result.final.receptive_field == (619, 619)


def test_resnet50_with_the_stride_on_the_first_1x1_has_the_original_field():
    original = resnet50()
    for module in original.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    assert features(original, (224, 224)) == (483, 32, 241)


def test_mobilenet_v1_has_the_published_field():
    layers = [conv(3, 8, stride=2, padding=1)]
    for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
        layers += [conv(3, 8, 8, stride=stride, padding=1, groups=8), nn.ReLU(), conv(1, 8, 8)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    assert features(nn.Sequential(*layers, *head), (224, 224)) == (315, 32, 157)


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2), nn.MaxPool2d(2), conv(2, 8, 8, stride=2)], ids=["mean", "max", "conv"]
)
def test_a_pool_over_the_whole_map_that_a_window_follows_is_no_global_pooling(pool):
    down = [m for c in (3, 8, 8, 8) for m in (conv(3, 8, c, stride=2, padding=1), nn.ReLU())]
    last = [conv(3, 16, 8, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10)]
    result = receptive_field(nn.Sequential(*down, pool, *last))
    assert (result.final.receptive_field, result.features.receptive_field[0]) == ((111, 111), 111)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.MaxPool2d(8), nn.AvgPool2d(8)])
def test_the_features_are_the_map_before_a_pool_over_the_whole_map(pool):
    model = nn.Sequential(conv(3, padding=1), pool, nn.Flatten(), nn.Linear(4, 10))
    result = receptive_field(model, (8, 8)).model_dump(mode="json")
    assert (result["features"]["layer"], result["features"]["receptive_field"]) == ("0", [3, 3])
    assert [row["jump"] for row in result["layers"][1:]] == [None] * len(result["layers"][1:])


def test_misaligned_paths_are_named_and_given_as_a_hull_and_by_unit(net):
    model = net(
        lambda n, x: n.strided(x) + n.pool(x),
        strided=conv(3, 3, stride=2, padding=1),
        pool=nn.MaxPool2d(2),
    )
    result = receptive_field(model)
    assert not result.aligned
    assert "misaligned at add" in result.warnings[0]
    assert "jump 2, first center 0 and jump 2, first center 1/2" in result.warnings[0]
    assert features(model) == (3, 2, 1)
    assert [unit.receptive_field for _, unit in result.units] == [(3, 3)] * 3
    assert result.units.last.start == (30, 30)


def test_paths_of_different_jump_have_units_of_different_size(net):
    coarse = conv(3, stride=2, padding=1)
    model = net(lambda n, x: n.fine(x)[:, :, :8, :8] + n.coarse(x), fine=conv(1), coarse=coarse)
    result = receptive_field(model, (16, 16))
    assert not result.aligned
    sizes = [unit.receptive_field for _, unit in result.units]
    assert sizes == [(3, 3), (5, 5), (9, 9)]
    assert result.final.receptive_field == (9, 9)


def test_paths_with_one_jump_and_first_center_are_told_apart_by_their_centers(net):
    def forward(net, x):
        return torch.cat([net.stem(x), net.up(net.down(net.stem(x)))], 1)

    down, up = conv(3, 8, 8, stride=2, padding=1), nn.ConvTranspose2d(8, 8, 2, 2)
    model = net(forward, stem=conv(3, 8, padding=1), down=down, up=up)
    assert receptive_field(model).warnings[0] == (
        "paths meet misaligned at cat vertically and horizontally: "
        "jump 1, centers 0, 0 and jump 1, centers 0, 1"
    )


def test_a_squeeze_and_excitation_gate_makes_the_field_global_and_says_the_local_one(net):
    model = net(
        lambda n, x: n.after(n.before(x) * n.before(x).mean((2, 3), keepdim=True).sigmoid()),
        before=conv(3, padding=1),
        after=conv(3, 4, 4, padding=1),
    )
    result = receptive_field(model, (16, 16))
    assert result.features.receptive_field[0] >= 16
    assert result.aligned
    (line,) = result.warnings
    assert "global gate at mul" in line
    assert "without such gates the field at after is 5×5" in line
    assert result.features.without_gates == (5, 5)


def test_weights_made_from_the_image_see_what_they_are_made_from(net):
    def forward(net, x):
        weights = net.weights(x.mean((2, 3))).view(3, 3, 3, 3)
        return F.conv2d(net.local(x), weights, padding=1)

    model = net(forward, local=conv(3, 3, padding=1), weights=nn.Linear(3, 81))
    result = receptive_field(model)
    assert result.final.covers_input
    assert any("the field at conv2d is 5×5" in text for text in result.warnings)


def test_normalization_over_the_map_passes_through_and_is_mentioned():
    norm = nn.GroupNorm(2, 4)
    model = nn.Sequential(conv(3), norm, nn.ReLU(), norm)
    assert features(model) == (3, 1, 0)
    assert "statistics over the whole map in 1: " in receptive_field(model).warnings[0]


def test_an_image_that_is_flattened_at_once_has_no_features_but_a_final_field():
    result = receptive_field(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), (8, 8))
    assert result.features.layer == "input"
    assert result.final.receptive_field == (8, 8)


def test_the_minimum_is_strict_and_on_the_smaller_axis():
    model = conv((3, 9))
    assert not receptive_field(model, minimum=3).passed
    assert receptive_field(model, minimum=2).passed
