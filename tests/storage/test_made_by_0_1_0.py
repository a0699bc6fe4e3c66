"""What 0.1.0 wrote loads, evaluates and goes on as it did there.

`made_by_0_1_0/` holds a network of 962 parameters, the config file of a run of 60 steps on
`synthetic`, the directory of that run stopped at step 27, and the `model.pt` of the whole run. The
weights are equal bit for bit on the processor and torch that made them; others round otherwise.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

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


def test_a_stopped_run_goes_on_to_the_same_weights(cli, tmp_path):
    done = cli("train", "--resume", "stopped", *MODEL, "--no-report")
    assert done.returncode == 0, done.stderr
    resumed = read_checkpoint(tmp_path / "stopped" / "model.pt")
    whole = read_checkpoint(MADE / "model.pt")
    torch.testing.assert_close(resumed.state_dict, whole.state_dict)
    assert resumed.metrics["eval_accuracy"] == whole.metrics["eval_accuracy"]


def test_a_config_file_trains_the_same_network(cli, tmp_path):
    done = cli("train", "--config", "config.toml", "--name", "again", "--no-report")
    assert done.returncode == 0, done.stderr
    again = read_checkpoint(tmp_path / "runs" / "again" / "model.pt")
    torch.testing.assert_close(again.state_dict, read_checkpoint(MADE / "model.pt").state_dict)
