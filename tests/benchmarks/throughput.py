"""Images per second of whole epochs on real images: this program's loops against the usual one.

Prints JSON. Each side runs in a process of its own, as a user would start it (memory settings of
one do not reach the other), in turn, several rounds; the figures are medians over the rounds, the
ratios medians of each round's own. `tuned` and `reference` are recipes of `baseline`, `compact` is
that network under `best`, `whole` is `tuned` with the batch computed at once by all of torch's
threads. `bare` is the step alone: the same batch, already in memory, forward, backward and
optimizer. With `--busy N`, so many other programs keep a core busy each.

    python tests/benchmarks/throughput.py FOLDER [--rounds 3] [--limit-train 50000] [--busy 1]
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from cifar_cnn import resolve_settings
from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.inference.trained import predict_log_probabilities
from cifar_cnn.runtime import resolve_device, torch_threads
from cifar_cnn.training.distributed import Processes
from cifar_cnn.training.run import Run

warnings.filterwarnings("ignore")  # albumentations' own

OURS = {
    "tuned": {"recipe": "tuned"},
    "whole": {"recipe": "tuned", "ghost_batch_size": 0},
    "reference": {"recipe": "reference"},
    "compact": {"model": "compact", "recipe": "best"},
}
SIDES = ("stock", *OURS)
RATIOS = (
    *((side, "stock") for side in OURS),
    ("compact", "tuned"),
    *((side, f"{side}_bare") for side in OURS),
    *((f"{side}_evaluation", "stock_evaluation") for side in OURS),
)


def measure_ours(side, folder, limit):
    """Return images per second of an epoch, of bare steps and of an evaluation."""
    settings = OURS[side] | {"dataset": "folder", "data_dir": folder, "limit_train": limit}
    trainer = Run(resolve_settings(settings), Processes(resolve_device("auto"))).trainer
    test, precision = trainer.evaluation, trainer.settings.precision
    trainer.batches.at(0, 0)  # first use of everything
    rates = {side: timed(trainer.train_epoch, trainer.batches.count)}
    trainer.epoch, trainer.index = trainer.epoch + 1, 0
    size = trainer.settings.batch_size
    steps = max(trainer.batches.count // size // 2, 1)
    images, labels, _ = trainer.batches.at(0, 0)

    def bare_steps():
        for _ in range(steps):
            if trainer.update.ghosts:
                trainer.update.ghosts.update(lambda part: (images[part], labels[part], None), 0)
            else:
                trainer.training_step.update(images, labels)

    with torch_threads(trainer.update.threads):
        rates[f"{side}_bare"] = timed(bare_steps, steps * size)
    rates[f"{side}_evaluation"] = timed(
        lambda: predict_log_probabilities(trainer.model, test.images, trainer.device, precision),
        len(test),
    )
    return rates


def measure_stock(folder, limit):
    """Return images per second of the usual program's epoch and evaluation."""
    import stock

    settings = {"dataset": "folder", "data_dir": folder, "limit_train": limit}
    train, _ = load_train(resolve_settings(settings))
    test = load_test(resolve_settings(settings))
    train_loader, test_loader = stock.loaders(train, test)
    model, optimizer = stock.new_training()
    return {
        "stock": timed(lambda: stock.train_epoch(model, train_loader, optimizer), len(train)),
        "stock_evaluation": timed(lambda: stock.evaluate(model, test_loader), len(test)),
    }


def timed(work, images):
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


@contextmanager
def busy(programs):
    """Keep so many cores busy."""
    command = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(command) for _ in range(programs)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def in_own_process(side, arguments):
    """Return what this script prints of the side, measured in a process of its own."""
    command = [sys.executable, __file__, str(arguments.folder), "--side", side]
    command += ["--limit-train", str(arguments.limit_train)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def main():
    keep_freed_memory()  # as the program does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-train", type=int, default=50_000)
    parser.add_argument("--busy", type=int, default=0, help="programs that keep a core busy")
    parser.add_argument("--side", choices=SIDES, help="measure this one, in this process")
    arguments = parser.parse_args()
    if arguments.side == "stock":
        print(json.dumps(measure_stock(arguments.folder, arguments.limit_train)))
        return
    if arguments.side:
        print(json.dumps(measure_ours(arguments.side, arguments.folder, arguments.limit_train)))
        return
    rounds = []
    with busy(arguments.busy):
        for _ in range(arguments.rounds):
            rounds.append({})
            for side in SIDES:
                rounds[-1].update(in_own_process(side, arguments))

    def median_ratio(one, other):
        return statistics.median(each[one] / each[other] for each in rounds)

    report = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "images": arguments.limit_train,
        "rounds": arguments.rounds,
        "busy programs": arguments.busy,
        "images_per_second": {
            name: statistics.median(each[name] for each in rounds) for name in rounds[0]
        },
        "ratios": {f"{one} / {other}": median_ratio(one, other) for one, other in RATIOS},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
