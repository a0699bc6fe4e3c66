import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
import torchinfo
import torchvision
from torch import nn

from cifar_cnn import Budget, receptive_field, summarize
from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model

REFERENCE_ROWS = """
    Conv2d 24,32,32 648, BatchNorm2d 24,32,32 48, ReLU 24,32,32 0, Dropout 24,32,32 0,
    Conv2d 24,16,16 240, Conv2d 48,16,16 1200, DepthwiseSeparableConv 48,16,16 0,
    BatchNorm2d 48,16,16 96, ReLU 48,16,16 0, Dropout 48,16,16 0,
    Conv2d 64,16,16 27712, BatchNorm2d 64,16,16 128, ReLU 64,16,16 0, Dropout 64,16,16 0,
    Conv2d 96,8,8 55392, BatchNorm2d 96,8,8 192, ReLU 96,8,8 0, Dropout 96,8,8 0,
    Conv2d 128,4,4 110720, BatchNorm2d 128,4,4 256, ReLU 128,4,4 0, Dropout 128,4,4 0,
    AdaptiveAvgPool2d 128,1,1 0, Conv2d 10,1,1 1290"""


def adds_up(summary):
    """Return whether the rows add up to the totals."""
    parameters = sum(row.parameters for row in summary.layers) == summary.totals.parameters
    return parameters and sum(row.mult_adds for row in summary.layers) == summary.totals.mult_adds


def test_baseline_has_the_references_24_rows_and_sizes():
    summary = summarize("baseline")
    rows = [f"{r.type} {','.join(map(str, r.output_size))} {r.parameters}" for r in summary.layers]
    assert rows == " ".join(REFERENCE_ROWS.split()).split(", ")
    assert (summary.layers[0].name, summary.layers[6].name) == ("convblock1.0", "convblock2.0")
    of = summary.totals
    mebibytes = (of.input_mb, of.forward_backward_mb, of.parameters_mb, of.total_mb)
    assert [f"{n:.2f}" for n in mebibytes] == ["0.01", "2.02", "0.76", "2.78"]
    assert (summary.totals.parameters, summary.totals.trainable) == (197_922, 197_922)


@pytest.mark.parametrize(
    ("model", "published"), [("resnet18", 1.814), ("resnet50", 4.089), ("mobilenet_v2", 0.301)]
)
def test_mult_adds_are_within_one_percent_of_torchvisions(model, published):
    summary = summarize(f"torchvision.models:{model}", (224, 224))
    assert summary.totals.mult_adds / 1e9 == pytest.approx(published, rel=0.01)
    assert adds_up(summary)


@pytest.mark.parametrize("name", ["baseline", "compact", "resnet18", "mobilenet_v2", "densenet121"])
def test_layers_and_parameters_are_those_of_torchinfo(name):
    is_own = name in {"baseline", "compact"}
    model = build_model(name) if is_own else torchvision.models.get_model(name, weights=None)
    summary = summarize(model, (64, 64))
    theirs = torchinfo.summary(model, (1, 3, 64, 64), device="cpu", verbose=0)
    leaves = [layer for layer in theirs.summary_list if layer.is_leaf_layer]
    expected = [(tuple(each.output_size[1:]), each.leftover_params()) for each in leaves]
    names = {name for name, module in model.named_modules() if not [*module.children()]}
    rows = [(row.output_size, row.parameters) for row in summary.layers if row.name in names]
    assert rows == expected
    totals = (theirs.total_params, theirs.trainable_params)
    assert (summary.totals.parameters, summary.totals.trainable) == totals


def functional(net, x):
    maps = F.conv2d(x, net.kernel, padding=1, groups=3)
    return F.linear(maps.mean((2, 3)), net.matrix)


def attending(net, x):
    tokens = x.flatten(2).squeeze(0).t()
    return net.attention(tokens, tokens, tokens)[0][None]


def recurrent(net, x):
    x = net.conv(x).relu().permute(0, 3, 1, 2).flatten(2)
    return net.fc(net.rnn(x)[0][:, -1])


def convolution(*args, **kwargs):
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(*args, **kwargs))


