"""How long commands take that people wait for. Prints JSON.

`predict` of 10,000 drawn JPEG files of 32×32, and `summary` of 30 files of one network each, are
measured from process start. The receptive field of densenet121 at 224 pixels is measured after
imports: the first time, and the median of five.

    python tests/benchmarks/commands.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from cifar_cnn import build_model, receptive_field
from cifar_cnn.data.synthetic import draw_synthetic

IMAGES, NETWORKS = 10_000, 30
NETWORK = """
from torch import nn
from cifar_cnn.models.baseline import Baseline


class Net(Baseline):
    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(self.convblock1[0].weight.new_zeros({extra}))
"""


def seconds_of(folder, *arguments):
    started = time.perf_counter()
    command = [sys.executable, "-m", "cifar_cnn", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure_predict(folder):
    (folder / "images").mkdir()
    for index, pixels in enumerate(draw_synthetic("train").images[:IMAGES].numpy()):
        image = Image.fromarray(pixels.transpose(1, 2, 0))
        image.save(folder / "images" / f"{index}.jpg", quality=95)
    torch.save(build_model("baseline").state_dict(), folder / "weights.pt")
    words = "predict images --checkpoint weights.pt --dataset synthetic --json"
    return {"images_per_second": round(IMAGES / seconds_of(folder, *words.split()))}


def measure_summary(folder):
    for index in range(NETWORKS):
        (folder / f"student{index:03}.py").write_text(NETWORK.format(extra=index + 1))
    together = seconds_of(folder, "summary", "student*.py:Net")
    one = seconds_of(folder, "summary", "student000.py:Net", "--csv", "one.csv")
    return {"seconds": together, "one": one, "each_further": (together - one) / (NETWORKS - 1)}


def measure_field():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        receptive_field("torchvision.models:densenet121", (224, 224))
        seconds.append(time.perf_counter() - started)
    return {"first": seconds[0], "median": statistics.median(seconds)}


def main():
    with tempfile.TemporaryDirectory() as name:
        report = {
            "cores": os.cpu_count(),
            "predict": measure_predict(Path(name)),
            "summary": measure_summary(Path(name)),
            "receptive_field": measure_field(),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
