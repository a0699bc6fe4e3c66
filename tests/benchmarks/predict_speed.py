"""Images a second of `predict` on a folder of JPEG files of 32×32, decoding included.

    python tests/benchmarks/predict_speed.py [CHECKPOINT FOLDER]

Without arguments it writes 10,000 drawn images and classifies them with fresh weights. Imports and
the loading of the checkpoint count too. Prints JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

COUNT = 10_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1:] or [str(each) for each in prepare(Path(folder))]
        checkpoint, images = given
        command = [sys.executable, "-m", "cifar_cnn", "predict", images, "--checkpoint", checkpoint]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        seconds = time.perf_counter() - started
    count = len(json.loads(done.stdout)["predictions"])
    print(
        json.dumps(
            {
                "images": count,
                "seconds": round(seconds, 2),
                "images_per_second": round(count / seconds),
                "cores": len(os.sched_getaffinity(0)),
            }
        )
    )


def prepare(folder: Path) -> tuple[Path, Path]:
    from cifar_cnn import build_model, resolve_settings
    from cifar_cnn.data.synthetic import CLASSES, draw_synthetic
    from cifar_cnn.storage.checkpoint import Checkpoint, pack

    images = folder / "images"
    images.mkdir()
    for index, pixels in enumerate(draw_synthetic("train").images[:COUNT].numpy()):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(images / f"{index:05}.jpg", quality=95)
    checkpoint = Checkpoint(
        model="baseline",
        classes=CLASSES,
        settings=resolve_settings({"dataset": "synthetic"}),
        metrics={},
        state_dict=dict(build_model("baseline").state_dict()),
    )
    (folder / "model.pt").write_bytes(pack(checkpoint))
    return folder / "model.pt", images


if __name__ == "__main__":
    main()
