"""How speed and memory grow with the number of training images.

Prints JSON: for each size, images per second of a run's last epoch (of 3) and the most memory that
its process held. Each size is a process of `cifar-cnn train` with the network's own recipe.

    python tests/benchmarks/growth.py FOLDER [--model compact]
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE_OF = {"baseline": "tuned", "compact": "best"}
SIZES = (5_000, 10_000, 20_000, 50_000)


def measure(folder, model, size, scratch):
    """Return images per second and peak memory in MB of a run on `size` images."""
    command = [sys.executable, "-m", "cifar_cnn", "train", "--dataset", "folder"]
    command += ["--data-dir", str(folder), "--limit-train", str(size), "--epochs", "3"]
    command += ["--model", model, "--recipe", RECIPE_OF[model]]
    command += ["--output-dir", str(scratch), "--name", str(size)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    with (scratch / str(size) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "images": size,
        "images_per_second": float(rows[-1]["images_per_second"]),
        "peak_mb": usage.ru_maxrss / 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=RECIPE_OF, default="baseline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sizes = [measure(arguments.folder, arguments.model, size, Path(scratch)) for size in SIZES]
    rates = [size["images_per_second"] for size in sizes]
    print(json.dumps({"sizes": sizes, "slowest / fastest": min(rates) / max(rates)}, indent=2))


if __name__ == "__main__":
    main()
