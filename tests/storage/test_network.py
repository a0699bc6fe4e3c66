"""One function opens whatever names a network."""

from pathlib import Path

import pytest
import torch

from cifar_cnn import open_network, summarize
from cifar_cnn.data.dataset import REFERENCE
from cifar_cnn.errors import CheckpointError, ModelError, RunError
from cifar_cnn.models import build_model

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=4, num_classes=10):
        super().__init__(
            nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, num_classes),
        )
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets_to_open.py").write_text(NET)


@pytest.fixture
def run(untrained_file):
    """A run `a` that has nothing but its model.pt."""
    folder = Path("runs/a")
    folder.mkdir(parents=True)
    untrained_file.rename(folder / "model.pt")
    return folder


@pytest.mark.parametrize("spec", ["nets_to_open.py", "nets_to_open.py:Net", "nets_to_open:Net"])
def test_a_spec_is_a_fresh_network(spec):
    network = open_network(spec, {"model_arg": ["width=6"]})
    assert network.model[0].out_channels == 6
    assert network.model is network.model
    assert (network.file, network.checkpoint, network.classes) == (None, None, ())
    assert network.normalization == REFERENCE


@pytest.mark.parametrize("name", ["a", "runs/a", "runs/a/model.pt", Path("a"), Path("runs/a")])
def test_a_run_is_its_model_with_weights_and_classes(run, name):
    network = open_network(name)
    assert network.file == run / "model.pt"
    assert network.classes == ("blue", "green", "red")
    assert not network.model.training
    stored = network.checkpoint.state_dict["convblock5.0.bias"]
    assert torch.equal(network.model.state_dict()["convblock5.0.bias"], stored)
    assert summarize(str(name)).model == "baseline"


def test_a_bare_state_dict_is_of_baseline_unless_a_model_is_given(untrained_file):
    torch.save(build_model("baseline").state_dict(), "bare.pt")
    assert open_network("bare.pt").model.gap
    torch.save(build_model("nets_to_open.py").state_dict(), "bare.pt")
    assert open_network("bare.pt", {"model": "nets_to_open.py"}).model[0].out_channels == 4
    with pytest.raises(CheckpointError, match=r"another network: .*; bare.pt is a bare state dict"):
        _ = open_network("bare.pt").model
    with pytest.raises(CheckpointError, match=r"another network: [^;]*$"):
        _ = open_network("bare.pt", {"model": "baseline"}).model


def test_beside_several_files_a_model_is_not_for_those_of_built_in_networks(run):
    given = {"model": "nets_to_open.py"}
    assert open_network("a", given, of_several=True).settings.model == "baseline"
    with pytest.raises(CheckpointError, match="belongs to another network"):
        _ = open_network("a", given).model


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("basline", ModelError, r"unknown model 'basline' \(did you mean 'baseline'\?\)"),
        ("none.py:Net", ModelError, "model file none.py does not exist"),
        ("none.pt", CheckpointError, "there is no file none.pt"),
        (Path("none"), RunError, "there is no run runs/none"),
        ("runs", RunError, "runs is a folder without model.pt"),
    ],
)
def test_what_names_no_network_is_one_line(run, name, error, said):
    with pytest.raises(error, match=said) as caught:
        _ = open_network(name).model
    assert "\n" not in str(caught.value)
