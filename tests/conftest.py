import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import Checkpoint, pack

SLOWEST_FILES = [
    f"test_{name}.py"
    for name in ("distributed", "interruptions", "train", "kill", "readme", "networks")
]
"""They start first, so that parallel test processes end at about the same time."""


def pytest_configure():
    """Divide the cores among parallel test processes and the programs that they start."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


def pytest_collection_modifyitems(items):
    rank = {name: index for index, name in enumerate(SLOWEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def make_image_folder():
    """Write three classes of flat colors with noise, 12 training and 4 test images each."""
    return write_image_folder


@pytest.fixture
def image_folder(tmp_path, make_image_folder):
    """Three classes of flat colors with noise, 12 training and 4 test images each, as PNG."""
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


@pytest.fixture(scope="session")
def untrained():
    """The content of a checkpoint of `baseline`, fresh, for the classes blue, green and red."""
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        model="baseline",
        classes=("blue", "green", "red"),
        settings=resolve_settings({"dataset": "folder", "precision": "fp32"}),
        metrics={},
        state_dict=dict(build_model("baseline", num_classes=3).state_dict()),
    )
    return pack(checkpoint)


@pytest.fixture
def untrained_file(tmp_path, untrained):
    """A file of `untrained`."""
    (tmp_path / "untrained.pt").write_bytes(untrained)
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


class FailingDisk:
    """Lets one point of writing a file fail, as the system would let it fail.

    Points: open, write, flush, fsync, close and replace of the temporary; open_folder and
    fsync_folder after it is renamed.
    """

    POINTS = ("open", "write", "flush", "fsync", "close", "replace", "open_folder", "fsync_folder")

    def __init__(self, monkeypatch):
        self.point, self.error, self.name, self.times, self._writing = "", None, "", 0, ""
        path_open, path_replace, os_open, os_fsync = Path.open, Path.replace, os.open, os.fsync

        def open_file(path, *arguments, **options):
            if not path.match(".*.part"):
                return path_open(path, *arguments, **options)
            self._writing = path.name
            self.reach("open")
            return _FailingFile(path_open(path, *arguments, **options), self)

        def open_descriptor(path, *arguments, **options):
            if Path(path).is_dir():
                self.reach("open_folder")
            return os_open(path, *arguments, **options)

        def replace(path, target):
            self.reach("replace")
            return path_replace(path, target)

        def fsync(descriptor):
            self.reach("fsync_folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync")
            os_fsync(descriptor)

        monkeypatch.setattr(Path, "open", open_file)
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(os, "open", open_descriptor)
        monkeypatch.setattr(os, "fsync", fsync)

    def fail(self, point, number, name="", times=1_000_000):
        """Fail with this errno from now on, `times` times, at files whose name begins so."""
        self.point, self.name, self.times = point, name, times
        self.error = OSError(number, os.strerror(number))

    def reach(self, point):
        if point == self.point and self.times and self._writing.startswith(f".{self.name}"):
            self.times -= 1
            raise self.error


class _FailingFile:
    def __init__(self, file, disk):
        self._file, self._reach, self.fileno = file, disk.reach, file.fileno

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._reach("close")

    def write(self, content):
        self._file.write(content[: len(content) // 2])
        self._reach("write")
        self._file.write(content[len(content) // 2 :])

    def flush(self):
        self._file.flush()
        self._reach("flush")


@pytest.fixture
def failing_disk(monkeypatch):
    """A disk that fails on demand; the second try of a write comes at once."""
    monkeypatch.setattr("cifar_cnn.training.run_files.RETRY_AFTER", 0)
    return FailingDisk(monkeypatch)
