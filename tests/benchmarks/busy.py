"""Images per second of training while other programs want the cores, against a quiet machine.

Prints JSON. Each figure is of a process of its own: an epoch of the images after a short one that
is not counted, first on the quiet machine, then beside as many programs as are asked for, each of
which keeps one core busy. `whole` is the same recipe with the batch computed at once by all of
torch's threads (`--ghost-batch-size 0`), `stock` the usual loop (extra `bench`). Medians over the
rounds.

    python tests/benchmarks/busy.py FOLDER [--busy 1] [--rounds 3] [--limit-train 20000]
"""

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from throughput import in_own_process, measure_stock, timed

from cifar_cnn import resolve_settings
from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.training.run import Run

SIDES = {
    "baseline": {},
    "baseline, whole": {"ghost_batch_size": 0},
    "compact": {"model": "compact", "recipe": "best"},
    "reference": {"recipe": "reference"},
    "stock": None,
}
WARM_UP = 1280  # images


def measure(side, folder, limit):
    """Return images per second of an epoch of this side."""
    if SIDES[side] is None:
        return measure_stock(folder, limit)["stock"]
    data = {"dataset": "folder", "data_dir": folder}
    for count in (WARM_UP, limit):
        trainer = Run(resolve_settings({**SIDES[side], **data, "limit_train": count})).trainer
        rate = timed(trainer.train_epoch, count)
    return rate


@contextmanager
def busy(programs):
    command = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(command) for _ in range(programs)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def main():
    keep_freed_memory()  # as the program does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--busy", type=int, default=1, help="programs that keep a core busy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-train", type=int, default=20_000)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[*SIDES])
    parser.add_argument("--side", choices=SIDES, help="measure this one, in this process")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.folder, arguments.limit_train)))
        return
    report = {"busy programs": arguments.busy, "rounds": arguments.rounds}
    for side in arguments.sides:
        quiet, beside = [], []
        for _ in range(arguments.rounds):
            quiet.append(in_own_process(side, arguments, __file__))
            with busy(arguments.busy):
                beside.append(in_own_process(side, arguments, __file__))
        ratios = [one / other for one, other in zip(beside, quiet, strict=True)]
        report[side] = {
            "quiet": statistics.median(quiet),
            "busy": statistics.median(beside),
            "ratio": statistics.median(ratios),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
