"""What older versions wrote loads, evaluates as it did there, and goes on.

`small.py` is a network of 962 parameters, `made_by_*/` the config file of a run of 60 steps on
`synthetic`, the directory of that run stopped early, and the `model.pt` of the whole run.
`averaged.pt` was trained with `--ema 0.9`, which 0.2.0 had. Both versions trained own networks
channels-last, where sums round otherwise and dropout draws otherwise: what is learned is as good,
not the same.
"""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w

from cifar_cnn import read_run
from cifar_cnn.storage.archive import load_archive, save_archive
from cifar_cnn.storage.checkpoint import read_checkpoint

MODEL = ("--model", "small.py:net")
VERSIONS = ("made_by_0_1_0", "made_by_0_2_0")


def copy_made(version, folder):
    """Fill the folder with the network and what the version wrote."""
    here = Path(__file__).parent
    shutil.copytree(here / version, folder, dirs_exist_ok=True)
    shutil.copy(here / "small.py", folder)
    return folder


@pytest.fixture
def made(request, tmp_path):
    return copy_made(request.param, tmp_path)


@pytest.mark.parametrize(
    ("made", "file", "accuracy", "loss"),
    [
        ("made_by_0_1_0", "model.pt", 0.1425, 2.225996258676052),
        ("made_by_0_2_0", "model.pt", 0.162, 2.19672585529089),
        ("made_by_0_2_0", "averaged.pt", 0.1605, 2.19985227560997),
    ],
    indirect=["made"],
)
def test_a_checkpoint_evaluates_to_the_same_numbers(cli, made, file, accuracy, loss):
    done = cli("eval", file, *MODEL, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["samples"], answer["accuracy"]) == (2000, accuracy)
    assert answer["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("made", VERSIONS, indirect=True)
def test_a_stopped_run_goes_on_to_its_end(cli, made):
    done = cli("train", "--resume", "stopped", *MODEL, "--no-report")
    assert done.returncode == 0, done.stderr
    _check_as_good(made / "stopped" / "model.pt", made / "model.pt")


@pytest.mark.parametrize("made", VERSIONS, indirect=True)
def test_a_config_file_trains_the_same_network(cli, made):
    done = cli("train", "--config", "config.toml", "--name", "again", "--no-report")
    assert done.returncode == 0, done.stderr
    _check_as_good(made / "runs" / "again" / "model.pt", made / "model.pt")


def _check_as_good(path, whole):
    found, expected = read_checkpoint(path), read_checkpoint(whole)
    assert found.state_dict.keys() == expected.state_dict.keys()
    assert found.metrics["step"] == expected.metrics["step"] == 60
    assert found.metrics["eval_loss"] == pytest.approx(expected.metrics["eval_loss"], rel=0.05)


class TestRemovedSettings:
    """Files of a run that used settings which version 0.2.0 was the last to have."""

    @pytest.fixture(params=[{"ema": 0.9}, {"teacher": "t.pt"}], ids=["ema", "teacher"])
    def removed(self, request, tmp_path):
        copy_made("made_by_0_2_0", tmp_path)
        ((name, value),) = request.param.items()
        payload = load_archive((tmp_path / "stopped" / "last.pt").read_bytes())
        payload["settings"] |= {name: value}
        (tmp_path / "stopped" / "last.pt").write_bytes(save_archive(payload))
        for file in (tmp_path / "config.toml", tmp_path / "stopped" / "settings.toml"):
            written = tomllib.loads(file.read_text()) | {name: value}
            file.write_text(tomli_w.dumps(written))
        return f"setting {name} = {value!r} was removed after version 0.2.0"

    def test_the_run_is_listed_and_its_network_evaluates(self, cli, removed, tmp_path):
        assert read_run(tmp_path / "stopped").state == "interrupted"
        done = cli("eval", "stopped/last.pt", *MODEL, "--limit-eval", 20)
        assert done.returncode == 0, done.stderr

    def test_training_is_refused_in_one_line(self, cli, removed):
        for words, status in (("--resume", "stopped", *MODEL), 1), (("--config", "config.toml"), 2):
            done = cli("train", *words)
            assert done.returncode == status
            (line,) = done.stderr.splitlines()
            assert removed in line
            assert status == 1 or "config file config.toml: " in line
