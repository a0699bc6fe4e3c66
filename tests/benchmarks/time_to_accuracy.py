"""Wall clock of `cifar-cnn train`, from process start, against 100 epochs of the usual program.

Prints JSON. The usual program's epoch (training and evaluation) is measured once, in a process of
its own (see stock.py), and counted 100 times. The images are decoded beforehand.

    python tests/benchmarks/time_to_accuracy.py FOLDER [--model compact] [--epochs 8] [--seeds 1]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THROUGHPUT = Path(__file__).with_name("throughput.py")
RECIPE_OF = {"compact": "best", "baseline": "tuned"}
TRAINING_IMAGES, TEST_IMAGES = 50_000, 10_000


def stock_epoch(folder):
    """Return the seconds of one epoch of the usual program."""
    command = [sys.executable, THROUGHPUT, folder, "--side", "stock"]
    rates = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return TRAINING_IMAGES / rates["stock"] + TEST_IMAGES / rates["stock_evaluation"]


def run(folder, model, epochs, seed, scratch):
    """Return wall-clock seconds and final test accuracy of one run."""
    command = [sys.executable, "-m", "cifar_cnn", "train", "--dataset", "folder", "--json"]
    command += ["--data-dir", folder, "--model", model, "--recipe", RECIPE_OF[model]]
    command += ["--epochs", str(epochs), "--seed", str(seed)]
    command += ["--output-dir", scratch, "--name", str(seed)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "accuracy": json.loads(done.stdout)["eval"]["accuracy"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--model", choices=RECIPE_OF, default="compact")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    usual = 100 * stock_epoch(arguments.folder)
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            run(arguments.folder, arguments.model, arguments.epochs, seed, scratch)
            for seed in range(arguments.seeds)
        ]
    seconds = sum(each["seconds"] for each in runs) / len(runs)
    report = {
        "model": arguments.model,
        "epochs": arguments.epochs,
        "runs": runs,
        "mean_accuracy": sum(each["accuracy"] for each in runs) / len(runs),
        "mean_seconds": seconds,
        "usual_seconds_of_100_epochs": usual,
        "ratio": usual / seconds,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
