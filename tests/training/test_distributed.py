"""Several processes on this machine, through torchrun and gloo."""

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

import cifar_cnn
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
SETTINGS = {"recipe": "reference", "batch_size": 11, "epochs": 6, "lr": 0.05, "precision": "fp32"}
"""36 images: 4 steps an epoch, the last one with three images for all processes."""


@pytest.fixture
def start(tmp_path, image_folder):
    """Start a run of several processes in `tmp_path`, which has NET as net.py."""
    (tmp_path / "net.py").write_text(NET)

    def run(processes, *flags, **changes):
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        words += ["--nproc-per-node", processes, "-m", "cifar_cnn", "train", "--no-report", *flags]
        values = {"dataset": "folder", "data_dir": image_folder, "model": "net.py:Net"}
        for key, value in (values | SETTINGS | changes | {"name": "run"}).items():
            words += [f"--{key.replace('_', '-')}", value]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*map(str, words)], cwd=tmp_path, **output)

    return run


@pytest.fixture
def train_alone(tmp_path, small_settings, monkeypatch):
    """Train in this process, and return the run's directory."""

    def run(name="alone", *, resume=None, **changes):
        monkeypatch.chdir(tmp_path)
        settings = small_settings(**{"model": "net.py:Net"} | SETTINGS | changes)
        checkpoint = read_checkpoint(resume / "last.pt") if resume else None
        directory = tmp_path / "runs" / name
        return cifar_cnn.train(settings, directory, checkpoint=checkpoint, report=False).run

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
COMPACT |= {"epochs": 1, "limit_train": 32, "lr": 0.01}
ONE_STEP = {"model": "baseline", "recipe": "tuned", "batch_size": 7, "ghost_batch_size": 4}
ONE_STEP |= {"epochs": 1, "limit_train": 7}
WEIGHTED = {"class_weights": "balanced", "label_smoothing": 0.1, "mixup": 0.2}


@pytest.mark.skipif(os.name == "nt", reason="needs gloo and signals")
class TestTorchrun:
    @pytest.mark.parametrize(
        ("processes", "changes", "compare"),
        [
            (2, {}, assert_close),
            (4, {}, assert_close),
            (2, {"model": "net.py:Unused"}, assert_close),
            (2, WEIGHTED, assert_close),
            (2, COMPACT, assert_close_in_fp32),
            (2, ONE_STEP, assert_close_losses),
        ],
        ids=[
            "two",
            "four",
            "an unused part",
            "class weights",
            "ghost batches",
            "ghosts of 3 and 4",
        ],
    )
    def test_several_processes_learn_what_one_learns(
        self, start, train_alone, image_folder, tmp_path, processes, changes, compare
    ):
        """In ghost batches of the same images, statistics of normalization are the same, too."""
        if changes is WEIGHTED:
            for image in sorted((image_folder / "train" / "red").iterdir())[2:]:
                image.unlink()
        output, errors = start(processes, "--json", **changes).communicate(timeout=300)
        assert json.loads(output)["run"] == "runs/run", errors
        assert "epoch" not in errors
        assert read_checkpoint(tmp_path / "runs" / "run" / "model.pt")
        compare(tmp_path / "runs" / "run", train_alone(**changes))

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
        self, start, train_alone, tmp_path
    ):
        run = tmp_path / "runs" / "run"
        process = start(2, model="net.py:Slow")
        while not (run / "last.pt").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        os.kill(process_of_rank(process.pid, 1), signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
        assert output.count("; go on with: ") == 1, errors
        assert 'Traceback (most recent call last):\n  File "<frozen runpy>"' not in output
        stopped = read_checkpoint(run / "last.pt").training
        assert (stopped["epoch"], stopped["batch"]) < (6, 0)
        whole = train_alone("whole")
        shutil.copytree(run, run.with_name("alone"))
        assert_close(train_alone(model="net.py:Slow", resume=run.with_name("alone")), whole)
        process = start(4, "--resume", run, model="net.py:Slow")
        assert "saved " in process.communicate(timeout=300)[0]
        assert_close(run, whole)

    def test_a_process_that_dies_stops_the_job_and_its_error_is_shown(self, start):
        process = start(2, model="net.py:Dying")
        _, errors = process.communicate(timeout=300)
        assert process.returncode != 0
        assert (
            "cifar-cnn: process 1: at epoch 0, step 2: the network fails on a training batch of 6: "
            "ValueError: the second process has had enough (net.py:30)"
        ) in errors


def process_of_rank(launcher, rank):
    """Return the number of the process that a torchrun started with that rank."""
    for task in Path(f"/proc/{launcher}/task").iterdir():
        for child in (task / "children").read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in variables:
                return int(child)
    raise AssertionError("no such process")
