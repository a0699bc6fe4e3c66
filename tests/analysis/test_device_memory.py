"""Flash and RAM of devices, held against the exported ONNX file, and against sums by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, open_network, read_budget, summarize
from cifar_cnn.errors import SettingsError

IN_PLACE = {
    *("Add", "BatchNormalization", "Clip", "Div", "Gelu", "HardSwish", "Mul", "Neg", "Relu"),
    *("Sigmoid", "SiLU"),
}
GATES = {"HardSigmoid", "Sigmoid"}
VIEWS = {"Flatten", "Gather", "Identity", "Reshape", "Split", "Squeeze", "Unsqueeze"}

OWN = """
import torch
import torch.nn.functional as F
from torch import nn


def block(before, after, **options):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, **options), nn.BatchNorm2d(after))


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = block(3, 16, bias=False)
        self.skipped = nn.Sequential(block(16, 16), nn.SiLU(), block(16, 16))
        self.wide = nn.Conv2d(16, 24, 1, bias=False)
        self.norm = nn.BatchNorm2d(40)
        self.squeeze, self.excite = nn.Linear(40, 8), nn.Linear(8, 40)
        self.position = nn.Parameter(torch.randn(1, 40, 16, 16))
        self.scale = nn.Parameter(torch.ones(1))
        self.hidden = nn.Sequential(nn.Linear(40, 32, bias=False), nn.BatchNorm1d(32))
        self.classify = nn.Linear(32, num_classes)
        self.unused = nn.Linear(32, 1000)

    def forward(self, images):
        maps = F.hardswish(self.stem(images))
        maps = F.relu(maps + self.skipped(maps))
        maps = F.relu6(self.norm(torch.cat([maps, self.wide(maps) + self.wide(-maps)], dim=1)))
        maps = F.max_pool2d(maps, 2) + self.position
        gate = self.excite(F.relu(self.squeeze(maps.mean((2, 3))))).sigmoid()
        maps = self.scale * maps * gate[:, :, None, None]
        return self.classify(F.silu(self.hidden(F.adaptive_avg_pool2d(maps, 1).flatten(1))))
