import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cnn.inference.checkpoint import Checkpoint, write_checkpoint
from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def make_image_folder():
    """Write three classes of flat colours with noise, 12 training and 4 test images each."""
    return write_image_folder


@pytest.fixture
def image_folder(tmp_path, make_image_folder):
    """Three classes of flat colours with noise, 12 training and 4 test images each, as PNG."""
    return make_image_folder(tmp_path / "images")


@pytest.fixture
def small_settings(image_folder):
    """Settings of a run of a second or two on `image_folder`."""

    def make(**overrides):
        values = {
            "dataset": "folder",
            "data_dir": image_folder,
            "epochs": 2,
            "batch_size": 8,
            "precision": "fp32",
        }
        return resolve_settings(values | overrides)

    return make


@pytest.fixture
def untrained_file(tmp_path):
    """A checkpoint of `baseline` with fresh weights for the classes blue, green and red."""
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        model="baseline",
        classes=("blue", "green", "red"),
        settings=resolve_settings({"dataset": "folder", "precision": "fp32"}),
        metrics={},
        state_dict=dict(build_model("baseline", num_classes=3).state_dict()),
    )
    write_checkpoint(tmp_path / "untrained.pt", checkpoint)
    return tmp_path / "untrained.pt"


@pytest.fixture
def cli(tmp_path):
    """Run `cifar-cnn` as a process of its own in an empty folder."""

    def run(*args, **environment):
        return subprocess.run(
            [sys.executable, "-m", "cifar_cnn", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "80"} | environment,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_image_folder(root: Path, train: int = 12, test: int = 4, size: int = 32) -> Path:
    random = np.random.RandomState(0)
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.randint(0, 100, (size, size, 3), dtype=np.uint8)
                pixels[:, :, 2 - label] += 150
                Image.fromarray(pixels).save(folder / f"{index:03}.png")
    return root
