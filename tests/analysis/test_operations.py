import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, receptive_field, summarize, verify
from cifar_cnn.errors import ModelError


def applied(function):
    """A module that is one function."""

    class Applied(nn.Module):
        def forward(self, x):
            return function(x)

    return Applied()


@pytest.mark.parametrize(
    ("between", "counts"),
    [
        (lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True).expand_as(x), False),
        (lambda x: x.softmax(1), False),
        (F.normalize, False),
        (lambda x: F.group_norm(x, 3).relu(), True),
    ],
)
def test_what_mixes_channels_after_a_depthwise_convolution_makes_it_no_separable_one(
    between, counts
):
    depthwise, pointwise = nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1)
    model = nn.Sequential(depthwise, applied(between), pointwise)
    budget = Budget(require=("depthwise-separable",))
    (_, _, required) = summarize(model, (16, 16), budget=budget).budget.requirements
    assert required.passed == counts


class Net(nn.Module):
    """A 3×3 convolution, then a function of its map and of the network."""

    def __init__(self, function):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 4, 5, padding=2)
        self.deep = nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0]))
        self.function = function

    def forward(self, x):
        return self.function(self, self.first(x))


def parts_of_each(net, x):
    y = F.avg_pool2d(x, 3, 1, 1)
    y[:, :2] = net.wide(x)[:, :2]
    return y


def filled(net, x):
    y = torch.zeros_like(x)
    y[:, 0] = net.wide(x)[:, 0]
    y[..., 1:, 2:5, :] = x[:, 1:, 2:5]
    return y


def every_other(net, x):
    y = x * 1
    y[:, :, ::2, 1::3] = net.wide(x)[:, :, ::2, 1::3]
    return y


def listed(net, x):
    y = x * 1
    y[:, [3, 0], 2:9] = net.wide(x)[:, :2, 2:9]
    return y


def nothing_assigned(_, x):
    y = x * 1
    y[:, 4:] = 0
    return y


def turned_windows(_, x):
    windows = F.unfold(x, 3, padding=1).unflatten(1, (4, 9))
    return F.fold(windows.flip(2).flatten(1, 2), x.shape[2:], 3, padding=1)


def masked(net, x):
    y = x * 1
    y[net.wide(x) < 0] = 0
    return y


def unpooled(net, x):
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(net.wide(pooled), places, 2)


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (lambda _, x: (x - x.mean()) / (x.std() + 1e-6), 18),
        (lambda _, x: x * x.std(False), 18),
        (lambda net, x: torch.logaddexp(x, net.wide(x)).atan().sinh(), 7),
        (lambda net, x: torch.hstack([x, net.wide(x)]), 7),
        (lambda _, x: x[:, [0, 2]], 3),
        (lambda net, x: x[:, net.order], 3),
        (lambda _, x: x[:, torch.arange(0, 4, 2)], 3),
        (lambda _, x: x.index_select(1, torch.tensor([2, 0])), 3),
        (lambda _, x: torch.cat(torch.var_mean(x, (2, 3)), 1), 18),
        (lambda _, x: torch.std_mean(x, 1, keepdim=True)[0], 3),
        (lambda net, x: F.cosine_similarity(x, net.wide(x)), 7),
        (lambda _, x: x.topk(2, 1)[0], 3),
        (lambda _, x: x.topk(k=2, dim=1)[0], 3),
        (lambda net, x: torch.max(x, net.wide(x)), 7),
        (lambda net, x: torch.min(x, other=net.wide(x)), 7),
        (lambda _, x: x.T.mean(2).T, 3),
        (lambda net, x: net.deep(x.unsqueeze(2)).squeeze(2), 5),
        (lambda _, x: F.unfold(x, 3, padding=1, stride=2), 19),
        (lambda _, x: x.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)), 6),
        (unpooled, 12),
        (parts_of_each, 7),
        (filled, 7),
        (every_other, 7),
        (listed, 7),
        (nothing_assigned, 3),
        (lambda _, x: F.fold(F.unfold(x, 3, 1, 2, 2), x.shape[2:], 3, 1, 2, 2), 3),
        (turned_windows, 7),
        (lambda _, x: F.fold(F.unfold(x, (2, 1), padding=1), (16, 16), (2, 1), padding=1), 3),
        (masked, 7),
    ],
)
def test_an_operation_has_its_field_and_the_gradient_agrees(function, size):
    assert receptive_field(Net(function), (16, 16)).final == (size, size)
    assert verify(Net(function), (16, 16)).agreed