"""


def exported(network, folder):
    """Return the graph of the exported file for one image, constants folded by onnxruntime.

    Return the sum of its int8 file's numbers too, which are weights, biases or statistics.
    """
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    import onnxruntime
    from onnxruntime import quantization

    from cifar_cnn.inference.formats import Exportable, write_onnx

    model = network.model.eval()
    for tensor in model.state_dict().values():  # as if trained: a bias of zeros is not exported
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.2)
    example = torch.randn(2, 3, *network.settings.input_size)
    content, _ = write_onnx(Exportable(network, model, example, "logits", 20))
    proto = onnx.load_from_string(content)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "folded.onnx")
    one_image = proto.SerializeToString()
    onnxruntime.InferenceSession(one_image, options, providers=["CPUExecutionProvider"])
    folded = onnx.load(options.optimized_model_filepath)
    images = iter([{"images": example[:1].numpy()}])
    quantization.quantize_static(  # the file as it was exported
        *(onnx.load_from_string(content), folder / "int8.onnx"),
        SimpleNamespace(get_next=lambda: next(images, None)),
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )
    int8 = {
        each.name: onnx.numpy_helper.to_array(each).nbytes
        for each in onnx.load(folder / "int8.onnx").graph.initializer
        if each.dims and each.data_type != onnx.TensorProto.INT64
    }
    of_biases = ("zero_point", "bias_quantized_scale")
    size = sum(count for name, count in int8.items() if not name.endswith(of_biases))
    return onnx.shape_inference.infer_shapes(folded).graph, size


def operations(graph):
    """Return name, inputs, outputs of each node on the image; x·sigmoid(x) is one operation."""
    nodes = [(n.op_type, [*filter(None, n.input)], [*n.output]) for n in graph.node]
    gates = {outs[0]: ins[0] for name, ins, outs in nodes if name in GATES}
    silu = [
        outs[0] for n, ins, outs in nodes if n == "Mul" and any(gates.get(i) in ins for i in ins)
    ]
    for at, (_, ins, outs) in enumerate(nodes):
        if outs[0] in silu:
            nodes[at] = ("SiLU", [each for each in ins if each not in gates], outs)
    read = {each for _, ins, _ in nodes for each in ins} | {each.name for each in graph.output}
    return [node for node in nodes if read.intersection(node[2])]


def memory_of(graph):
    """Return flash in fp32 and RAM in int8, by the graph alone."""
    values = [*graph.input, *graph.value_info, *graph.output]
    sizes = {
        value.name: math.prod(each.dim_value for each in value.type.tensor_type.shape.dim)
        for value in values
    }
    weights = {each.name: each for each in graph.initializer if each.dims and each.data_type == 1}
    nodes, home = operations(graph), {}
    stored = {each for _, ins, _ in nodes for each in ins if each in weights}
    for name, ins, outs in nodes:
        for out in outs:
            home[out] = home.get(ins[0], ins[0]) if name in VIEWS else out
    reads = [
        {home.get(i, i) for i in ins if i in sizes and i not in weights} for _, ins, _ in nodes
    ]
    live, peak = {graph.input[0].name}, 0
    for at, (name, _, outs) in enumerate(nodes):
        later = set().union(*reads[at + 1 :])
        new = {
            home[out] for out in outs if home[out] not in live and (out in later or out == outs[0])
        }
        count = sum(sizes[each] for each in live | new)
        if name in IN_PLACE and any(sizes[r] >= sizes[outs[0]] for r in reads[at] - later):
            count -= sizes[outs[0]]
        peak = max(peak, count)
        live = (live | new) & later
    return 4 * sum(math.prod(weights[each].dims) for each in stored), peak


@pytest.mark.parametrize("name", ["compact", "half", "baseline", "own"])
def test_flash_and_ram_are_those_of_the_exported_graph(name, tmp_path):
    arguments = {"model_arg": ["width=0.5"]} if name == "half" else {}
    (tmp_path / "own.py").write_text(OWN)
    spec = {"half": "compact", "own": f"{tmp_path}/own.py:Net"}.get(name, name)
    network = open_network(spec, arguments)
    device = summarize(network).device
    graph, int8 = exported(network, tmp_path)
    assert (device.flash_fp32, device.ram_int8) == memory_of(graph)
    assert device.flash_int8 == int8
    assert device.ram_fp32 == 4 * device.ram_int8


@pytest.mark.parametrize(
    ("name", "weights", "others", "ram", "peak"),
    [
        (
            "compact",
            3 * 96 + 24 * 576 + 64 * 1152 + 64 * 864 + 96 * 1728
            + 96 * 9 + 96 * 192 + 192 * 9 + 192 * 192 + 960,
            64 * 2 + 96 * 2 + 192 + 4 * (64 + 96 + 192),
            24 * 31 * 31 + 64 * 31 * 31, "stages.0.enter.0",
        ),
        (
            "baseline", 648 + 216 + 1152 + 48 * 576 + 64 * 864 + 96 * 1152 + 1280,
            24 + 24 + 48 + 64 + 96 + 128 + 10,
            24 * 32 * 32 + 24 * 16 * 16, "convblock2.0.depthwise",
        ),
    ],
)  # fmt: skip
def test_the_built_in_networks_take_what_a_sum_by_hand_says(name, weights, others, ram, peak):
    device = summarize(name).device
    assert device.flash_fp32 == 4 * (weights + others)
    assert (device.ram_int8, device.ram_fp32, device.peak) == (ram, 4 * ram, peak)


def own_buffer(n, x):
    out = x.new_zeros(1, 8, 8, 8)
    out[:, :4] = n.conv(x)
    out[:, 4:] = x[:, :1]
    return out.relu()


@pytest.mark.parametrize(
    ("function", "numbers", "ram"),
    [
        (lambda n, x: n.norm(n.conv(x)), 12 + 4, 192 + 256),
        (lambda n, x: n.norm(y := n.conv(x)) + y, 12 + 16, 2 * 256),
        (lambda n, x: n.norm(n.conv(x).relu()), 12 + 16, 192 + 256),
        (lambda n, x: n.norm(n.conv(x)) + n.conv(x), 12 + 4 + 12, 192 + 2 * 256),
        (lambda n, x: n.conv(x).relu_().flatten(1).mul(2), 12, 192 + 256),
        (lambda n, x: n.conv(x)[:, :, ::2].contiguous(), 12, 192 + 256),
        (lambda n, x: n.conv(x).repeat(1, 2, 1, 1), 12, 256 + 512),
        (lambda n, x: F.max_pool2d(n.conv(x), 2), 12, 192 + 256),
        (lambda n, x: n.conv(x) * x.mean(), 12, 192 + 256 + 1),
        (own_buffer, 12, 192 + 256 + 512),
    ],
)
def test_what_folds_and_what_shares_memory(net, function, numbers, ram):
    layers = {"conv": nn.Conv2d(3, 4, 1, bias=False), "norm": nn.BatchNorm2d(4)}
    device = summarize(net(function, **layers), (8, 8)).device
    assert (device.flash_fp32, device.ram_int8) == (4 * numbers, ram)


def test_limits_are_inclusive_and_of_int8():
    device = summarize("baseline").device
    limits = {"max_flash": device.flash_int8, "max_ram": device.ram_int8}
    for less in (0, 1):
        budget = Budget(**{name: limit - less for name, limit in limits.items()})
        items = {
            each.name: each for each in summarize("baseline", budget=budget).budget.requirements
        }
        for name, limit in limits.items():
            item = items[name.replace("_", "-")]
            assert (item.limit, item.actual, item.passed) == (limit - less, limit, not less)
    assert items["max-ram"].detail.endswith("at convblock2.0.depthwise")


@pytest.mark.parametrize(
    ("size", "count"),
    [(131072, 131072), ("131072", 131072), ("128kB", 131072), ("128 KB", 131072), ("1MiB", 1 << 20),
     ("1.5mb", 3 << 19), ("12B", 12), ("0.5KiB", 512)],
)  # fmt: skip
def test_sizes_have_units_of_1024_bytes(tmp_path, size, count):
    assert Budget(max_flash=size).max_flash == count
    (tmp_path / "pyproject.toml").write_text(f"[tool.cifar-cnn.budget]\nmax-ram = {size!r}\n")
    assert read_budget(folder=tmp_path).max_ram == count


@pytest.mark.parametrize("size", ["12xB", "kB", "-1kB", "1e3", "0", "0.1B", 0, "", "1,5kB"])
def test_a_size_that_cannot_be_read_is_one_line(size):
    with pytest.raises(
        SettingsError, match=r"^budget item max-flash = .* is invalid: it has to be"
    ):
        read_budget({"max_flash": size})


def test_a_preset_sets_limits_and_explicit_ones_win(tmp_path):
    table = tmp_path / "pyproject.toml"
    table.write_text('[tool.cifar-cnn.budget]\nmax-ram = "1kB"\nmax-flash = "2kB"\n')
    limits = [
        {},
        {"device_preset": "pico"},
        {"device_preset": "pico", "max_ram": "64kB"},
    ]
    budgets = [read_budget(each, tmp_path) for each in limits]
    found = [(each.max_flash, each.max_ram) for each in budgets]
    assert found == [(2048, 1024), (2 << 20, 264 << 10), (2 << 20, 64 << 10)]
    table.write_text('[tool.cifar-cnn.budget]\ndevice-preset = "nano-33-ble"\nmax-ram = 1000\n')
    budget = read_budget(folder=tmp_path)
    assert (budget.max_flash, budget.max_ram, budget.file is None) == (1 << 20, 1000, False)
    with pytest.raises(SettingsError, match=r"'pic' \(did you mean 'pico'\?\): one of nano"):
        read_budget({"device_preset": "pic"}, tmp_path)
