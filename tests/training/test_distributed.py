"""Several processes on this machine, through torchrun and gloo."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training.distributed import ALONE, Processes

NET = """
import os, time, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(3, 4, 5, stride=4, dtype=torch.float64)
        self.layer = nn.Linear(196, 3, dtype=torch.float64)

    def forward(self, images):
        return self.layer(self.convolution(images.double()).relu().flatten(1))

class Unused(Net):
    def __init__(self):
        super().__init__()
        self.old_head = nn.Linear(8, 10, dtype=torch.float64)

class Slow(Net):
    def forward(self, images):
        time.sleep(0.05)
        return super().forward(images)

class Dying(Net):
    steps = 0
    def forward(self, images):
        self.steps += self.training
        if self.steps == 3 and os.environ.get("RANK") == "1":
            raise ValueError("the second process has had enough")
        return super().forward(images)
"""
ENDING = """
from pathlib import Path

import torch
from cifar_cnn.training.distributed import join

with join("cpu") as processes:
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], fused=True)
    processes.wait()
print([(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()])
"""
SETTINGS = ("--dataset", "folder", "--batch-size", 11, "--recipe", "reference", "--epochs", 6)
"""36 images: 4 steps an epoch, the last one with three images for all processes."""


@pytest.fixture
def command(tmp_path, image_folder):
    """Return the words that train a network of NET with so many processes, in `tmp_path`."""
    (tmp_path / "net.py").write_text(NET)

    def words(processes, *arguments, name, net="Net"):
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start = [*start, "--nproc-per-node", processes, "-m"] if processes else [start[0], "-m"]
        train = ["cifar_cnn", "train", *SETTINGS, "--data-dir", image_folder, "--no-report"]
        train += [] if "--model" in arguments else ["--model", f"net.py:{net}"]
        train += ["--name", name, "--lr", 0.05, *arguments]
        return [str(word) for word in [*start, *train]]

    return words


@pytest.fixture
def train(command, tmp_path):
    def run(processes, *arguments, **options):
        return subprocess.run(
            command(processes, *arguments, **options),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def assert_close(one, other):
    """The same weights, momenta and figures, but for the order in which sums were added."""
    first, second = (read_checkpoint(run / "last.pt") for run in (one, other))
    assert first.state_dict.keys() == second.state_dict.keys()
    for name, value in first.state_dict.items():
        assert value.dtype == torch.float64
        assert torch.allclose(value, second.state_dict[name], rtol=0, atol=1e-9), name
    momenta = [
        [held["momentum_buffer"] for held in each.training["optimizer"]["state"].values()]
        for each in (first, second)
    ]
    for a, b in zip(*momenta, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)
    for a, b in zip(*(each.training["history"] for each in (first, second)), strict=True):
        for key, value in a.items():
            if key not in {"seconds", "images_per_second"}:
                assert value == (pytest.approx(b[key], abs=1e-9) if key != "eval_split" else b[key])


def assert_close_in_fp32(one, other):
    ours, theirs = (read_checkpoint(run / "model.pt").state_dict for run in (one, other))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)


def assert_close_losses(one, other):
    ours, theirs = (
        read_checkpoint(run / "last.pt").training["history"][0]["train_loss"]
        for run in (one, other)
    )
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 128])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_are_the_batch_once_and_their_weights_give_its_mean(count, size):
    parts = [Processes(rank=rank, size=size).part(count) for rank in range(size)]
    values = torch.arange(count, dtype=torch.float64)
    mine = [values[part.images] for part in parts]
    counted = [each for each, part in zip(mine, parts, strict=True) if part.weight]
    assert torch.cat(counted).equal(values)
    assert all(len(each) for each in mine)
    means = [float(each.mean()) * s.weight for each, s in zip(mine, parts, strict=True)]
    assert sum(means) / size == pytest.approx(float(values.mean()))
    assert ALONE.part(count).weight == 1.0


COMPACT = {"model": "compact", "recipe": "best", "batch_size": 8, "ghost_batch_size": 4}
ONE_STEP = {"model": "baseline", "recipe": "tuned", "batch_size": 7, "ghost_batch_size": 4}
FP32 = {"epochs": 1, "precision": "fp32"}
WEIGHTED = {"class_weights": "balanced", "label_smoothing": 0.1, "mixup": 0.2}


@pytest.mark.skipif(os.name == "nt", reason="needs gloo and signals")
class TestTorchrun:
    @pytest.mark.parametrize(
        ("processes", "changes", "compare"),
        [
            ([2, 4], {}, assert_close),
            ([2], {"model": "net.py:Unused"}, assert_close),
            ([2], WEIGHTED, assert_close),
            ([2], COMPACT | FP32 | {"limit_train": 32, "lr": 0.01}, assert_close_in_fp32),
            ([2], ONE_STEP | FP32 | {"limit_train": 7}, assert_close_losses),
        ],
        ids=["plain", "an unused part", "class weights", "ghost batches", "ghosts of 3 and 4"],
    )
    def test_several_processes_learn_what_one_learns(
        self, train, image_folder, tmp_path, processes, changes, compare
    ):
        """In ghost batches of the same images, statistics of normalization are the same, too."""
        if changes is WEIGHTED:
            for image in sorted((image_folder / "train" / "red").iterdir())[2:]:
                image.unlink()
        flags = [(f"--{name.replace('_', '-')}", value) for name, value in changes.items()]
        for count in (0, *processes):
            done = train(count, "--json", *itertools.chain(*flags), name=f"of{count}")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["run"] == f"runs/of{count}"
            assert "epoch" not in done.stderr
            assert read_checkpoint(tmp_path / "runs" / f"of{count}" / "model.pt")
            compare(tmp_path / "runs" / f"of{count}", tmp_path / "runs" / "of0")

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see the threads")
    def test_no_thread_of_the_exchange_outlives_it(self, tmp_path):
        """One that did could abort a process at its end: seen in two of twelve runs."""
        script = tmp_path / "ending.py"
        script.write_text(ENDING)
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", script],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert "python" in done.stdout
        assert "gloo" not in done.stdout

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to find the process")
    def test_a_signal_to_one_process_stops_all_and_the_run_goes_on_with_another_number(
        self, train, command, tmp_path
    ):
        run = tmp_path / "runs" / "run"
        process = subprocess.Popen(
            command(2, name="run", net="Slow"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (run / "last.pt").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        os.kill(process_of_rank(process.pid, 1), signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
        assert output.count("; go on with: ") == 1, errors
        assert 'Traceback (most recent call last):\n  File "<frozen runpy>"' not in output
        stopped = read_checkpoint(run / "last.pt").training
        assert (stopped["epoch"], stopped["batch"]) < (6, 0)
        train(0, name="one")
        shutil.copytree(run, run.with_name("alone"))
        for processes, name in ((4, "run"), (0, "alone")):
            done = train(processes, "--resume", run.with_name(name), name=name, net="Slow")
            assert done.returncode == 0, done.stderr
            assert_close(run.with_name(name), run.with_name("one"))

    def test_a_process_that_dies_stops_the_job_and_its_error_is_shown(self, train):
        done = train(2, name="run", net="Dying")
        assert done.returncode != 0
        assert (
            "cifar-cnn: process 1: at epoch 0, step 2: the network fails on a training batch of 6: "
            "ValueError: the second process has had enough (net.py:30)"
        ) in done.stderr


def process_of_rank(launcher, rank):
    """Return the number of the process that a torchrun started with that rank."""
    for task in Path(f"/proc/{launcher}/task").iterdir():
        for child in (task / "children").read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in variables:
                return int(child)
    raise AssertionError("no such process")