@pytest.mark.parametrize(
    ("function", "layers", "size", "parameters", "mult_adds"),
    [
        (
            functional, {"kernel": nn.Parameter(torch.zeros(6, 1, 3, 3)),
                         "matrix": nn.Parameter(torch.zeros(10, 6))},
            8, 54 + 60, 6 * 9 * 64 + 60,
        ),
        (nn.Sequential(convolution(3, 4, 3), nn.ReLU()), {}, 8, 4 + 108 + 4, 108 * 36),
        (attending, {"attention": nn.MultiheadAttention(3, 1)}, 4, 36 + 12, 16 * 36 + 2 * 3 * 256),
        (
            lambda n, x: n.layer(n.patch(x).flatten(2).mT),
            {"patch": nn.Conv2d(3, 8, 4, 4),
             "layer": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)},
            8, 392 + 216 + 72 + 144 + 136 + 32,
            4 * 8 * 48 + 4 * (4 * 8 * 8) + 2 * (4 * 4 * 8) + 2 * (4 * 8 * 16),
        ),
        (
            recurrent,
            {"conv": nn.Conv2d(3, 8, 3, 2, 1), "fc": nn.Linear(64, 10),
             "rnn": nn.LSTM(128, 32, batch_first=True, bidirectional=True)},
            32, 42_346, 55_296 + 16 * 2 * 4 * 32 * 160 + 640,
        ),
        (lambda n, x: n.layer(x.flatten(1)), {"layer": nn.Linear(3072, 10)}, 32, 30_730, 30_720),
        (lambda _, x: F.avg_pool2d(x, 3), {}, 9, 0, 0),
    ],
    ids=["functional", "parametrised", "attention", "tokens", "recurrent", "flat", "bare"],
)  # fmt: skip
def test_what_a_network_holds_and_does_is_counted_and_rows_add_up(
    net, function, layers, size, parameters, mult_adds
):
    summary = summarize(net(function, **layers), (size, size), budget=Budget())
    assert (summary.totals.parameters, summary.totals.mult_adds) == (parameters, mult_adds)
    assert adds_up(summary)


def test_shared_parameters_count_once_and_their_mult_adds_each_time(net):
    one, other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    other.weight = one.weight
    summary = summarize(net(lambda n, x: n.b(n.a(n.a(x))), a=one, b=other), (8, 8))
    assert summary.totals.parameters == 81 + 3 + 3
    assert [row.parameters for row in summary.layers] == [84, 0, 3]
    assert [row.mult_adds for row in summary.layers] == [81 * 64] * 3


def test_the_network_itself_is_left_as_it_was_and_frozen_parameters_are_told_apart():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.Dropout())
    model[0].requires_grad_(requires_grad=False)
    model[3].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summary = summarize(model, (8, 8), budget=Budget())
    assert (summary.totals.parameters, summary.totals.trainable) == (16 + 8 + 25, 8 + 25)
    assert [module.training for module in model.modules()] == [True] * 4 + [False]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(not vars(module).get("forward") for module in model.modules())


def test_an_unknown_operation_leaves_the_other_verdicts(net):
    layers = {"point": nn.Conv2d(3, 4, 1), "pool": nn.AdaptiveAvgPool2d(1)}
    model = net(lambda n, x: n.pool(n.point(x.sort(dim=2).values)), **layers)
    assert summarize(model, (8, 8)).budget is None
    verdict = summarize(model, (8, 8), budget=Budget(require=("gap",), min_rf_features=3)).budget
    assert {item.name: (item.actual, item.passed) for item in verdict.requirements} == {
        "max-params": (16, True),
        "min-rf": (None, False),
        "min-rf-features": (None, False),
        "require:gap": (1, True),
    }
    detail = verdict.requirements[1].detail
    assert detail.startswith("unknown operation 'sort' (aten.sort.default) in the net")
    assert (verdict.features, verdict.final, verdict.passed) == (None, None, False)


def test_several_answers_for_one_image_are_an_error(net):
    body = nn.Sequential(nn.Conv2d(3, 32, 3, 4, 2, 2), nn.ReLU(), nn.AvgPool2d(4))
    model = net(lambda n, x: n.head(n.body(x).view(-1, 32)), body=body, head=nn.Linear(32, 10))
    with pytest.raises(ModelError, match=r"one image gives 4 answers, of shape \(10,\): a view"):
        summarize(model)
    assert receptive_field(model).final.receptive_field[0] > 1


