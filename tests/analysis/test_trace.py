import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.trace import follow, trace
from cifar_cnn.errors import ModelError


def names(model, size=(16, 16)):
    return [operation.name for operation in trace(model, size, OPERATIONS).operations]


def test_layers_have_their_modules_names_and_functions_their_modules_and_their_own():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return torch.relu(self.conv(x) + x + x)

    assert names(nn.Sequential(Sum())) == ["0.conv", "0.add", "0.add_1", "0.relu"]


def test_no_weights_are_needed_and_none_are_touched():
    with torch.device("meta"):
        network = resnet18()
    assert len(names(network, (64, 64))) == len(names(resnet18(), (64, 64))) == 69
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_decisions_on_shapes_are_followed():
    class Deciding(nn.Module):
        def forward(self, x):
            return x.relu().exp() if x.shape[-1] > 16 else x.sigmoid().exp()

    assert names(Deciding(), (16, 16)) == ["sigmoid", "exp"]
    assert names(Deciding(), (16, 17)) == ["relu", "exp"]


def test_the_line_named_is_the_networks_and_never_this_tools():
    class Sorting(nn.Module):
        def forward(self, x):
            return x.sort().values

    with pytest.raises(ModelError, match=r"\(test_trace\.py:\d+\)"):
        trace(Sorting(), (8, 8), OPERATIONS)
    with pytest.raises(ModelError, match=r"'gru' .* in 1 \(torch's own code\)"):
        trace(nn.Sequential(nn.Flatten(2), nn.GRU(64, 4)), (8, 8), OPERATIONS)


def test_a_partial_trace_ends_where_the_network_does():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 9))
    graph = trace(model, (8, 8), OPERATIONS, partial=True)
    assert [operation.name for operation in graph.operations] == ["0", "1"]
    assert graph.output is None


def test_a_constructor_that_fails_for_its_own_reasons_runs_once(tmp_path, capsys):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        print('building')\n        raise OSError('no weights here')\n"
    )
    with pytest.raises(ModelError, match="no weights here"):
        follow(f"{file}:Net", (32, 32), None)
    assert capsys.readouterr().out.count("building") == 1
