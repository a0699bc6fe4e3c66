"""Other people's code raises at every point where it runs: each time it is one line."""

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cifar_cnn import api
from cifar_cnn.errors import ModelError
from cifar_cnn.models.module import move
from cifar_cnn.models.own_code import import_source
from cifar_cnn.settings import resolve_settings

NET = """
import os
import torch
from torch import nn

def at(point, error=ValueError):
    if os.environ.get("POINT") == point:
        raise error("no")

at("import")

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()
    @staticmethod
    def backward(context, gradient):
        at("backward")
        return gradient

class Net(nn.Module):
    def __init__(self):
        at("constructor")
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.head = nn.Linear(4, 3)

    def __deepcopy__(self, memo):
        at("deepcopy")
        made = Net()
        nn.Module.load_state_dict(made, nn.Module.state_dict(self))
        return made

    def _apply(self, function, recurse=True):
        at("to")
        return super()._apply(function, recurse)

    def train(self, mode=True):
        at(f"train({mode})")
        return super().train(mode)

    def forward(self, x):
        if self.training:
            at("forward in training", SystemExit)
        elif len(x) > 1:
            at("forward in evaluation")
        if x.requires_grad and type(x) is torch.Tensor:
            at("gradient of the image")
        if torch.compiler.is_exporting():
            at("export")
        return self.head(Backward.apply(self.conv(x)).relu().mean((2, 3)))

    @property
    def see_images(self):
        at("property", SystemExit)
        return lambda images: at("see_images")

    def _save_to_state_dict(self, *arguments):
        at("state_dict")
        super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, *arguments):
        at("load_state_dict")
        super()._load_from_state_dict(*arguments)

ready = Net()
"""
OWN = ("--model", "net.py:Net")
EXPORT = ("export", "runs/good", *OWN, "--format")
PREDICT = ("predict", "images/test/red/000.png", "--checkpoint", "runs/good", *OWN)
TRAIN = (
    *("train", "--dataset", "folder", "--data-dir", "images", "--epochs", 1, "--no-report"),
    *("--batch-size", 12, "--precision", "fp32"),
)
USE = {
    "evaluate": ("eval", "runs/good", *OWN),
    "predict": (*PREDICT, "images/test"),
    "explain": (*PREDICT, "--explain", "heat.png"),
    "export": (*EXPORT, "torch-export"),
    "safetensors": (*EXPORT, "safetensors"),
    "onnx": (*EXPORT, "onnx"),
    "effective": ("receptive-field", *OWN, "--effective"),
}
IN_TRAINING = (
    *("import", "constructor", "train(True)", "train(False)", "forward in training"),
    *("forward in evaluation", "backward", "property", "see_images", "state_dict"),
)
IN_USE = (
    *(("import", command) for command in USE),
    *(("train(False)", command) for command in USE if command != "effective"),
    *(("load_state_dict", command) for command in USE if command != "effective"),
    *(("forward in evaluation", command) for command in ("evaluate", "predict", "export")),
    *(("gradient of the image", command) for command in ("explain", "effective")),
    *(("export", command) for command in ("export", "onnx")),
    ("state_dict", "safetensors"),
)


@pytest.fixture(scope="module")
def good_run(tmp_path_factory, make_image_folder):
    """A folder of images, the user's network, and its run `good`."""
    folder = tmp_path_factory.mktemp("good")
    make_image_folder(folder / "images")
    (folder / "net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        values = {"dataset": "folder", "data_dir": "images", "epochs": 1, "model": "net.py:Net"}
        api.train(resolve_settings(values), folder / "runs" / "good", report=False)
    return folder


@pytest.fixture
def fail_at(quick_cli, good_run, monkeypatch):
    """Run a command in which the network raises at a point; check that it is one line."""
    Path("net.py").write_text(NET)
    Path("images").symlink_to(good_run / "images")

    def run(point, *words):
        monkeypatch.setenv("POINT", point)
        os.utime("net.py", ns=(0, random.randrange(10**15)))  # noqa: S311 - it is imported again
        done = quick_cli(*words, "--json")
        document = json.loads(done.stdout)
        assert done.returncode == document["exit_status"]
        assert done.returncode in {1, 2}
        (line,) = (each for each in done.stderr.splitlines() if each.startswith("cifar-cnn: "))
        assert line == f"cifar-cnn: {document['error']}"
        assert "no (net.py:8)" in line

    return run


@pytest.mark.parametrize("point", IN_TRAINING)
@pytest.mark.parametrize("way", [(), ("--dry-run",), ("--find-lr",)], ids=["run", "dry", "lr"])
def test_training_that_cannot_begin_is_one_line_and_leaves_no_folder(fail_at, point, way):
    fail_at(point, *TRAIN, *OWN, *way)
    assert not Path("runs").exists()


def test_no_code_of_theirs_can_end_the_program_with_exit_code_0(quick_cli, good_run, monkeypatch):
    monkeypatch.setattr(api, "train", lambda *_, **__: sys.exit(0))
    monkeypatch.chdir(good_run)
    done = quick_cli(*TRAIN, *OWN)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cifar-cnn: the network's own code ended the program: SystemExit(0)\n"


def test_a_network_that_cannot_be_copied_is_one_line(fail_at):
    fail_at("deepcopy", *TRAIN, "--model", "net.py:ready")
    assert not Path("runs").exists()


def test_a_network_that_cannot_be_moved_is_one_line(fail_at, monkeypatch):
    network = import_source("net.py").Net()
    monkeypatch.setenv("POINT", "to")
    with pytest.raises(ModelError, match=r"cannot be moved to meta: ValueError: no \(net.py:8"):
        move(network, torch.device("meta"))


@pytest.mark.parametrize(("point", "command"), IN_USE)
def test_a_trained_network_that_fails_is_one_line(fail_at, good_run, point, command):
    Path("runs").symlink_to(good_run / "runs")
    fail_at(point, *USE[command])


def test_debug_shows_the_traceback_of_their_code(fail_at):
    with pytest.raises(Exception, match="no") as caught:
        fail_at("backward", *TRAIN, *OWN, "--debug")
    assert isinstance(caught.value.__cause__, ValueError)


CHANGING = """
import os, random, sys
import numpy as np
import torch
os.chdir("/")
null = sys.stdout = sys.stderr = open(os.devnull, "w")
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
torch.set_num_threads(3)
for seed in (torch.manual_seed, np.random.seed, random.seed):
    seed(5)
"""


def test_what_a_file_changes_on_import_is_put_back(tmp_path):
    (tmp_path / "changing.py").write_text(CHANGING)

    def surroundings():
        return (
            *(Path.cwd(), sys.stdout, sys.stderr, torch.get_default_dtype()),
            *(torch.get_default_device(), torch.is_grad_enabled(), torch.get_num_threads()),
            *(torch.get_rng_state().tolist(), random.getstate()),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        )

    before = surroundings()
    import_source(str(tmp_path / "changing.py")).null.close()
    assert surroundings() == before
    assert nn.Linear(1, 1).weight.dtype == torch.float32