def test_a_module_that_runs_by_its_forward_and_one_that_does_not_run_have_a_row(net):
    first, last, unused = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Linear(64, 400)
    model = net(lambda n, x: n.last(n.first.forward(x)), first=first, last=last, unused=unused)
    summary = summarize(model, (8, 8), budget=Budget(max_mult_adds=1))
    assert [(r.name, r.output_size, r.parameters, r.mult_adds) for r in summary.layers] == [
        ("first", (8, 6, 6), 224, 216 * 36),
        ("last", (4, 6, 6), 36, 32 * 36),
        ("unused", (), 26_000, 0),
    ]
    assert summary.totals.forward_backward_mb == 2 * (8 + 4) * 36 * 4 / 2**20
    details = {item.name: item.detail for item in summary.budget.requirements}
    assert details["max-params"].startswith("most in unused;")
    assert details["max-mult-adds"] == "most in first"
    assert "forward" not in vars(first)


def test_a_forward_of_the_networks_own_is_called_and_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    own = model[1].forward = lambda x: F.avg_pool2d(x, 2)
    assert summarize(model, (8, 8)).layers[-1].output_size == (4, 4, 4)
    assert vars(model[1])["forward"] is own


@pytest.mark.parametrize("is_frozen", [True, False])
def test_parameters_that_are_expanded_are_no_crash(net, is_frozen):
    def forward(net, x):
        x = net.stem(x).mean((2, 3))
        with torch.set_grad_enabled(not is_frozen):
            return x + net.linear(net.token.expand(len(x), -1))

    layers = {"stem": nn.Conv2d(3, 10, 4, 4), "linear": nn.Linear(10, 10)}
    summary = summarize(net(forward, token=nn.Parameter(torch.zeros(1, 10)), **layers), (8, 8))
    assert [row.name for row in summary.layers] == ["stem", "linear", "Net"]
    assert summary.totals.mult_adds == 480 * 4 + 100


@pytest.mark.parametrize("ask", [True, False])
def test_a_network_that_hooks_onto_its_gradient_is_summarized(net, ask):
    def forward(net, x):
        x = net.conv(x)
        if not ask or x.requires_grad:
            x.register_hook(lambda _: None)
        return x

    summary = summarize(net(forward, conv=nn.Conv2d(3, 4, 3)), (8, 8), budget=Budget())
    assert summary.totals.parameters == 112


def forbidden(*_, **__):
    pytest.fail("torch's own is meant")


@pytest.mark.parametrize(
    "own",
    [
        {"train": forbidden, "eval": forbidden, "to": forbidden},
        {"parameters": lambda net, *_: iter([net[0].weight])},
        {"named_parameters": lambda net, *_, **__: iter([("0.weight", net[0].weight)])},
    ],
    ids=["train", "parameters", "named_parameters"],
)
def test_methods_that_shadow_torchs_do_not_matter(own):
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9)]
    model = type("Shadowing", (nn.Sequential,), own)(*layers)
    summary = summarize(model, budget=Budget())
    assert (summary.totals.parameters, summary.warnings) == (224 + 81, ())
    assert "registered" not in {item.name for item in summary.budget.requirements}
    assert receptive_field(model).final == receptive_field(nn.Sequential(*layers)).final
    assert not set(own) & set(vars(model))


@pytest.mark.parametrize("is_same", [True, False])
def test_several_threads_get_the_answer_of_one(is_same):
    def network():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, dilation=2))

    def answer(model):
        return summarize(model, budget=Budget()).model_dump(mode="json")

    models = [network()] * 12 if is_same else [network() for _ in range(12)]
    expected = answer(models[0])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(answer, models))
    assert found == [expected] * 12
    assert all(module.training for module in models[0].modules())


def test_a_network_and_its_weights_are_not_kept():
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    kept = weakref.ref(model)
    summarize(model)
    del model
    gc.collect()
    assert kept() is None


def test_a_module_that_gives_no_tensor_is_a_row_without_a_size(net):
    side = net(lambda _, x: x.shape[-1])
    model = net(lambda n, x: n.first(x) / n.side(x), side=side, first=nn.Conv2d(3, 8, 3))
    assert [row.output_size for row in summarize(model).layers] == [(8, 30, 30), ()]
