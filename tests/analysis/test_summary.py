import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, summarize
from cifar_cnn.errors import ModelError

REFERENCE_ROWS = """
    Conv2d 24,32,32 648
    BatchNorm2d 24,32,32 48
    ReLU 24,32,32 0
    Dropout 24,32,32 0
    Conv2d 24,16,16 240
    Conv2d 48,16,16 1200
    DepthwiseSeparableConv 48,16,16 0
    BatchNorm2d 48,16,16 96
    ReLU 48,16,16 0
    Dropout 48,16,16 0
    Conv2d 64,16,16 27712
    BatchNorm2d 64,16,16 128
    ReLU 64,16,16 0
    Dropout 64,16,16 0
    Conv2d 96,8,8 55392
    BatchNorm2d 96,8,8 192
    ReLU 96,8,8 0
    Dropout 96,8,8 0
    Conv2d 128,4,4 110720
    BatchNorm2d 128,4,4 256
    ReLU 128,4,4 0
    Dropout 128,4,4 0
    AdaptiveAvgPool2d 128,1,1 0
    Conv2d 10,1,1 1290
"""


def test_baseline_has_the_references_24_rows_in_its_order():
    rows = summarize("baseline").rows
    shown = [f"{r.type} {','.join(map(str, r.output_size))} {r.parameters}" for r in rows]
    assert shown == [line.strip() for line in REFERENCE_ROWS.strip().splitlines()]
    assert rows[0].name == "convblock1.0"
    assert rows[6].name == "convblock2.0"


def test_baseline_has_the_references_sizes():
    summary = summarize("baseline")
    sizes = (
        summary.input_mb,
        summary.forward_backward_mb,
        summary.parameters_mb,
        summary.total_mb,
    )
    assert [f"{size:.2f}" for size in sizes] == ["0.01", "2.02", "0.76", "2.78"]
    assert (summary.parameters, summary.trainable) == (197_922, 197_922)


@pytest.mark.parametrize(
    ("model", "published"), [("resnet18", 1.814), ("resnet50", 4.089), ("mobilenet_v2", 0.301)]
)
def test_mult_adds_are_within_one_percent_of_torchvisions(model, published):
    mult_adds = summarize(f"torchvision.models:{model}", (224, 224)).mult_adds
    assert mult_adds / 1e9 == pytest.approx(published, rel=0.01)


