"""`--model-arg`: once said, it goes with the network."""

import json

import pytest

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width, num_classes=10):
        super().__init__(
            nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, num_classes),
        )
"""
OWN = ("--model", "net.py")
WIDE = (*OWN, "--model-arg", "width=6")


@pytest.fixture
def folder(tmp_path, image_folder):
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def small(folder, image_folder):
    return (
        *("--dataset", "folder", "--data-dir", image_folder, "--batch-size", 8, "--epochs", 1),
        *("--no-report", "--name", "a"),
    )


@pytest.mark.filterwarnings("ignore::cifar_cnn.errors.NetworkWarning")
def test_a_run_keeps_them_for_all_that_is_done_with_it(quick_cli, small, folder, image_folder):
    assert quick_cli("train", *small, *WIDE).returncode == 0
    run = folder / "runs" / "a"
    assert 'model_arg = [\n    "width=6",\n]' in (run / "settings.toml").read_text()
    picture = image_folder / "test" / "blue" / "000.png"
    for done in (
        quick_cli("eval", run / "model.pt", *OWN),
        quick_cli("predict", picture, "--checkpoint", run / "model.pt", *OWN),
        quick_cli("export", run / "model.pt", "--format", "safetensors", *OWN),
        quick_cli("report", run, *OWN),
        quick_cli("train", "--resume", run, "--epochs", 2, "--no-report", *OWN),
        quick_cli("train", "--resume", run, *OWN, "--model-arg", "width = 6"),
        quick_cli("train", "--config", run / "settings.toml", "--name", "b", "--no-report"),
        quick_cli(
            *("receptive-field", *OWN, "--min-rf", 3, "--effective"),
            *("--checkpoint", run / "model.pt"),
        ),
    ):
        assert (done.returncode, done.stderr) == (0, "")
    other = quick_cli("train", "--resume", run, "--epochs", 3, *OWN, "--model-arg", "width=7")
    assert other.returncode == 2
    assert "model_arg is ('width=6',) there, ('width=7',) here" in other.stderr
    wrong = quick_cli("eval", run / "model.pt", *OWN, "--model-arg", "width=7")
    assert wrong.returncode == 1
    assert "belongs to another network" in wrong.stderr


def test_those_of_a_file_are_said_in_one_line_before_the_code_runs(cli, folder, image_folder):
    """The file may be from elsewhere, and the code that is named for it takes anything."""
    from cifar_cnn.models import build_model
    from cifar_cnn.settings import resolve_settings
    from cifar_cnn.storage.checkpoint import Checkpoint, pack

    spec, stored = f"{folder / 'net.py'}", ["width=6", "num_classes=3", "name=a\x1b[2J\nb"]
    (folder / "net.py").write_text(NET.replace("=10", "=10, name=None"))
    foreign = Checkpoint(
        model="elsewhere:Net",
        classes=("blue", "green", "red"),
        settings=resolve_settings({"model": "elsewhere:Net", "model_arg": stored}),
        metrics={},
        state_dict=build_model(spec, 3, model_arg=stored[:1]).state_dict(),
    )
    (folder / "foreign.pt").write_bytes(pack(foreign))
    images = ("--dataset", "folder", "--data-dir", image_folder)
    line = (
        "cifar-cnn: warning: arguments from the checkpoint: "
        "width=6, num_classes=3, name=a\\x1b[2J\\nb\n"
    )
    again = [each for text in stored[:2] for each in ("--model-arg", text)]
    for given, said in (([], line), (again, "")):
        done = cli("eval", "foreign.pt", *images, *OWN, *given, "--json")
        assert (done.returncode, done.stderr) == (0, said)
        assert json.loads(done.stdout)["model"] == "net.py"
    done = cli("receptive-field", "foreign.pt", *OWN, "--effective", *images, "--min-rf", 2)
    assert (done.returncode, done.stderr) == (0, line)


def test_a_resumed_run_says_them_in_a_note(quick_cli, small):
    assert quick_cli("train", *small, *WIDE).returncode == 0
    said = "note: arguments from the checkpoint: width=6\n"
    assert said in quick_cli("train", "--resume", "a", *OWN, "--dry-run").stdout
    assert "note: " not in quick_cli("train", "--resume", "a", *WIDE, "--dry-run").stdout


def test_a_bare_state_dict_is_evaluated_with_them(quick_cli, folder, image_folder):
    import torch

    from cifar_cnn.models import build_model

    network = build_model(f"{folder / 'net.py'}", 3, model_arg=["width=6"])
    torch.save(network.state_dict(), folder / "bare.pt")
    data = ("--dataset", "folder", "--data-dir", image_folder)
    assert quick_cli("eval", "bare.pt", *data, *WIDE).returncode == 0
    done = quick_cli("eval", "bare.pt", *data, *OWN)
    assert done.returncode == 2
    assert "give them, as --model-arg width=VALUE" in done.stderr


def test_summary_and_receptive_field_take_them_for_each_network(quick_cli, cli, folder):
    done = quick_cli("summary", *WIDE, "--no-budget", "--json")
    assert json.loads(done.stdout)["totals"]["parameters"] == 3 * 6 * 9 + 6 + 6 * 10 + 10
    done = quick_cli("receptive-field", *WIDE, "--min-rf", 3, "--verify")
    assert done.returncode == 0
    (folder / "other.py").write_text(NET)
    done = cli("summary", "net.py", "other.py", "--model-arg", "width=2", "--no-budget", "--json")
    assert [each["totals"]["parameters"] for each in json.loads(done.stdout)] == [86, 86]


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("summary", ["--model-arg", "width"], "'width' is not NAME=VALUE"),
        ("summary", ["--model-arg", "width=1", "--model-arg", "width=2"], "width is given twice"),
        (
            "receptive-field",
            ["--model-arg", "wide=1"],
            "no argument 'wide' (did you mean 'width'?)",
        ),
        ("train", [], "needs arguments (width): give them, as --model-arg width=VALUE"),
        (
            "train",
            ["--model-arg", "width=2", "--model-arg", "num_classes=5"],
            "(1, 5), the data set needs (1, 3): --model-arg num_classes=3 makes it so",
        ),
        ("train", ["--model-arg", "width=wide"], "model 'net.py:Net' cannot be built: TypeError"),
    ],
)
def test_a_wrong_one_is_one_line(quick_cli, folder, small, command, flags, said):
    model = () if "--model" in flags else ("--model", "net.py:Net")
    done = quick_cli(command, *model, *flags, *(small if command == "train" else ()))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert not (folder / "runs").exists()


def test_words_are_the_values_that_they_say(quick_cli, folder):
    (folder / "small.py").write_text(
        "from torch import nn\n"
        "def net(use_bn=True, name=''):\n"
        "    last = nn.BatchNorm2d(10) if use_bn else nn.Identity()\n"
        "    return nn.Sequential(nn.Conv2d(3, 10, 3), last, nn.Flatten(), nn.LazyLinear(1))\n"
    )
    for value, parameters in (("false", 9281), ("yes", 9301), ("'no'", 9301)):
        flags = ("--model", "small.py:net", "--model-arg", f"use_bn={value}", "--no-budget")
        document = json.loads(quick_cli("summary", *flags, "--json").stdout)
        assert document["totals"]["parameters"] == parameters, value


def test_a_factory_with_any_arguments_is_told_the_number_of_classes(quick_cli, folder, small):
    (folder / "any.py").write_text(
        f"{NET}\ndef any_of(pretrained=False, **kwargs): return Net(6, **kwargs)\n"
    )
    flags = ("--model", "any.py:any_of", *small)
    done = quick_cli("train", *flags)
    assert "needs (1, 3): --model-arg num_classes=3 makes it so" in done.stderr
    assert quick_cli("train", *flags, "--model-arg", "num_classes=3", "--dry-run").returncode == 0


def test_a_number_of_outputs_that_cannot_be_given_is_said_with_a_way_out(quick_cli, folder, small):
    (folder / "ten.py").write_text(NET.replace(", num_classes=10", "").replace("num_classes", "10"))
    done = quick_cli("train", "--model", "ten.py", "--model-arg", "width=2", *small)
    assert done.returncode == 2
    assert "needs (1, 3): change its last layer, or give it a parameter num_classes" in done.stderr


def test_a_built_in_network_takes_none(quick_cli, small):
    done = quick_cli("train", *small, "--model-arg", "num_classes=3")
    assert (done.returncode, done.stderr) == (
        2,
        "cifar-cnn: baseline is built in and takes no arguments: leave --model-arg out\n",
    )
