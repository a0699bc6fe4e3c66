"""Which images of class folders are for the test: their names say it."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar_cnn.data.layout import Classes
from cifar_cnn.errors import DataError, SettingsError


class Cut(NamedTuple):
    """Which files are for the test, bool (N), and the SHA-256 of their names in all classes."""

    is_test: NDArray[np.bool_]
    digest: str


def cut_test(
    classes: Classes, files: Sequence[str], labels: NDArray[np.int64], test_size: float
) -> Cut:
    """Choose that fraction of each class whose names in its folder have the lowest hashes.

    So one file more or less moves one other at most, and none in other classes.

    Raises:
        DataError: a class has a single image.
        SettingsError: `test_size` leaves a class no image for the test, or none for training.
    """
    _check(classes, np.bincount(labels, minlength=len(classes)), test_size)
    is_test = np.zeros(len(files), dtype=bool)
    chosen: list[str] = []
    for label, (name, folder) in enumerate(classes.items()):
        indices = np.flatnonzero(labels == label).tolist()
        names = {index: _name_in(folder, files[index]) for index in indices}
        ranked = sorted(indices, key=lambda index: _hash(names[index]))
        for_test = ranked[: round(len(indices) * test_size)]
        is_test[for_test] = True
        chosen += [f"{name}/{names[index]}" for index in for_test]
    return Cut(is_test, _hash("\n".join(sorted(chosen))))


def _check(classes: Classes, counts: NDArray[np.int64], test_size: float) -> None:
    """Raise an error unless the smallest class, the first to have none, has images for both."""
    label = int(counts.argmin())
    images = int(counts[label])
    for_test = round(images * test_size)
    problem = f"class folder {[*classes.values()][label]} has too few images to split ({images})"
    if images < 2:
        raise DataError(f"{problem}: each class needs two or more")
    if not 0 < for_test < images:
        lacking = "training" if for_test else "the test"
        raise SettingsError(f"{problem}: test_size {test_size:g} leaves none of them for {lacking}")


def _name_in(folder: Path, file: str) -> str:
    """Return the path of a file in a folder, the same on every system."""
    inside = file[len(str(folder)) + 1 :]
    return unicodedata.normalize("NFC", inside.replace(os.sep, "/"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