class Functional(nn.Module):
    """A grouped convolution and a linear layer without modules."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(6, 1, 3, 3))
        self.matrix = nn.Parameter(torch.zeros(10, 6))

    def forward(self, x):
        maps = F.conv2d(x, self.kernel, padding=1, groups=3)
        return F.linear(maps.mean((2, 3)), self.matrix)


def test_functional_operations_are_counted_and_rows_add_up_to_the_totals():
    summary = summarize(Functional(), (8, 8))
    assert summary.mult_adds == 6 * 9 * 64 + 60
    assert sum(row.mult_adds for row in summary.rows) == summary.mult_adds
    assert sum(row.parameters for row in summary.rows) == summary.parameters == 54 + 60


def test_rows_of_nested_modules_add_up_to_the_totals():
    summary = summarize("torchvision.models:resnet18", (64, 64))
    assert sum(row.mult_adds for row in summary.rows) == summary.mult_adds
    assert sum(row.parameters for row in summary.rows) == summary.parameters == 11_689_512


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(self.one(x)))


def test_shared_parameters_count_once_and_their_mult_adds_each_time():
    summary = summarize(Shared(), (8, 8))
    assert summary.parameters == 81 + 3 + 3
    assert [row.parameters for row in summary.rows] == [84, 0, 3]
    assert [row.mult_adds for row in summary.rows] == [81 * 64] * 3


def test_frozen_parameters_are_told_apart():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    model[0].requires_grad_(requires_grad=False)
    summary = summarize(model, (8, 8))
    assert (summary.parameters, summary.trainable) == (16 + 25, 25)


def test_the_network_itself_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summarize(model, (8, 8), budget=Budget())
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_without_a_budget_operations_need_not_be_known():
    class Sorting(nn.Module):
        def forward(self, x):
            return x.sort(dim=2).values

    assert summarize(Sorting(), (8, 8)).budget is None
    with pytest.raises(ModelError, match="sort"):
        summarize(Sorting(), (8, 8), budget=Budget())


def test_parametrised_weights_are_counted_and_rows_still_add_up():
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    summary = summarize(nn.Sequential(convolution, nn.ReLU()), (8, 8))
    assert summary.parameters == sum(row.parameters for row in summary.rows) == 4 + 108 + 4
    assert summary.mult_adds == sum(row.mult_adds for row in summary.rows) == 108 * 36


def test_attention_is_counted_on_its_plain_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.layer = layer

        def forward(self, x):
            return self.layer(self.patch(x).flatten(2).transpose(1, 2))

    summary = summarize(Tokens(), (8, 8))
    patches, projections = 4 * 8 * 48, 4 * (4 * 8 * 8)
    attention, perceptron = 2 * (4 * 4 * 8), 2 * (4 * 8 * 16)
    assert summary.mult_adds == patches + projections + attention + perceptron


def test_a_network_without_modules_has_no_rows():
    class Bare(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 3)

    summary = summarize(Bare(), (9, 9), budget=Budget(min_rf=2, require=()))
    assert (summary.rows, summary.parameters, summary.mult_adds) == ((), 0, 0)
    assert summary.budget.passed


def test_a_network_that_begins_with_a_view_of_its_input_is_summarized():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3072, 10)

        def forward(self, x):
            return self.layer(x.flatten(1))

    summary = summarize(Flat())
    assert (summary.parameters, summary.mult_adds) == (30_730, 30_720)


def test_a_module_that_runs_by_its_forward_and_one_that_does_not_run_have_a_row():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.last = nn.Conv2d(8, 4, 1)
            self.unused = nn.Linear(64, 400)

        def forward(self, x):
            return self.last(self.first.forward(x))

    model = Rows()
    summary = summarize(model, (8, 8), budget=Budget(max_mult_adds=1))
    assert [(r.name, r.output_size, r.parameters, r.mult_adds) for r in summary.rows] == [
        ("first", (8, 6, 6), 224, 216 * 36),
        ("last", (4, 6, 6), 36, 32 * 36),
        ("unused", (), 26_000, 0),
    ]
    assert summary.parameters == sum(row.parameters for row in summary.rows)
    assert summary.forward_backward_mb == 2 * (8 + 4) * 36 * 4 / 2**20
    details = {item.name: item.detail for item in summary.budget.requirements}
    assert details["max-params"].startswith("most in unused;")
    assert details["max-mult-adds"] == "most in first"
    assert "forward" not in vars(model.first)


def test_rows_of_attention_add_up_though_its_projection_runs_as_no_module():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1)

        def forward(self, x):
            tokens = x.flatten(2).squeeze(0).t()
            return self.attention(tokens, tokens, tokens)[0]

    summary = summarize(Attending(), (4, 4))
    assert sum(row.parameters for row in summary.rows) == summary.parameters == 36 + 12
    assert sum(row.mult_adds for row in summary.rows) == summary.mult_adds


def test_a_forward_of_the_networks_own_is_called_and_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    own = model[1].forward = lambda x: F.avg_pool2d(x, 2)
    assert summarize(model, (8, 8)).rows[-1].output_size == (4, 4, 4)
    assert vars(model[1])["forward"] is own


@pytest.mark.parametrize("is_frozen", [True, False])
def test_parameters_that_are_expanded_are_no_crash(is_frozen):
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 10, 4, 4)
            self.linear = nn.Linear(10, 10)
            self.token = nn.Parameter(torch.zeros(1, 10))

        def forward(self, x):
            x = self.stem(x).mean((2, 3))
            with torch.set_grad_enabled(not is_frozen):
                return x + self.linear(self.token.expand(len(x), -1))

    summary = summarize(Token(), (8, 8), budget=Budget())
    assert [row.name for row in summary.rows] == ["stem", "linear", "Token"]
    assert summary.mult_adds == 480 * 4 + 100


@pytest.mark.parametrize("ask", [True, False])
def test_a_network_that_hooks_onto_its_gradient_is_summarized(ask):
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x = self.conv(x)
            if not ask or x.requires_grad:
                x.register_hook(lambda _: None)
            return x

    assert summarize(Hooked(), (8, 8), budget=Budget()).parameters == 112


def test_a_network_and_its_weights_are_not_kept():
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    kept = weakref.ref(model)
    summarize(model)
    del model
    gc.collect()
    assert kept() is None


def test_a_module_whose_result_no_table_shows_is_one_line():
    class Side(nn.Module):
        def forward(self, image):
            return image.shape[-1]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.side, self.first = Side(), nn.Conv2d(3, 8, 3)

        def forward(self, image):
            return self.first(image) / self.side(image)

    with pytest.raises(ModelError, match=r"the table of layers cannot be made: .* output type: 32"):
        summarize(Net())
