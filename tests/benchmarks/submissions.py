"""Seconds to check many networks in one command, from process start; prints JSON.

Each is a file of its own with another width, as handed in by a class: `summary` of all of them, and
of the first alone, so that the time of each further one can be told.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETWORK = """
from torch import nn
from cifar_cnn.models.baseline import Baseline


class Net(Baseline):
    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(self.convblock1[0].weight.new_zeros({extra}))
"""


def main() -> None:
    """Write the files, time the command on all and on one, print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=30)
    count = parser.parse_args().networks
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            (Path(folder) / f"student{index:03}.py").write_text(NETWORK.format(extra=index + 1))
        every = seconds(folder, "student*.py:Net")
        one = seconds(folder, "student000.py:Net", "--csv", "one.csv")
    each = (every - one) / (count - 1)
    print(json.dumps({"networks": count, "seconds": every, "one": one, "each_further": each}))


def seconds(folder: str, *arguments: str) -> float:
    """Return how long `summary` takes with these arguments."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "cifar_cnn", "summary", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    main()