def put(index, value):
    """A function of a network and its map that assigns to a part of the map."""

    def assigned(net, x):
        y = x.clone()
        y[index] = value(net, x) if callable(value) else value
        return y

    return assigned


ALL = slice(None)
MASK = torch.tensor([True, False, False, True])


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (put((ALL, ALL, None, 0), lambda _, x: x[:, :, 1:2]), 3),
        (put((ALL, ALL, ALL, None, 3), lambda _, x: x[:, :, :, None, 4]), 3),
        (put((..., None), lambda net, x: net.wide(x)[..., None]), 7),
        (put((None, ALL, 1), lambda net, x: net.wide(x)[None, :, 1]), 7),
        (put((0, None, ..., None, 2), lambda net, x: net.wide(x)[0, None, ..., None, 3]), 7),
        (put((ALL, [0, 2], None), lambda net, x: net.wide(x)[:, :2, None]), 7),
        (put((0, [0, 2], ..., 3), lambda net, x: net.wide(x)[0, :2, :, 4]), 7),
        (put(0, lambda net, x: net.wide(x)), 7),
        (put((ALL, np.array([0, 1])), 0.0), 3),
        (put((ALL, np.array([3, -3])), lambda net, x: net.wide(x)[:, :2]), 7),
        (put((ALL, np.int64(-1)), lambda net, x: net.wide(x)[:, 1]), 7),
        (put((ALL, torch.tensor(2)), lambda net, x: net.wide(x)[:, 1]), 7),
        (put((ALL, (0, -1)), lambda net, x: net.wide(x)[:, :2]), 7),
        (put((ALL, MASK), lambda net, x: net.wide(x)[:, :2]), 7),
        (put((ALL, MASK.numpy()), 0.0), 3),
        (put((ALL, MASK & False), 0.0), 3),
        (put((..., 0, ...), 0.0), 3),
    ],
)
def test_what_is_assigned_lies_where_the_index_says(function, size):
    assert receptive_field(Net(function), (16, 16)).final == (size, size)
    assert verify(Net(function), (16, 16)).agreed


@pytest.mark.parametrize(
    "index",
    [
        *(np.array([0, 3]), np.array(1), np.int64(2), (0, -1), [-4, 2], range(2), torch.tensor(1)),
        *(MASK, MASK.numpy(), MASK.tolist(), torch.tensor([1, 0, 0, 1], dtype=torch.uint8)),
    ],
)
def test_every_kind_of_index_reads_the_channels_that_it_names(index):
    def chosen(net, x):
        return torch.cat([x, net.wide(x)], 1)[:, :4][:, index]

    assert receptive_field(Net(chosen), (16, 16)).final == (3, 3)
    assert verify(Net(chosen), (16, 16)).agreed


def test_a_mask_made_in_the_forward_keeps_the_channels_it_says():
    def chosen(net, x):
        mask = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
        return torch.cat([x, net.wide(x)], 1)[:, mask]

    assert receptive_field(Net(chosen), (16, 16)).final == (3, 3)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ((ALL, [1, 4]), "index 4 is out of bounds for dimension 1 with size 4"),
        ((..., np.array([-17]), ALL), "index -17 is out of bounds for dimension 2 with size 16"),
        ((None, ..., MASK), "a mask of 4 does not fit dimension 3 of 16"),
    ],
)
def test_an_index_that_does_not_fit_is_one_line(index, said):
    for function in (lambda _, x: x[index], put(index, 0.0)):
        with pytest.raises(ModelError, match=said) as caught:
            receptive_field(Net(function), (16, 16))
        assert "\n" not in str(caught.value)


def test_columns_in_a_list_are_proved_on_maps_that_have_them():
    function = put((..., [1, 5, -1]), 0.0)
    assert receptive_field(Net(function), (16, 16)).final == (3, 3)
    assert verify(Net(function), (16, 16)).agreed


