"""How one run of a network is followed: names, writes in place, indices, decisions, refusals."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, receptive_field, summarize, verify
from cifar_cnn.analysis import choice, rules, steps
from cifar_cnn.analysis.steps import Kind
from cifar_cnn.errors import ModelError


def names(model, size=(16, 16)):
    return [layer.name for layer in receptive_field(model, size).layers]


def final(model, size=(16, 16)):
    return receptive_field(model, size).final.receptive_field


LAYERS = {"first": nn.ReLU(), "last": nn.Sigmoid()}
IDLE = [
    *(lambda x: x.float(), lambda x: x.contiguous(), lambda x: x.detach(), lambda x: x.data),
    *(lambda x: x.to("cpu"), lambda x: x.view(x.shape), lambda x: x.requires_grad_()),
]


def by_size(_, x):
    return x.relu().exp() if x.shape[-1] > 16 else x.sigmoid().exp()


@pytest.mark.parametrize(
    ("function", "layers", "rows"),
    [
        (lambda n, x: torch.tanh(n.first(x) + x + x), LAYERS,
         {"0.first": "ReLU", "0.add": "add", "0.add_1": "add", "0.tanh": "tanh"}),
        *[(lambda n, x, idle=idle: n.last(idle(n.first(x))), LAYERS,
           {"0.first": "ReLU", "0.last": "Sigmoid"}) for idle in IDLE],
        (lambda _, x: F.avg_pool2d(x, 3), {}, {"0": "Net"}),  # a layer of the user's own
        (by_size, {}, {"0.sigmoid": "sigmoid", "0.exp": "exp"}),
    ],
)  # fmt: skip
def test_rows_have_the_names_of_layers_and_functions_in_their_modules(net, function, layers, rows):
    found = receptive_field(nn.Sequential(net(function, **layers)), (16, 16)).layers
    assert {row.name: row.type for row in found} == rows


def on_a_buffer(net, x):
    x = net.first(x)
    return net.second(x) if (net.stage >= 1).all() else x


@pytest.mark.parametrize(("stage", "size"), [(0, 3), (1, 5)])
def test_decisions_on_the_values_of_a_buffer_are_followed(net, stage, size):
    layers = {"first": nn.Conv2d(3, 3, 3, padding=1), "second": nn.Conv2d(3, 3, 3, padding=1)}
    model = net(on_a_buffer, stage=nn.Buffer(torch.full((1,), stage)), **layers)
    assert final(model) == (size, size)
    assert summarize(model, (16, 16), budget=Budget()).budget.final.receptive_field == (size, size)


def test_a_constructor_that_fails_for_its_own_reasons_runs_once(tmp_path, capsys):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        print('building')\n        raise OSError('no weights here')\n"
    )
    with pytest.raises(ModelError, match="no weights here"):
        receptive_field(f"{file}:Net")
    assert capsys.readouterr().out.count("building") == 1


@pytest.mark.parametrize(
    "forward", ["self.layer(x - MEAN)", "self.layer(x.to('cpu'))", "self.layer(x)[:, self.order]"]
)
def test_a_network_in_a_file_may_use_tensors_of_its_own(tmp_path, forward):
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\nMEAN = torch.ones(1, 3, 1, 1)\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layer = nn.Conv2d(3, 4, 3)\n"
        "        self.register_buffer('order', torch.tensor([2, 0]))\n"
        f"    def forward(self, x):\n        return {forward}\n"
    )
    assert final(f"{file}:Net") == (3, 3)
    assert verify(f"{file}:Net").agreed
    assert summarize(f"{file}:Net").totals.parameters == 112


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 4, 3).half(),
        lambda: nn.Conv2d(3, 4, 3).double(),
        lambda: nn.LazyConv2d(4, 3),
        lambda: torch.compile(nn.Conv2d(3, 4, 3)),
        lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3))),
        lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())),
        lambda: torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 32, 32)),
    ],
    ids=["half", "double", "lazy", "compiled", "scripted layer", "scripted", "traced"],
)
def test_networks_of_every_type_and_form_are_analyzed(make):
    assert final(make()) == (3, 3)
    assert verify(make()).agreed
    totals = summarize(make()).totals
    assert (totals.parameters, totals.mult_adds) == (112, 108 * 30 * 30)


def swish(x):
    return x * torch.sigmoid(x)


def running_maximum(x):
    return torch.cummax(x, 2)[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_function_is_followed_and_a_refusal_inside_keeps_its_words(net):
    act, refused = torch.jit.script(swish), torch.jit.script(running_maximum)
    model = net(lambda n, x: n.last(act(n.first(x))), first=nn.Conv2d(3, 4, 3), last=nn.ReLU())
    assert final(model) == (3, 3)
    assert names(model) == ["first", "sigmoid", "mul", "last"]
    assert verify(model, (16, 16)).agreed
    with pytest.raises(ModelError, match=r"unknown operation .*cummax"):
        final(net(lambda _, x: refused(x)))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ((slice(None), [1, 4]), r"index 4 is out of bounds for dimension \d with size 4"),
        ((..., np.array([-17]), slice(None)), r"index -17 is out of bounds for dimension"),
        ((None, ..., torch.tensor([True, False])), r"shape of the mask \[2\] at index 0"),
        ((0, 5), r"index 5 is out of bounds for dimension \d with size 4"),
    ],
)
def test_an_index_that_does_not_fit_is_one_line_with_torchs_own_words(net, index, message):
    place = r"cannot take a 3×16×16 image: IndexError in its forward \(test_run\.py:\d+\): .*"
    first = nn.Conv2d(3, 4, 3, padding=1)
    for function in (lambda n, x: n.first(x)[index], lambda n, x: put(n.first(x), index)):
        with pytest.raises(ModelError, match=place + message) as caught:
            final(net(function, first=first))
        assert "\n" not in str(caught.value)


def put(x, index):
    x = x.clone()
    x[index] = 0.0
    return x


def outdated(_, x):
    part = x[:, :2]
    x += F.avg_pool2d(x, 5, 1, 2)
    return part


def narrowed(_, x):
    y = F.avg_pool2d(x, 3, 1, 1)
    y.narrow(1, 0, 2).add_(x[:, 1:])
    return y


def partly(_, x):
    x = x * 1
    x.view(-1)[5:200].add_(x.view(-1)[277:472])
    return x


@pytest.mark.parametrize(
    ("function", "size"), [(outdated, (5, 5)), (narrowed, (3, 3)), (partly, (2, 1))]
)
def test_a_view_sees_what_is_written_into_its_memory_later(net, function, size):
    assert final(net(function)) == size
    assert verify(net(function), (16, 16)).agreed


HERE = r"\(test_run\.py:\d+\)"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _, x: x if x.sum() > 0 else -x, rf"decides by the values in a tensor in 0 {HERE}"),
        (lambda _, x: x * x.sum().item(), "decides by the values in a tensor"),
        (lambda _, x: x * x.mean().tolist(), "decides by the values in a tensor"),
        (lambda _, x: x[x > 0], rf"decides by the values in a tensor in 0 {HERE}"),
        (lambda _, x: x.sort(2).values, rf"unknown operation 'sort' .* in 0 {HERE}"),
        (
            lambda _, x: x.cummax(2)[0],
            rf"unknown operation 'cummax' .*aten\.cummax\..* in 0 {HERE}",
        ),
        (lambda _, x: x.renorm(2, 0, 1.0), r"unknown operation .*aten\.renorm\.default"),
        (lambda _, x: x.histc(8), r"unknown operation .*aten\.histc\.default"),
        (
            lambda _, x: x.gather(1, x.argmax(1, keepdim=True)),
            "'gather' with an index whose numbers",
        ),
        (
            lambda _, x: F.interpolate(
                x, (9, 9), mode="bilinear", antialias=True, align_corners=True
            ),
            "'interpolate' with antialias and align_corners is not supported in 0 ",
        ),
        (lambda _, x: x.relu()[:, :, :0], "leaves an empty map"),
        (lambda _, x: torch.zeros_like(x), "does not depend on its input"),
        (lambda _, x: (x, x), "returns a tuple of 2, not one tensor"),
        (lambda _, x: {"a": x, "b": x}, "returns a dict of a, b, not one tensor"),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(40, 4, 4)), "3×32×32 image: RuntimeError in 0.1: "),
        (nn.Conv2d(1, 4, 3), "cannot take a 3×32×32 image: .*to have 1 channels"),
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(5, 4, 3)), "cannot take a 3×32×32 image"),
        (nn.Identity(), "returns its input as it is"),
        (nn.Bilinear(3, 3, 3), "cannot take a 3×32×32 image: .* missing .*'input2'"),
    ],
)
def test_what_cannot_be_analyzed_is_one_line_that_says_what_and_where(net, function, message):
    with pytest.raises(ModelError, match=message) as raised:
        receptive_field(nn.Sequential(net(function)))
    assert "\n" not in str(raised.value)


def test_a_network_of_two_inputs_is_one_line_that_says_what_can_be_analyzed():
    with pytest.raises(ModelError, match=r"missing .*'input2'; only networks of one image tensor"):
        receptive_field(nn.Bilinear(3, 3, 3))


def test_vouching_is_offered_only_where_it_can_be_true_and_is_believed(net):
    def refusal(function):
        with pytest.raises(ModelError) as raised:
            final(net(function))
        return str(raised.value)

    assert "it changes the shape" in refusal(lambda _, x: x.kthvalue(2, 1)[0])
    name = re.search(r"say assume_pointwise (\w+)", refusal(lambda _, x: x.cummax(2)[0])).group(1)
    vouched = receptive_field(net(lambda _, x: x.cummax(2)[0]), assume_pointwise=[name])
    assert (name, vouched.final.receptive_field) == ("cummax", (1, 1))


@torch.library.custom_op("cifar_cnn_tests::fire", mutates_args=())
def fire(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x > 1).to(x.dtype), x - 1


def test_a_custom_operation_is_vouched_for_by_the_name_in_its_refusal_and_is_not_shown(net):
    model = net(lambda n, x: n.last(fire(n.first(x))[0]), first=nn.Conv2d(3, 4, 3), last=nn.ReLU())
    with pytest.raises(ModelError, match=rf"unknown operation .*fire.* {HERE}") as raised:
        final(model)
    vouched = {"assume_pointwise": [str(raised.value).rpartition(" assume_pointwise ")[2]]}
    assert receptive_field(model, **vouched).final.receptive_field == (3, 3)
    proof = verify(model, **vouched)
    assert proof.agreed
    assert proof.layers >= 1  # "first"
    assert len(proof.not_shown) == 2
    assert all("fire" in each.reason for each in proof.not_shown)


KNOWN = {name: kind for name, (kind, _) in steps.RULES.items()}


def every_operation():
    """Every ATen operation of the installed PyTorch, with each of its overloads."""
    for schema in torch._C._jit_get_all_schemas():  # noqa: SLF001
        library, _, name = schema.name.partition("::")
        if library == "aten":
            overload = getattr(getattr(torch.ops.aten, name), schema.overload_name or "default")
            yield choice.Operation(overload, (), {}, name)


def test_every_operation_of_torch_goes_by_its_rule_its_memory_or_its_tag_or_is_unknown():
    counts = Counter()
    for operation in every_operation():
        kind, rule = operation.rule(set()) or (None, None)
        tags = operation.func.tags
        if operation.op in KNOWN:
            assert kind == KNOWN[operation.op], operation.func
        elif operation.op in choice.NUMBERED or operation.is_view:
            assert kind == Kind.MOVE, operation.func
        elif torch.Tag.pointwise in tags:
            assert (kind, rule) == (Kind.POINTWISE, rules.pointwise), operation.func
            counts["pointwise"] += 1
        elif torch.Tag.reduction in tags:
            assert kind == Kind.MIXING, operation.func
            counts["reduction"] += 1
        else:
            assert kind is None, operation.func
    assert counts["pointwise"] > 500
    assert counts["reduction"] > 60


def test_every_operation_that_is_named_exists():
    existing = {operation.function for operation in every_operation()}
    existing |= {name.removesuffix("_") for name in existing}
    named = [*KNOWN, *choice.NUMBERED, *choice.CUTS, *choice.SHAPE_ONLY]
    assert [name for name in named if name not in existing] == []
