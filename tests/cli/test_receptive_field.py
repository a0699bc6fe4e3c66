import json

import pytest

from cifar_cnn import api, effective_field
from cifar_cnn.analysis import taps
from cifar_cnn.data.dataset import MEAN, STD, measure
from cifar_cnn.data.load import load_train
from cifar_cnn.models import build_model
from cifar_cnn.storage.checkpoint import pack, read_checkpoint

NETWORKS = """
import torch
from torch import nn
class Two(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, dilation=2), nn.Conv2d(8, 8, 3, dilation=2))
class Sorting(nn.Module):
    def forward(self, x):
        return torch.cummax(x, 2)[0]
"""


@pytest.fixture
def fields(quick_cli, tmp_path):
    """Run `receptive-field` in a folder with the user's networks."""
    (tmp_path / "net.py").write_text(NETWORKS)
    return lambda *words: quick_cli("receptive-field", *words)


def test_the_baselines_report_alone_says_why_the_references_table_differs(fields):
    assert "3, 5, 13, 21, 45) leaves the dilation out" in fields().stdout
    assert "reference" not in fields("net.py:Two").stdout


@pytest.mark.parametrize(("network", "met", "broken"), [("baseline", 48, 49), ("net.py:Two", 8, 9)])
def test_exit_status_tells_whether_the_field_is_above_the_minimum(fields, network, met, broken):
    assert fields(network, "--min-rf", met).returncode == 0
    done = fields(network, "--min-rf", broken, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["minimum"], document["passed"]) == (1, broken, False)


def test_the_user_can_vouch_for_an_operation(fields):
    words = ("net.py:Sorting", "--min-rf", 0, "--assume-pointwise", "cummax")
    assert fields(*words).returncode == 0


def test_verify_and_effective_answer_for_a_users_network(fields, tmp_path):
    flags = ("net.py:Two", "--min-rf", 0, "--verify")
    done = fields(*flags, "--json", "--effective", "--samples", 2, "--plot", "heat.png")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    proof = document["verification"]
    assert (proof["agreed"], proof["layers"], proof["not_shown"]) == (True, 2, [])
    assert document["effective"]["theoretical"]["receptive_field"] == [9, 9]
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    text = fields(*flags).stdout
    assert "verified: 2 layers" in text
    assert "gridding: 5 of 9 pixels" in text


def test_the_verdict_names_the_file_that_set_the_limit(fields, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmin-rf = 9\n")
    assert "must be above 9 (limit of pyproject.toml)" in fields().stdout
    assert "must be above 8\n" in fields("--min-rf", 8).stdout
    (tmp_path / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmax-params = 9\n")
    assert "must be above 44\n" in fields().stdout


def test_a_proof_that_does_not_agree_is_exit_1(fields, monkeypatch):
    window = taps.window
    monkeypatch.setattr(taps, "window", lambda k, s, p, _: window(k, s, p, 1))
    done = fields("--min-rf", 0, "--verify")
    assert done.returncode == 1
    assert "not verified: unit" in done.stdout
    assert "convblock3.0" in done.stdout


def test_effective_gives_squares_and_a_picture(fields, tmp_path):
    flags = ("--effective", "--samples", 8, "--plot", "heat.png")
    done = fields(*flags, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    effective = json.loads(done.stdout)["effective"]
    assert [effective[name] for name in ("layer", "unit", "samples")] == ["convblock4.3", [2, 2], 8]
    assert effective["theoretical"]["receptive_field"] == [25, 25]
    half, most = effective["squares"]
    assert half["side"] < most["side"] <= 25
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    text = fields(*flags).stdout
    assert "32×32 image clips 0%" in text
    assert "fresh weights, seed 0" in text


def test_effective_takes_a_checkpoints_weights_and_settings(quick_cli, examples):
    flags = ("receptive-field", "--effective", "--samples", 4, "--json")
    named = json.loads(quick_cli(*flags, "first").stdout)
    assert named == json.loads(quick_cli(*flags, "--checkpoint", "runs/first").stdout)
    assert named["checkpoint"].replace("\\", "/") == "runs/first/model.pt"
    library = effective_field("first", samples=4)
    assert library.model_dump(mode="json") == named["effective"]
    fresh = quick_cli(*flags, "--dataset", "folder", "--data-dir", "images")
    assert named["effective"] != json.loads(fresh.stdout)["effective"]


def test_effective_takes_the_network_of_its_checkpoint(quick_cli, examples, tmp_path):
    run = read_checkpoint(examples / "runs/first/model.pt")
    settings = run.settings.model_copy(update={"model": "compact"})
    weights = build_model("compact", num_classes=3).state_dict()
    file = tmp_path / "compact.pt"
    file.write_bytes(pack(run.model_copy(update={"settings": settings, "state_dict": weights})))
    flags = ("receptive-field", "--effective", "--samples", 2, "--json", "--checkpoint", file)
    done = quick_cli(*flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["model"] == "compact"
    assert "belongs to another network" in quick_cli(*flags, "--model", "baseline").stderr


def test_effective_of_fresh_weights_normalizes_as_training_would(small_settings, monkeypatch):
    used = []
    monkeypatch.setattr(api, "normalize", lambda images, by: used.append(by) or images.float())
    settings = small_settings()
    folder = {"dataset": "folder", "data_dir": settings.data_dir}
    for overrides in (folder, folder | {"recipe": "reference"}, {}):
        api.effective_field(overrides=overrides, samples=2)
    assert used == [measure(load_train(settings)[0].images), (MEAN, STD), (MEAN, STD)]
