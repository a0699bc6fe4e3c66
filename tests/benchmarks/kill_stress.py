"""Kills training with SIGKILL, again and again, and checks that nothing was lost.

Two series: at seeded random instants of a run that is started again after each (also before its
first save, and while it resumes), and at each single point of writing a file, where the process
kills itself (half a file written, written but not synced, synced but not renamed, renamed but the
folder not synced). After each kill every file of the run must be whole, last.pt must load and be no
older than the last save that the program reported, and the next start must go on from it. At the
end the run must equal, bit by bit, one that was never killed. Prints JSON; exit code 1 if any of
it fails.

    python tests/benchmarks/kill_stress.py [--instants 100] [--points 1000] [--first-point 0]
        [--seed 0]
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cifar_cnn.cli.main import app
from cifar_cnn.storage.checkpoint import read_checkpoint

PRELOADED = ["cifar_cnn.api", "cifar_cnn.cli.main", "cifar_cnn.training.plan"]
ENDLESS = 100_000


def make_images(root):
    noise = np.random.RandomState(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = noise.randint(0, 100, (32, 32, 3), dtype=np.uint8)
                pixels[:, :, label] += 150
                Image.fromarray(pixels).save(folder / f"{index}.png")


def run_program(arguments, output, point):
    """Be the program, in a process of its own; kill it at the given point of writing."""
    torch.set_num_threads(1)
    with Path(output).open("w", buffering=1) as stream:
        sys.stdout = sys.stderr = stream
        if point is not None:
            die_at(point)
        app(arguments)


class SlowFile:
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
    """Have this process kill itself at its so manieth call that has to do with writing a file."""
    left = [point]

    def pass_by():
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    open_file, fsync, replace = Path.open, os.fsync, Path.replace

    def opened(path, *arguments, **options):
        file = open_file(path, *arguments, **options)
        if not path.match(".*.part"):
            return file
        pass_by()
        return SlowFile(file, pass_by)

    def synced(descriptor):
        pass_by()
        fsync(descriptor)

    def replaced(path, target):
        pass_by()
        return replace(path, target)

    Path.open, os.fsync, Path.replace = opened, synced, replaced


class Stress:
    """One run directory, killed again and again."""

    def __init__(self, folder, name, seed):
        self.folder, self.run = folder, folder / "runs" / name
        self.random = random.Random(seed)  # noqa: S311 - the same instants each time
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.output = folder / f"{name}.txt"
        self.reported = 0  # epochs whose save the program reported
        self.inside_a_write = self.kills = 0

    def start(self, epochs, point=None):
        arguments = ["train", "--dataset", "folder", "--data-dir", str(self.folder / "images")]
        arguments += ["--batch-size", "12", "--scheduler", "constant", "--precision", "fp32"]
        arguments += ["--epochs", str(epochs), "--output-dir", str(self.run.parent)]
        arguments += ["--name", self.run.name, "--resume", "auto", "--no-report"]
        process = self.context.Process(
            target=run_program, args=(arguments, str(self.output), point)
        )
        process.start()
        return process

    def finish(self, epochs):
        process = self.start(epochs)
        process.join()
        assert process.exitcode == 0, self.output.read_text()

    def kill_at_random(self, window):
        process = self.start(ENDLESS)
        time.sleep(self.random.uniform(0, window))
        process.kill()
        process.join()
        self.check(process)

    def kill_at_point(self, point):
        """Start, have it die there, check; False where it has no such point in two epochs."""
        process = self.start(self.reported + 2, point)
        process.join()
        if process.exitcode == 0:
            return False
        self.check(process)
        return True

    def check(self, process):
        self.kills += 1
        text = self.output.read_text() if self.output.exists() else ""
        assert process.exitcode == -signal.SIGKILL, text
        self.inside_a_write += bool([*self.run.glob(".*.part")])
        self.output.unlink(missing_ok=True)
        rows = re.findall(r"^epoch (\d+):.*\n", text, re.MULTILINE)
        self.reported = max(self.reported, int(rows[-1]) + 1 if rows else 0)
        if self.reported:
            history = read_checkpoint(self.run / "last.pt").training["history"]
            assert len(history) >= self.reported, (len(history), self.reported)
            self.reported = len(history)
        for name in ("previous.pt", "last.pt", "model.pt"):
            if (self.run / name).exists():
                read_checkpoint(self.run / name)
        if (self.run / "settings.toml").exists():
            assert len(tomllib.loads((self.run / "settings.toml").read_text())) > 10
        if (self.run / "metrics.csv").exists():
            with (self.run / "metrics.csv").open() as file:
                assert all(None not in row.values() for row in csv.DictReader(file))


def measure_start(folder):
    """Return the seconds that a whole run of two epochs takes, modules loaded."""
    Stress(folder, "first", 0).finish(2)
    started = time.monotonic()
    Stress(folder, "second", 0).finish(2)
    return time.monotonic() - started


def same(one, other):
    """Return whether two runs ended with the same weights, momenta and figures."""
    first, second = (read_checkpoint(run / "last.pt") for run in (one, other))
    momenta = [
        [held["momentum_buffer"] for held in each.training["optimizer"]["state"].values()]
        for each in (first, second)
    ]
    rows = [
        [{k: v for k, v in row.items() if "second" not in k} for row in each.training["history"]]
        for each in (first, second)
    ]
    return (
        rows[0] == rows[1]
        and all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
        and all(torch.equal(first.state_dict[k], second.state_dict[k]) for k in first.state_dict)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instants", type=int, default=100)
    parser.add_argument("--points", type=int, default=1000, help="at most so many")
    parser.add_argument(
        "--first-point", type=int, default=0, help="20 is where the first save begins"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CIFAR_CNN_CACHE"] = str(folder / "cache")
        make_images(folder / "images")
        window = 2 * measure_start(folder)
        killed = Stress(folder, "killed", arguments.seed)
        for _ in range(arguments.instants):
            killed.kill_at_random(window)
        points = 0
        while points < arguments.points and killed.kill_at_point(arguments.first_point + points):
            points += 1
        epochs = killed.reported + 2
        killed.finish(epochs)
        whole = Stress(folder, "whole", arguments.seed)
        whole.finish(epochs)
        equal = same(killed.run, whole.run)
    report = {
        "instants": arguments.instants,
        "window_seconds": round(window, 2),
        "write_points": points,
        "killed_inside_a_write": killed.inside_a_write,
        "epochs": epochs,
        "equals_a_run_never_killed": equal,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(report, indent=2))
    sys.exit(not equal)


if __name__ == "__main__":
    main()