def test_an_array_as_index_copies_and_does_not_write_through():
    def apart(net, x):
        x[:, np.array([0, 1])].add_(net.wide(x)[:, :2])
        return x

    assert receptive_field(Net(apart), (16, 16)).final == (3, 3)
    assert verify(Net(apart), (16, 16)).agreed


def padded_by_hand(_, x):
    padded = torch.zeros(1, 4, 20, 20)
    padded[:, :, 2:-2, 2:-2] = x
    return padded


@pytest.mark.parametrize(
    ("function", "jump", "start", "padding"),
    [
        (padded_by_hand, [1, 1], [0, 0], [1, 1]),
        (put((..., slice(4)), 0.0), [1, 1], [0, 4], [1, -3]),
        (lambda net, x: put((..., slice(4)), 0.0)(net, x).flip(3), [1, -1], [0, 15], [1, -3]),
        (lambda net, x: net.wide(padded_by_hand(net, x)), [1, 1], [0, 0], [1, 1]),
        (
            lambda net, x: F.interpolate(padded_by_hand(net, x), scale_factor=2.0),
            *([0.5, 0.5], [0, 0], [1, 1]),
        ),
        (
            lambda net, x: F.max_pool2d(put((..., slice(4)), 0.0)(net, x), 2),
            *([2, 2], [0.5, 4.5], [1, -3]),
        ),
    ],
)
def test_units_that_see_nothing_have_no_part_in_jump_start_and_padding(
    function, jump, start, padding
):
    found = receptive_field(Net(function), (16, 16)).as_dict()
    assert found["features"]["jump"] == jump
    assert found["features"]["padding"] == padding
    assert found["layers"][-1]["start"] == start
    assert verify(Net(function), (16, 16)).agreed


def test_a_unit_that_sees_nothing_has_no_field_and_no_center():
    units = receptive_field(Net(padded_by_hand), (16, 16)).units
    assert units["first"] == {"receptive_field": [0, 0], "start": [None, None]}
    assert units["middle"] == {"receptive_field": [3, 3], "start": [7, 7]}
    nothing = receptive_field(Net(put(..., 0.0)), (16, 16)).as_dict()
    assert nothing["final"]["receptive_field"] == [0, 0]
    assert nothing["layers"][-1]["start"] == [None, None]


def test_a_convolution_after_a_part_was_cleared_keeps_the_other_axis():
    def cleared(net, x):
        return net.wide(put((..., slice(4)), 0.0)(net, x))

    found = receptive_field(Net(cleared), (16, 16)).as_dict()
    assert found["features"]["receptive_field"] == [7, 7]
    assert found["features"]["jump"] == [1, 1]
    assert verify(Net(cleared), (16, 16)).agreed


def test_what_a_list_chooses_keeps_its_own_field():
    def chosen(net, x):
        return torch.cat([x, net.wide(x)], 1)[:, [0, 3]]

    assert receptive_field(Net(chosen)).final == (3, 3)


def test_a_part_that_is_assigned_leaves_the_others_as_they_were():
    def others(net, x):
        return parts_of_each(net, x)[:, 2:]

    assert receptive_field(Net(others)).final == (5, 5)


def test_units_that_are_no_range_are_assigned_one_by_one():
    def others(net, x):
        return listed(net, x)[:, [1, 2]]

    def between(net, x):
        return every_other(net, x)[:, :, 1::2]

    assert receptive_field(Net(others)).final == (3, 3)
    assert receptive_field(Net(between)).final == (3, 3)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize("function", [F.log_softmax, F.softmax, nn.Softmax(), nn.LogSoftmax()])
def test_a_softmax_without_a_dim_has_torchs_implicit_one(function):
    of_maps = Net(lambda net, x: function(torch.cat([x, net.wide(x)], 1))[:, :1])
    assert receptive_field(of_maps).final == (7, 7)  # over channels
    assert verify(of_maps).agreed
    of_vectors = Net(lambda _, x: function(x.mean((2, 3))))
    assert receptive_field(of_vectors).final == (34, 34)


