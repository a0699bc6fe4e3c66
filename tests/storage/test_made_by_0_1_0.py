"""What 0.1.0 wrote loads and evaluates as it did there, and goes on.

`made_by_0_1_0/` holds a network of 962 parameters, the config file of a run of 60 steps on
`synthetic`, the directory of that run stopped at step 27, and the `model.pt` of the whole run. It
was trained channels-last, where dropout draws otherwise: what is learned is as good, not the same.
"""

import json
import shutil
from pathlib import Path

import pytest

from cifar_cnn.storage.checkpoint import read_checkpoint

MADE = Path(__file__).parent / "made_by_0_1_0"
MODEL = ("--model", "small.py:net")


@pytest.fixture(autouse=True)
def _made(tmp_path):
    shutil.copytree(MADE, tmp_path, dirs_exist_ok=True)


def test_a_checkpoint_evaluates_to_the_same_numbers(cli):
    done = cli("eval", "model.pt", *MODEL, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["samples"], answer["accuracy"]) == (2000, 0.1425)
    assert answer["loss"] == pytest.approx(2.225996258676052, rel=1e-6)


def test_a_stopped_run_goes_on_to_its_end(cli, tmp_path):
    done = cli("train", "--resume", "stopped", *MODEL, "--no-report")
    assert done.returncode == 0, done.stderr
    resumed = read_checkpoint(tmp_path / "stopped" / "model.pt")
    whole = read_checkpoint(MADE / "model.pt")
    assert resumed.metrics["step"] == whole.metrics["step"] == 60
    assert resumed.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=0.05)


def test_a_config_file_trains_the_same_network(cli, tmp_path):
    done = cli("train", "--config", "config.toml", "--name", "again", "--no-report")
    assert done.returncode == 0, done.stderr
    again = read_checkpoint(tmp_path / "runs" / "again" / "model.pt")
    whole = read_checkpoint(MADE / "model.pt")
    assert again.state_dict.keys() == whole.state_dict.keys()
    assert again.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=0.05)
