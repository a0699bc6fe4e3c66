"""Images per second of one process and of two on this machine's CPU, one thread each.

Prints JSON. Both sides train `baseline` on the built-in images with the same global batch, in turn,
several rounds; the figures are medians over the rounds of whole epochs after the first. The
efficiency is the rate of two over twice the rate of one. `exchanged_bytes` is what a process sends
for the gradients of one step (ring all-reduce: 2 (N - 1) / N of them).

    python tests/benchmarks/processes.py [--rounds 3] [--batch-size 256] [--epochs 3]
        [--limit-train 10000]
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cifar_cnn import build_model

SIZES = (1, 2)


def measure(size, arguments):
    """Return the images per second of a run on `size` processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(size), "-m", "cifar_cnn", "train", "--no-report"]
        command += ["--dataset", "synthetic", "--limit-eval", "100", "--device", "cpu"]
        command += ["--batch-size", str(arguments.batch_size), "--epochs", str(arguments.epochs)]
        command += ["--limit-train", str(arguments.limit_train)]
        command += ["--output-dir", folder, "--name", "run"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, capture_output=True, check=True)
        with Path(folder, "run", "metrics.csv").open() as file:
            rows = [*csv.DictReader(file)][1:]
    return statistics.median(float(row["images_per_second"]) for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit-train", type=int, default=10_000)
    arguments = parser.parse_args()
    rounds = [[measure(size, arguments) for size in SIZES] for _ in range(arguments.rounds)]
    one, two = (statistics.median(each[index] for each in rounds) for index in range(2))
    gradients = 4 * sum(p.numel() for p in build_model("baseline").parameters())
    report = {
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "images_per_second": {"1": one, "2": two},
        "efficiency": statistics.median(b / (2 * a) for a, b in rounds),
        "step_ms": {
            "1": 1000 * arguments.batch_size / one,
            "2": 1000 * arguments.batch_size / two,
        },
        "gradient_bytes": gradients,
        "exchanged_bytes": {str(n): 2 * (n - 1) * gradients // n for n in (2, 4, 8)},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
