import json

import pytest

NETWORK = """
import torch
from torch import nn
class Two(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, dilation=2), nn.Conv2d(8, 8, 3, dilation=2))
class Sorting(nn.Module):
    def forward(self, x):
        return torch.cummax(x, 2)[0]
class Deciding(nn.Module):
    def forward(self, x):
        if x.mean() > 0:
            return x
        return -x
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)


def test_the_baselines_report_alone_says_why_the_references_table_differs(quick_cli, net):
    assert "3, 5, 13, 21, 45) leaves the dilation out" in quick_cli("receptive-field").stdout
    assert "reference" not in quick_cli("receptive-field", "--model", "net.py:Two").stdout


@pytest.mark.parametrize(("network", "met", "broken"), [("baseline", 48, 49), ("net.py:Two", 8, 9)])
def test_exit_status_tells_whether_the_field_is_above_the_minimum(
    quick_cli, net, network, met, broken
):
    assert quick_cli("receptive-field", network, "--min-rf", met).returncode == 0
    done = quick_cli("receptive-field", network, "--min-rf", broken, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["minimum"], document["passed"]) == (1, broken, False)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("net.py:Sorting", "net.py:9"),
        ("net.py:Deciding", "net.py:12"),
        ("net.py:None", "no 'None'"),
    ],
)
def test_what_cannot_be_analyzed_is_one_line_and_exit_2(quick_cli, net, model, said):
    done = quick_cli("receptive-field", "--model", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_user_can_vouch_for_an_operation(quick_cli, net):
    done = quick_cli(
        *("receptive-field", "--model", "net.py:Sorting", "--min-rf", "0"),
        *("--assume-pointwise", "cummax"),
    )
    assert done.returncode == 0


def test_verify_and_effective_answer_for_a_users_network(quick_cli, net, tmp_path):
    flags = ("--model", "net.py:Two", "--min-rf", "0", "--verify", "--json")
    more = ("--effective", "--samples", "2", "--plot", "heat.png")
    done = quick_cli("receptive-field", *flags, *more)
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    proof = document["verification"]
    assert (proof["agreed"], proof["layers"], proof["not_shown"]) == (True, 2, [])
    assert document["effective"]["theoretical"]["receptive_field"] == [9, 9]
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    said = quick_cli("receptive-field", *flags[:-1]).stdout
    assert "verified: 2 layers" in said
    assert "gridding: 5 of 9 pixels" in said


def test_of_layers_that_are_clipped_five_are_named_and_the_others_counted(capsys):
    from rich.console import Console

    from cifar_cnn.analysis.verification import Evidence, conclude
    from cifar_cnn.report.analysis_tables import show_verification

    shown = {(f"layer{n}", "vertically"): Evidence(units=1) for n in range(571)}
    show_verification(Console(width=80), conclude([(32, 32)] * 2, shown))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "clipped: layer0, layer1, layer2, layer3, layer4 and 566 more: fields that reach the "
        "border of these images are shown as far as these go"
    )


def test_the_verdict_names_the_file_that_set_the_limit(quick_cli, net, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmin-rf = 9\n")
    flags = ("receptive-field", "--model", "net.py:Two")
    assert "must be above 9 (limit of pyproject.toml)" in quick_cli(*flags).stdout
    assert "must be above 8\n" in quick_cli(*flags, "--min-rf", "8").stdout
    (tmp_path / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmax-params = 9\n")
    assert "must be above 44\n" in quick_cli(*flags).stdout


def test_a_proof_that_does_not_agree_is_exit_1(quick_cli, monkeypatch):
    from cifar_cnn.analysis import taps

    window = taps.window
    monkeypatch.setattr(taps, "window", lambda k, s, p, _: window(k, s, p, 1))
    done = quick_cli("receptive-field", "--min-rf", "0", "--verify")
    assert done.returncode == 1
    assert "not verified: unit" in done.stdout
    assert "convblock3.0" in done.stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_the_table_fits_the_screen(quick_cli, columns):
    done = quick_cli("receptive-field", columns=columns)
    table = [line for line in done.stdout.splitlines() if ": " not in line]
    assert max(len(line) for line in table) <= columns


def test_effective_gives_squares_and_a_picture(quick_cli, tmp_path):
    flags = ("--effective", "--samples", "8", "--plot", "heat.png", "--json")
    done = quick_cli("receptive-field", *flags)
    found = json.loads(done.stdout)["effective"]
    assert done.returncode == 0
    assert (found["layer"], found["unit"], found["samples"]) == ("convblock4.3", [2, 2], 8)
    assert found["theoretical"]["receptive_field"] == [25, 25]
    half, most = found["squares"]
    assert half["side"] < most["side"] <= 25
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert done.stderr == ""
    said = quick_cli("receptive-field", *flags[:-1]).stdout
    assert "32×32 image clips 0%" in said
    assert "fresh weights, seed 0" in said


def test_effective_takes_a_checkpoints_weights_and_settings(quick_cli, small_settings, tmp_path):
    from cifar_cnn import train

    file = train(small_settings(epochs=1), tmp_path / "run", report=False).model_file
    flags = ("--effective", "--samples", "4", "--json")
    trained = quick_cli("receptive-field", "--checkpoint", file, *flags)
    named = quick_cli("receptive-field", file, *flags)
    assert trained.returncode == named.returncode == 0
    assert json.loads(trained.stdout)["effective"] == json.loads(named.stdout)["effective"]
    from cifar_cnn import effective_field

    found = effective_field(file, samples=4)
    assert found.model_dump(mode="json") == json.loads(trained.stdout)["effective"]
    fresh = quick_cli(
        *("receptive-field", "--dataset", "folder", "--data-dir", tmp_path / "images", *flags)
    )
    assert json.loads(trained.stdout)["effective"] != json.loads(fresh.stdout)["effective"]


def test_effective_of_fresh_weights_normalizes_as_training_would(small_settings, monkeypatch):
    from cifar_cnn import api
    from cifar_cnn.data.dataset import MEAN, STD, measure
    from cifar_cnn.data.load import load_train

    given = []
    monkeypatch.setattr(api, "normalize", lambda images, by: given.append(by) or images.float())
    settings = small_settings()
    folder = {"dataset": "folder", "data_dir": settings.data_dir}
    for overrides in (folder, folder | {"recipe": "reference"}, {}):
        api.effective_field(overrides=overrides, samples=2)
    assert given == [measure(load_train(settings)[0].images), (MEAN, STD), (MEAN, STD)]


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--plot", "x.png"], 2, "add --effective"),
        (["--effective", "--plot", "missing/x.png"], 1,
         "missing/x.png cannot be written: there is no folder missing"),
        (["--effective", "--checkpoint", "none.pt"], 1, "none.pt cannot be read"),
        (["--effective", "--dataset", "folder"], 1, "folder data does not exist"),
        (["--effective", "--dataset", "folder", "--data-dir", "images/train"], 1,
         "images/train has class folders alone (blue, green, red): put them below images/train/"),
    ],
)  # fmt: skip
def test_effective_mistakes_are_one_line(quick_cli, image_folder, flags, status, said):
    done = quick_cli("receptive-field", *flags, "--samples", "2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert said in done.stderr
