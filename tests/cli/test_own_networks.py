"""`--model-arg`: once said, it goes with the network; and what names a stored network."""

import json
import shutil

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

def any_of(pretrained=False, **kwargs):
    return Net(6, **kwargs)

def ten(width):
    return Net(width)
"""
OWN = ("--model", "net.py:Net")
WIDE = (*OWN, "--model-arg", "width=6")
BARE = (*WIDE, "--model-arg", "num_classes=3")
IMAGES = ("--dataset", "folder", "--data-dir", "images")
SMALL = (*IMAGES, "--batch-size", 12, "--epochs", 1, "--no-report", "--name", "a")
SIZE = 3 * 6 * 9 + 6 + 6 * 3 + 3
"""Parameters of a Net of width 6 for three classes."""


@pytest.fixture
def folder(quick_cli, folder_of_examples, tmp_path):
    """The folder of examples, with the user's networks."""
    folder_of_examples()
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def write_checkpoint(folder):
    """Write the model.pt of a run of a Net with these arguments for three classes, 48×64."""

    def write(file, spec, *arguments):
        checkpoint = Checkpoint(
            model=spec,
            classes=("blue", "green", "red"),
            settings=resolve_settings(
                {"model": spec, "model_arg": arguments, "input_size": "48x64"}
            ),
            metrics={},
            state_dict=build_model("net.py:Net", 3, model_arg=["width=6"]).state_dict(),
        )
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(pack(checkpoint))
        torch.save(checkpoint.state_dict, folder / "bare.pt")
        return file.parent

    return write


@pytest.fixture
def stored(write_checkpoint, folder):
    """The run `runs/own` of a Net of width 6, and `bare.pt` with its weights alone."""
    return write_checkpoint(folder / "runs" / "own" / "model.pt", "net.py:Net", "width=6")


def test_a_run_keeps_them_for_all_that_is_done_with_it(quick_cli, folder):
    assert quick_cli("train", *SMALL, *WIDE).returncode == 0
    assert 'model_arg = [\n    "width=6",\n]' in (folder / "runs/a/settings.toml").read_text()
    for words in (
        ("eval", "a"),
        ("predict", "photo.png", "--checkpoint", "a"),
        ("export", "a", "--format", "safetensors"),
        ("report", "a"),
        ("train", "--resume", "a", "--epochs", 2, "--no-report"),
        ("train", "--resume", "a", "--model-arg", "width = 6"),
        ("train", "--config", "runs/a/settings.toml", "--name", "b", "--no-report"),
        ("receptive-field", "--min-rf", 3, "--effective", "--checkpoint", "runs/a/model.pt"),
    ):
        done = quick_cli(*words, *OWN)
        assert (done.returncode, done.stderr) == (0, "")
    other = quick_cli("train", "--resume", "a", "--epochs", 3, *OWN, "--model-arg", "width=7")
    assert other.returncode == 2
    assert "model_arg is ('width=6',) there, ('width=7',) here" in other.stderr
    wrong = quick_cli("eval", "a", *OWN, "--model-arg", "width=7")
    assert wrong.returncode == 1
    assert "belongs to another network" in wrong.stderr
    note = "note: arguments from the checkpoint: width=6\n"
    assert note in quick_cli("train", "--resume", "a", *OWN, "--dry-run").stdout
    assert "note: " not in quick_cli("train", "--resume", "a", *WIDE, "--dry-run").stdout


def test_those_of_a_file_are_said_in_one_line_before_the_code_runs(cli, folder, write_checkpoint):
    """The file may be from elsewhere, and the code that is named for it takes anything."""
    (folder / "net.py").write_text(NET.replace("=10):", "=10, name=None):"))
    arguments = ["width=6", "num_classes=3", "name=a\x1b[2J\nb"]
    write_checkpoint(folder / "foreign.pt", "elsewhere:Net", *arguments)
    line = (
        "cifar-cnn: warning: arguments from the checkpoint: "
        "width=6, num_classes=3, name=a\\x1b[2J\\nb\n"
    )
    again = [each for text in arguments[:2] for each in ("--model-arg", text)]
    for more, warning in (([], line), (again, "")):
        done = cli("eval", "foreign.pt", *IMAGES, *OWN, *more, "--input-size", 32, "--json")
        assert (done.returncode, done.stderr) == (0, warning)
        assert json.loads(done.stdout)["model"] == "net.py:Net"
    done = cli("receptive-field", "foreign.pt", *OWN, "--effective", *IMAGES, "--min-rf", 2)
    assert (done.returncode, done.stderr) == (0, line)


