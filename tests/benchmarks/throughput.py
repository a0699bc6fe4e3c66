"""Images per second of whole epochs on real images: this program's loops against the usual one.

Prints JSON. All sides train on the same images in this process, in turn, several rounds; the
figures are medians over the rounds, the ratios medians of each round's own. `bare` is the step
alone: the same batch, already in memory, forward, backward and optimizer.

    python tests/benchmarks/throughput.py FOLDER [--rounds 3] [--limit-train 50000]
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch

from cifar_cnn import resolve_settings
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.inference.evaluate import evaluate_split
from cifar_cnn.training.run import Run

warnings.filterwarnings("ignore")  # albumentations' own


def run_for(recipe, data_dir, limit):
    settings = {"recipe": recipe, "dataset": "folder", "data_dir": data_dir, "epochs": 100}
    return Run(resolve_settings(settings | {"limit_train": limit}))


def epoch_of(trainer):
    """Train one epoch of the trainer, without its evaluation; return images per second."""
    started = time.perf_counter()
    trainer.train_epoch()
    seconds = time.perf_counter() - started
    trainer.epoch, trainer.batch = trainer.epoch + 1, 0
    return len(trainer.labels) / seconds


def bare_step_of(trainer, steps):
    """Repeat one step on one batch; return images per second."""
    size = trainer.settings.batch_size
    chosen = torch.arange(size)
    images, labels = trainer.augmented(chosen), trainer.labels[chosen]
    started = time.perf_counter()
    for _ in range(steps):
        loss, _ = trainer.forward(images, labels)
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
    return steps * size / (time.perf_counter() - started)


def timed(work, images):
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-train", type=int, default=50_000)
    arguments = parser.parse_args()

    import stock

    settings = resolve_settings(
        {
            "dataset": "folder",
            "data_dir": arguments.folder,
            "limit_train": arguments.limit_train,
        }
    )
    train, test = load_train(settings)[0], load_test(settings)
    stock_train, stock_test = stock.loaders(train, test)
    stock_model, stock_optimizer = stock.new_training()
    runs = {
        name: run_for(name, arguments.folder, arguments.limit_train).trainer
        for name in ("tuned", "reference")
    }
    sides = {
        "stock": lambda: timed(
            lambda: stock.train_epoch(stock_model, stock_train, stock_optimizer), len(train)
        ),
        "stock_evaluation": lambda: timed(
            lambda: stock.evaluate(stock_model, stock_test), len(test)
        ),
    }
    for name, trainer in runs.items():
        steps = max(len(train) // trainer.settings.batch_size // 2, 1)
        sides[name] = lambda trainer=trainer: epoch_of(trainer)
        sides[f"{name}_bare"] = lambda trainer=trainer, steps=steps: bare_step_of(trainer, steps)
        sides[f"{name}_evaluation"] = lambda trainer=trainer: timed(
            lambda: evaluate_split(
                trainer.model, test, torch.device("cpu"), trainer.settings.precision
            ),
            len(test),
        )
    rates = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            rates[name].append(side())

    def ratio(one, other):
        return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))

    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "processor": platform.processor() or platform.machine(),
                "threads": torch.get_num_threads(),
                "images": len(train),
                "images_per_second": {k: statistics.median(v) for k, v in rates.items()},
                "ratios": {
                    "tuned / stock": ratio("tuned", "stock"),
                    "reference / stock": ratio("reference", "stock"),
                    "tuned / bare": ratio("tuned", "tuned_bare"),
                    "reference / bare": ratio("reference", "reference_bare"),
                    "tuned evaluation / stock": ratio("tuned_evaluation", "stock_evaluation"),
                    "reference evaluation / stock": ratio(
                        "reference_evaluation", "stock_evaluation"
                    ),
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
