"""Images a second of `predict` on 10,000 drawn JPEG files of 32×32, decoding and start included.

Prints JSON:

    python tests/benchmarks/predict_speed.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from cifar_cnn import build_model
from cifar_cnn.data.synthetic import draw_synthetic

COUNT = 10_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, weights = Path(folder) / "images", Path(folder) / "weights.pt"
        images.mkdir()
        for index, pixels in enumerate(draw_synthetic("train").images[:COUNT].numpy()):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(images / f"{index}.jpg", quality=95)
        torch.save(build_model("baseline").state_dict(), weights)
        command = [sys.executable, "-m", "cifar_cnn", "predict", images, "--checkpoint", weights]
        command += ["--dataset", "synthetic", "--json"]
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        rate = COUNT / (time.perf_counter() - started)
    print(json.dumps({"images_per_second": round(rate), "cores": len(os.sched_getaffinity(0))}))


if __name__ == "__main__":
    main()