def test_summary_and_receptive_field_take_them_for_each_network(quick_cli, folder):
    shutil.copy("net.py", "other.py")
    words = ("summary", "net.py:Net", "other.py:Net", "--model-arg", "width=2", "--no-budget")
    done = quick_cli(*words, "--json")
    assert [each["totals"]["parameters"] for each in json.loads(done.stdout)] == [86, 86]
    assert quick_cli("receptive-field", *WIDE, "--min-rf", 3, "--verify").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("summary", *WIDE, "--model-arg", "width=2"), "width is given twice"),
        (
            ("train", *SMALL, *WIDE, "--model-arg", "num_classes=5"),
            "(1, 5), the data set needs (1, 3): --model-arg num_classes=3 makes it so",
        ),
        (
            ("train", *SMALL, "--model", "net.py:any_of"),
            "needs (1, 3): --model-arg num_classes=3 makes it so",
        ),
        (
            ("train", *SMALL, "--model", "net.py:ten", "--model-arg", "width=2"),
            "needs (1, 3): change its last layer, or give it a parameter num_classes",
        ),
        (
            ("eval", "bare.pt", *IMAGES, *OWN),
            "needs arguments (width): give them, as --model-arg width=VALUE",
        ),
    ],
)
def test_a_wrong_one_is_one_line(quick_cli, folder, stored, words, message):
    done = quick_cli(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    assert not (folder / "runs/a").exists()


def test_a_run_is_summarized_with_its_classes_arguments_and_size(quick_cli, stored):
    done = quick_cli("summary", "own", *OWN, "--no-budget", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["checkpoint"] == "runs/own/model.pt"
    assert document["model"] == "net.py:Net"
    assert document["totals"]["parameters"] == SIZE
    assert document["input_size"] == [3, 48, 64]
    done = quick_cli("summary", "bare.pt", *BARE, "--no-budget", "--json")
    assert json.loads(done.stdout)["totals"]["parameters"] == SIZE
    for command in ("summary", "receptive-field"):
        title = quick_cli(command, "own", *OWN).stdout.splitlines()[0]
        assert title == "runs/own/model.pt: net.py:Net for 3 classes"


def test_its_fields_are_those_of_its_own_size_unless_another_is_given(quick_cli, stored):
    flags = ("receptive-field", "runs/own", *OWN, "--min-rf", "3", "--json")
    document = json.loads(quick_cli(*flags).stdout)
    assert document["input_size"] == [3, 48, 64]
    assert document["final"]["receptive_field"] == [48, 64]
    document = json.loads(quick_cli(*flags, "--input-size", "20", "--verify").stdout)
    assert document["input_size"] == [3, 20, 20]
    assert document["verification"]["agreed"] is True


def test_files_and_patterns_of_runs_stand_among_other_networks(quick_cli, stored):
    (stored.parent / "unfinished").mkdir()
    flags = ("summary", "baseline", "runs/*", "--no-budget", "--json")
    done = quick_cli(*flags, *OWN, "--csv", "out.csv")
    assert done.returncode == 1
    *documents, unfinished = json.loads(done.stdout)
    assert "there is no file runs/unfinished/model.pt" in unfinished["error"]
    names = [None, *(f"runs/{name}/model.pt" for name in ("first", "own", "second"))]
    assert [each.get("checkpoint") for each in documents] == names
    sizes = [each["totals"]["parameters"] for each in documents]
    of_three_classes = 197_922 - 7 * 129
    assert sizes == [197_922, of_three_classes, SIZE, of_three_classes]
    error = json.loads(quick_cli(*flags).stdout)[2]
    assert error["exit_status"] == 1
    assert error["error"].endswith("--model net.py:Net: pass that again to let its code run")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("own",), 1, "was trained with --model net.py:Net: pass that again"),
        (("bare.pt", "--model", "compact"), 1, "bare.pt belongs to another network"),
        (("bare.pt",), 1, "bare.pt is a bare state dict: --model says of which network"),
    ],
)
def test_what_names_no_network_is_one_line(quick_cli, stored, words, status, message):
    done = quick_cli("summary", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert message in done.stderr
