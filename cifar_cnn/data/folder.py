"""Images in folders, train/<class>/* and test/<class>/*, decoded once and cached."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_cnn.data.cache import read_cache, write_cache
from cifar_cnn.data.dataset import Split
from cifar_cnn.data.images import read_images
from cifar_cnn.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg")
LAYOUT = "expected train/<class>/*.png|jpg|jpeg and test/<class>/* below --data-dir"


def load_folder(root: Path, name: str, size: tuple[int, int]) -> Split:
    """Load the `train` or `test` images below `root`, resized to `size` (H, W) where they differ.

    Classes are the sub-folders in alphabetical order, as in torchvision's ImageFolder. Decoded
    images are cached, keyed by the names, sizes and times of the files.

    Raises:
        DataError: a folder, class or image is missing or unreadable; the message names it.
    """
    try:
        classes = _classes(root, name)
        listing = [_image_files(root / name / each) for each in classes]
        entries = [entry for files in listing for entry in files]
        images, resized = _decode_once(entries, size)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in listing])
    notes: tuple[str, ...] = ()
    if resized:
        height, width = size
        notes = (
            f"{resized:,} of {len(entries):,} images in {root / name} "
            f"are not {height}x{width} and were resized",
        )
    return Split(torch.from_numpy(images), torch.from_numpy(labels), classes, notes)


def _classes(root: Path, name: str) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"folder {root} does not exist: {LAYOUT}")
    found = {half: _subfolders(root / half) for half in ("train", "test")}
    if not found[name]:
        raise DataError(f"folder {root / name} has no class folders: {LAYOUT}")
    other = "test" if name == "train" else "train"
    if found[other]:
        for here, there in ((name, other), (other, name)):
            missing = sorted(set(found[here]) - set(found[there]))
            if missing:
                raise DataError(f"class {missing[0]!r} is in {root / here} but not in {there}/")
    return tuple(found[name])


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    entries = [entry for entry in os.scandir(folder) if entry.name.lower().endswith(EXTENSIONS)]
    if not entries:
        raise DataError(f"class folder {folder} has no {', '.join(EXTENSIONS)} images")
    return sorted(entries, key=lambda entry: entry.name)


def _decode_once(
    entries: Sequence[os.DirEntry[str]], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], int]:
    """Return the images, uint8 (N, 3, H, W), and how many of them were resized."""
    key = _cache_key(entries, size)
    cached = read_cache(key)
    if cached is not None:
        return cached["images"], int(cached["resized"])
    images, was_resized = read_images([Path(entry.path) for entry in entries], size)
    resized = sum(was_resized)
    write_cache(key, {"images": images, "resized": np.array(resized)})
    return images, resized


def _cache_key(entries: Sequence[os.DirEntry[str]], size: tuple[int, int]) -> str:
    digest = hashlib.sha256(repr(size).encode())
    for entry in entries:
        stat = entry.stat()
        digest.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
