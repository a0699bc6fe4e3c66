"""A run that SIGKILL ends at any moment keeps all that it has reported as saved.

There are two series of kills. One is at seeded random instants of a run that is started again after
each, also before its first save, and while it resumes. In the other the process kills itself at
each point of writing a file: half a file written, written but not synced, synced but not renamed,
renamed but the folder not synced. After each kill every file of the run is whole, and last.pt is no
older than the last save that the program reported. At the end the run equals, bit for bit, one that
was never killed.

`CIFAR_CNN_KILLS=100 pytest tests/training/test_kill.py` kills at 100 instants, not 10, and at 200
points, not 20.
"""

import csv
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch

from cifar_cnn.cli.main import app
from cifar_cnn.storage.checkpoint import read_checkpoint

KILLS = int(os.environ.get("CIFAR_CNN_KILLS", "10"))
FIRST_POINT = 20  # where the first save begins
PRELOADED = ["torch._dynamo", "cifar_cnn.api", "cifar_cnn.cli.train", "cifar_cnn.training.plan"]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_random_instants_and_at_points_of_a_save_a_run_loses_nothing(
    image_folder, tmp_path
):
    done = subprocess.run(
        [sys.executable, __file__, image_folder],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class DyingFile:
    """A file whose process may die in the middle of a write."""

    def __init__(self, file, pass_by):
        self.file, self.pass_by = file, pass_by

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.pass_by()
        self.file.write(content[len(content) // 2 :])

    def __getattr__(self, name):
        return getattr(self.file, name)


def die_at(point):
    """Have this process kill itself at that call, from 0, of those that write a file."""
    calls = iter(range(point + 1))

    def pass_by():
        if next(calls) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def passing(function):
        def call(*arguments, **options):
            pass_by()
            return function(*arguments, **options)

        return call

    open_file = Path.open

    def opened(path, *arguments, **options):
        file = open_file(path, *arguments, **options)
        if not path.match(".*.part"):
            return file
        pass_by()
        return DyingFile(file, pass_by)

    Path.open, os.fsync, Path.replace = opened, passing(os.fsync), passing(Path.replace)


def run_program(arguments, output, point):
    """Be the program, in a process of its own; kill it at the given point of writing."""
    torch.set_num_threads(1)
    with Path(output).open("w", buffering=1) as stream:
        sys.stdout = sys.stderr = stream
        if point is not None:
            die_at(point)
        app(arguments)


class Run:
    """A run that may be killed and started again."""

    def __init__(self, images, name):
        self.images, self.folder, self.output = images, Path("runs", name), Path(f"{name}.txt")
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.reported = 0  # epochs whose save the program reported
        self.killed_inside_a_write = 0

    def start(self, epochs, point=None):
        words = f"train --dataset folder --data-dir {self.images} --batch-size 12 --epochs {epochs}"
        words += " --scheduler constant --precision fp32 --resume auto --no-report --name"
        process = self.context.Process(
            target=run_program, args=([*words.split(), self.folder.name], str(self.output), point)
        )
        process.start()
        return process

    def finish(self, epochs):
        process = self.start(epochs)
        process.join()
        assert process.exitcode == 0, self.output.read_text()

    def kill_after(self, seconds):
        process = self.start(epochs=100_000)
        time.sleep(seconds)
        process.kill()
        process.join()
        self.check(process)

    def kill_at(self, point):
        process = self.start(self.reported + 2, point)
        process.join()
        self.check(process)

    def check(self, process):
        text = self.output.read_text() if self.output.exists() else ""
        assert process.exitcode == -signal.SIGKILL, text
        self.killed_inside_a_write += bool([*self.folder.glob(".*.part")])
        self.output.unlink(missing_ok=True)
        rows = re.findall(r"^epoch (\d+):.*\n", text, re.MULTILINE)
        self.reported = max(self.reported, int(rows[-1]) + 1 if rows else 0)
        if self.reported:
            history = read_checkpoint(self.folder / "last.pt").training["history"]
            assert len(history) >= self.reported
            self.reported = len(history)
        for name in ("previous.pt", "last.pt", "model.pt"):
            if (self.folder / name).exists():
                read_checkpoint(self.folder / name)
        if (self.folder / "settings.toml").exists():
            assert len(tomllib.loads((self.folder / "settings.toml").read_text())) > 10
        if (self.folder / "metrics.csv").exists():
            with (self.folder / "metrics.csv").open() as file:
                assert all(None not in row.values() for row in csv.DictReader(file))


def assert_same(one, other):
    """The same weights, momenta and figures."""
    first, second = (read_checkpoint(run.folder / "last.pt") for run in (one, other))
    assert all(torch.equal(first.state_dict[k], second.state_dict[k]) for k in first.state_dict)
    states = [each.training["optimizer"]["state"].values() for each in (first, second)]
    for a, b in zip(*states, strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    for a, b in zip(first.training["history"], second.training["history"], strict=True):
        assert {k: v for k, v in a.items() if "second" not in k} == {
            k: v for k, v in b.items() if "second" not in k
        }


def main(images):
    Run(images, "first").finish(2)  # modules are loaded, images are cached
    started = time.monotonic()
    Run(images, "second").finish(2)
    window = 2 * (time.monotonic() - started)
    instants = random.Random(0)  # noqa: S311 - the same ones each time
    killed, whole = Run(images, "killed"), Run(images, "whole")
    for _ in range(KILLS):
        killed.kill_after(instants.uniform(0, window))
    for point in range(FIRST_POINT, FIRST_POINT + 2 * KILLS):
        killed.kill_at(point)
    assert killed.killed_inside_a_write >= KILLS
    epochs = killed.reported + 2
    for run in (killed, whole):
        run.finish(epochs)
    assert_same(killed, whole)


if __name__ == "__main__":
    main(sys.argv[1])