def flattened(net, x):
    y = net.wide(x).flatten(2)
    y += x.flatten(2)
    return y.view(x.shape)


def permuted(net, x):
    y = x.permute(0, 2, 3, 1)
    y += net.wide(x).permute(0, 2, 3, 1)
    return y.permute(0, 3, 1, 2)


def through_a_view(net, x):
    x.view(len(x), -1).add_(net.wide(x).flatten(1))
    return F.avg_pool2d(x, 3)


def into_channels(net, x):
    x[:, :2] += net.wide(x)[:, :2]
    return x


def through_channels(net, x):
    x[:, :2].add_(net.wide(x)[:, :2])
    return x


def kept_apart(net, x):
    y = F.relu(x)
    y += net.wide(x)
    return x + y


@pytest.mark.parametrize(
    ("function", "size"),
    [
        *((flattened, 7), (permuted, 7), (through_a_view, 9), (into_channels, 7)),
        *((through_channels, 7), (kept_apart, 7)),
    ],
)
def test_what_is_written_in_place_is_seen_through_every_tensor_that_shares_it(function, size):
    assert receptive_field(Net(function)).final == (size, size)
    assert verify(Net(function)).agreed


def test_a_view_of_what_was_written_later_is_not_taken_for_the_old_one():
    def outdated(net, x):
        part = x[:, :2]
        x += net.wide(x)
        return part

    with pytest.raises(ModelError, match="writes into a part of a tensor in place"):
        receptive_field(Net(outdated))


def test_a_rolled_or_mirrored_map_keeps_jump_and_padding():
    def features(function):
        return receptive_field(Net(function)).as_dict()["features"]

    plain = features(lambda _, x: x * 1)
    rolled = features(lambda _, x: torch.roll(x, (1, -3), (2, 3)))
    assert {**rolled, "layer": ""} == {**plain, "layer": ""}
    mirrored = features(lambda _, x: x.flip(3))
    assert mirrored["jump"] == [1, -1]
    assert mirrored["padding"] == plain["padding"]


def test_vouching_is_offered_only_where_it_can_be_true():
    with pytest.raises(ModelError, match="say --assume-pointwise cumsum"):
        receptive_field(Net(lambda _, x: x.cumsum(2)))
    with pytest.raises(ModelError, match=r"unknown operation 'diff'.*it changes the shape"):
        receptive_field(Net(lambda _, x: x.diff()))


@pytest.mark.parametrize(
    "forward",
    [
        *("self.layer(x - MEAN)", "self.layer(x.to('cpu'))", "self.layer(x)[:, self.order]"),
        "self.layer(x)[:, torch.tensor([2, 0])]",
    ],
)
def test_a_network_whose_own_tensors_have_to_be_there_is_built_with_weights(tmp_path, forward):
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\nMEAN = torch.ones(1, 3, 1, 1)\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Conv2d(3, 4, 3)\n"
        "        self.register_buffer('order', torch.tensor([2, 0]))\n"
        f"    def forward(self, x):\n        return {forward}\n"
    )
    assert receptive_field(f"{file}:Net").final == (3, 3)
    assert verify(f"{file}:Net").agreed
    assert summarize(f"{file}:Net").parameters == 112


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch.compile's own
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 4, 3).half(),
        lambda: nn.Conv2d(3, 4, 3).double(),
        lambda: nn.LazyConv2d(4, 3),
        lambda: torch.compile(nn.Conv2d(3, 4, 3)),
    ],
)
def test_half_double_lazy_and_compiled_networks_are_analyzed(make):
    assert receptive_field(make()).final == (3, 3)
    assert verify(make()).agreed
    assert summarize(make()).parameters == 112


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Conv2d(1, 4, 3), "cannot take a 3×32×32 image: .*to have 1 channels"),
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(5, 4, 3)), "cannot take a 3×32×32 image"),
    ],
)
def test_what_a_network_cannot_take_is_said_with_its_channels(model, said):
    with pytest.raises(ModelError, match=said):
        receptive_field(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_network_is_refused_by_what_it_is():
    scripted = nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ModelError, match="give the module that was scripted"):
        receptive_field(scripted)
