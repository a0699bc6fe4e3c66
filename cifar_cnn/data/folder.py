"""Images in folders, train/<class>/* and test/<class>/*, decoded once and cached."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from cifar_cnn.data.cache import read_cache, write_cache
from cifar_cnn.data.dataset import Split
from cifar_cnn.data.images import DECODER, read_images
from cifar_cnn.data.listing import KINDS, is_hidden, list_images
from cifar_cnn.errors import DataError

LAYOUT = f"expected train/<class>/ and test/<class>/ with {KINDS} images below --data-dir"


class _Decoded(NamedTuple):
    images: NDArray[np.uint8]
    resized: int
    on_white: int


def load_folder(root: Path, name: str, size: tuple[int, int]) -> Split:
    """Load the `train` or `test` images below `root`, resized to `size` (H, W) where they differ.

    Classes are the sub-folders in alphabetical order, their names in Unicode's form NFC, and images
    lie at any depth in them, as in torchvision's ImageFolder. Decoded images are cached, keyed by
    the files' names, sizes, times and numbers in the file system.

    Raises:
        DataError: a folder, class or image is missing or unreadable; the message names it.
    """
    try:
        classes = _classes(root, name)
        listed = [_images_of(folder) for folder in classes.values()]
        paths = [path for images, _ in listed for path in images]
        decoded = _decode_once(paths, size)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    labels = np.repeat(np.arange(len(classes)), [len(images) for images, _ in listed])
    return Split(
        torch.from_numpy(decoded.images),
        torch.from_numpy(labels),
        tuple(classes),
        _notes(root / name, size, decoded, sum(skipped for _, skipped in listed)),
        tuple(paths),
    )


def _notes(folder: Path, size: tuple[int, int], decoded: _Decoded, skipped: int) -> tuple[str, ...]:
    height, width = size
    of_all = f"of {len(decoded.images):,} images in {folder}"
    notes = []
    if decoded.resized:
        notes.append(f"{decoded.resized:,} {of_all} are not {height}x{width} and were resized")
    if decoded.on_white:
        notes.append(f"{decoded.on_white:,} {of_all} are transparent and were laid on white")
    if skipped:
        notes.append(f"{skipped:,} files in {folder} were skipped: not named as {KINDS} images")
    return tuple(notes)


def _classes(root: Path, name: str) -> Mapping[str, Path]:
    """Return the folder of each class, in the order of their names."""
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
    return found[name]


def _subfolders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in folder.iterdir():
        if is_hidden(path.name) or not path.is_dir():
            continue
        name = unicodedata.normalize("NFC", path.name)
        if name.encode(errors="ignore") != os.fsencode(name):
            raise DataError(f"class folder {path} has a name that is not UTF-8: rename it")
        if name in found:
            raise DataError(f"two class folders in {folder} are called {name!r}: rename one")
        found[name] = path
    return dict(sorted(found.items()))


def _images_of(folder: Path) -> tuple[list[str], int]:
    images, skipped = list_images(folder)
    if not images:
        raise DataError(f"class folder {folder} has no {KINDS} images")
    return images, skipped


def _decode_once(paths: Sequence[str], size: tuple[int, int]) -> _Decoded:
    """Return the images, uint8 (N, 3, H, W), and how many were changed."""
    key = _cache_key(paths, size)
    cached = read_cache(key)
    if cached is not None:
        return _Decoded(cached["images"], int(cached["resized"]), int(cached["on_white"]))
    images, changes = read_images([Path(path) for path in paths], size)
    decoded = _Decoded(
        images, sum(each.resized for each in changes), sum(each.on_white for each in changes)
    )
    write_cache(key, {name: np.asarray(value) for name, value in decoded._asdict().items()})
    return decoded


def _cache_key(paths: Sequence[str], size: tuple[int, int]) -> str:
    """Return a name for these files, of which any change of content or place makes another one.

    The number of a file and the time of its last change of any kind catch what keeps size and time
    of writing: two files, or two folders, that changed places.
    """
    lines = [repr((DECODER, PIL.__version__, size))]
    for path in paths:
        found = os.stat(path)  # noqa: PTH116 - 60,000 of them in a fraction of a second
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        lines.append(f"{path}\0{found.st_size} {times} {found.st_ino}")
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:32]
