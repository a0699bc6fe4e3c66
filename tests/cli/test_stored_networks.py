"""`summary` and `receptive-field` of a run's network: by its file, its folder or its name."""

import json

import pytest
import torch

from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import Checkpoint, pack

pytestmark = pytest.mark.filterwarnings("ignore::cifar_cnn.errors.NetworkWarning")

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width, num_classes=10):
        super().__init__(
            nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, num_classes),
        )
"""
SIZE = 3 * 6 * 9 + 6 + 6 * 3 + 3
"""Parameters of a Net of width 6 for three classes."""


@pytest.fixture
def stored(tmp_path):
    """A run `runs/a` with the model.pt of an own network of width 6 for three classes, 48×64."""
    (tmp_path / "net.py").write_text(NET)
    network = build_model(f"{tmp_path / 'net.py'}:Net", 3, model_arg=["width=6"])
    settings = {"model": "net.py:Net", "model_arg": ["width=6"], "input_size": "48x64"}
    checkpoint = Checkpoint(
        model="net.py:Net",
        classes=("blue", "green", "red"),
        settings=resolve_settings(settings),
        metrics={},
        state_dict=network.state_dict(),
    )
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "model.pt").write_bytes(pack(checkpoint))
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    return run


@pytest.mark.parametrize("name", ["runs/a/model.pt", "runs/a", "a"])
def test_a_run_is_summarized_with_its_classes_arguments_and_size(quick_cli, stored, name):
    done = quick_cli("summary", name, "--model", "net.py:Net", "--no-budget", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["checkpoint"] == "runs/a/model.pt"
    assert document["model"] == "net.py:Net"
    assert document["totals"]["parameters"] == SIZE
    assert document["input_size"] == [3, 48, 64]


def test_people_see_the_file_and_what_is_in_it(quick_cli, stored):
    for command in ("summary", "receptive-field"):
        done = quick_cli(command, "a", "--model", "net.py:Net")
        assert done.stdout.splitlines()[0] == "runs/a/model.pt: net.py:Net for 3 classes"


def test_its_fields_are_those_of_its_own_size_unless_another_is_given(quick_cli, stored):
    flags = ("runs/a", "--model", "net.py:Net", "--min-rf", "3", "--json")
    done = quick_cli("receptive-field", *flags)
    document = json.loads(done.stdout)
    assert (done.returncode, document["input_size"][-2:]) == (0, [48, 64])
    assert document["final"]["receptive_field"] == [48, 64]
    done = quick_cli("receptive-field", *flags, "--input-size", "20", "--verify")
    document = json.loads(done.stdout)
    assert document["input_size"][-2:] == [20, 20]
    assert document["verification"]["agreed"] is True


def test_files_stand_among_other_networks(quick_cli, stored, untrained_file):
    done = quick_cli(
        *("summary", "baseline", untrained_file, "runs/a", "--model", "net.py:Net"),
        *("--no-budget", "--json", "--csv", "out.csv"),
    )
    assert done.returncode == 0, done.stderr
    documents = json.loads(done.stdout)
    sizes = [each["totals"]["parameters"] for each in documents]
    assert sizes == [197_922, 197_922 - 7 * 129, SIZE]
    assert [each.get("checkpoint") for each in documents] == [
        None,
        str(untrained_file),
        "runs/a/model.pt",
    ]
    unnamed = quick_cli("summary", "compact", "runs/a", "--no-budget", "--json")
    assert unnamed.returncode == 1
    error = json.loads(unnamed.stdout)[1]
    assert error["exit_status"] == 1
    assert error["error"].endswith("--model net.py:Net: pass that again to let its code run")


def test_a_pattern_of_runs_answers_for_those_that_have_a_network(quick_cli, stored, untrained_file):
    (stored.parent / "b").mkdir()
    untrained_file.rename(stored.parent / "b" / "model.pt")
    (stored.parent / "unfinished").mkdir()
    done = quick_cli("summary", "runs/*", "--model", "net.py:Net", "--no-budget", "--json")
    assert done.returncode == 1
    a, b, unfinished = json.loads(done.stdout)
    assert (a["checkpoint"], b["checkpoint"]) == ("runs/a/model.pt", "runs/b/model.pt")
    assert "there is no file runs/unfinished/model.pt" in unfinished["error"]


def test_a_bare_state_dict_needs_its_network_named(quick_cli, stored):
    done = quick_cli("summary", "bare.pt")
    assert (done.returncode, done.stdout) == (1, "")
    assert "bare.pt is a bare state dict: --model says of which network" in done.stderr
    flags = ("--model", "net.py", "--model-arg", "width=6", "--model-arg", "num_classes=3")
    done = quick_cli("summary", "bare.pt", *flags, "--no-budget", "--json")
    assert json.loads(done.stdout)["totals"]["parameters"] == SIZE


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("summary", "runs/a"), 1, "was trained with --model net.py:Net: pass that again"),
        (("summary", "runs/a", "--model", "compact"), 2, "compact is built in and takes no arg"),
        (("summary", "bare.pt", "--model", "compact"), 1, "bare.pt belongs to another network"),
        (
            ("summary", "runs/a", "--model", "net.py:Net", "--model", "compact"),
            2,
            "--model beside a file of weights says which code that may run: give it once",
        ),
        (("summary", "damaged.pt"), 1, "damaged.pt is damaged or not a checkpoint"),
        (("receptive-field", "none.pt"), 1, "there is no file none.pt"),
        (("receptive-field", "runs"), 1, "runs is a folder without model.pt"),
        (
            ("receptive-field", "runs/a/model.pt", "--effective", "--checkpoint", "bare.pt"),
            2,
            "--checkpoint and runs/a/model.pt are both files of weights: give one",
        ),
    ],
)
def test_what_names_no_network_is_one_line(quick_cli, stored, tmp_path, arguments, status, said):
    (tmp_path / "damaged.pt").write_bytes((stored / "model.pt").read_bytes()[:500])
    done = quick_cli(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert said in done.stderr
