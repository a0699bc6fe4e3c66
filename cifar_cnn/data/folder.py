"""Images in folders, one for each class, decoded once and cached."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from cifar_cnn.data.dataset import Progress, Split, balanced, describe_lacking
from cifar_cnn.data.images import (
    DECODER,
    Decoded,
    Told,
    read_cache,
    read_image,
    read_images,
    write_cache,
)
from cifar_cnn.data.layout import KINDS, LAYOUT, Classes, find_layout, list_images
from cifar_cnn.data.load import DataSource
from cifar_cnn.errors import DataError, SettingsError, counted, verbs
from cifar_cnn.settings import Settings


class FolderSource(DataSource):
    """Folders of images in `data_dir`."""

    def classes(self, settings: Settings) -> tuple[str, ...]:
        """Return the names of the class folders."""
        names = find_layout(settings.data_dir).names
        if not names:
            raise DataError(f"folder {settings.data_dir} has no class folders: {LAYOUT}")
        return names

    def splits(self, settings: Settings) -> tuple[str, ...]:
        """Return those that have a folder."""
        return tuple(find_layout(settings.data_dir).splits)

    def check(self, settings: Settings) -> None:
        """Compare the folder with how the run would split it."""
        layout = find_layout(settings.data_dir)
        layout.check_for_training(settings.test_size, settings.val_size)

    def load(
        self, settings: Settings, name: str, limit: int | None, progress: Progress | None
    ) -> Split:
        """Decode the images that the limit leaves, in the size of the settings, or read the cache.

        Classes are the subfolders in alphabetical order, with names in Unicode's form NFC; images
        may lie at any depth in them, as in torchvision's ImageFolder. If `data_dir` has class
        folders alone, `test_size` is the fraction of each class that is `test`.
        """
        layout, size = find_layout(settings.data_dir), settings.input_size
        unused = [f"{layout.misnamed}, or it is not used"] if layout.misnamed else []
        folder, classes = layout.classes(name, settings.test_size)
        try:
            files, labels, skipped = _list(classes)
            _check_some(classes, labels, name)
            chosen, digest = np.arange(len(files)), None
            if layout.unsplit:
                is_test, digest = _cut_test(classes, files, labels, settings.test_size)
                chosen = np.flatnonzero(is_test == (name == "test"))
            chosen = chosen[balanced(labels[chosen], limit)]
            decoded = _decode_once(
                files, chosen, size, progress and partial(progress, "decoding", folder)
            )
            is_swapped = bool(decoded.resized.all()) and _is_swapped(files[chosen[0]], size)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
        lacking = describe_lacking(classes, labels, name)
        notes = _notes(folder, size, decoded, skipped, is_swapped=is_swapped)
        return Split(
            torch.from_numpy(decoded.images),
            torch.from_numpy(labels[chosen]),
            tuple(classes),
            (*unused, *lacking, *notes),
            tuple(files[index] for index in chosen),
            name,
            digest,
        )


SOURCE = FolderSource()


def _list(classes: Classes) -> tuple[list[str], NDArray[np.int64], int]:
    """Return all files in order, their labels, and how many others were skipped."""
    listed = [list_images(each) if each.is_dir() else ([], 0) for each in classes.values()]
    labels = np.repeat(np.arange(len(classes)), [len(images) for images, _ in listed])
    files = [file for images, _ in listed for file in images]
    return files, labels, sum(skipped for _, skipped in listed)


def _check_some(classes: Classes, labels: NDArray[np.int64], name: str) -> None:
    """Raise a DataError if a class has no training images, or no class has any images."""
    lacking = [each for label, each in enumerate(classes.values()) if label not in labels]
    if lacking and (name == "train" or len(lacking) == len(classes)):
        raise DataError(f"class folder {lacking[0]} has no {KINDS} images")


def _is_swapped(file: str, size: tuple[int, int]) -> bool:
    """Return whether an image is `size` with height and width swapped."""
    height, width = size
    return height != width and not read_image(Path(file), (width, height))[1].resized


def _notes(
    folder: Path, size: tuple[int, int], decoded: Decoded, skipped: int, *, is_swapped: bool
) -> tuple[str, ...]:
    height, width = size
    of_all = f"of {counted(len(decoded.images), 'image')} in {folder}"
    notes = []
    if resized := int(decoded.resized.sum()):
        are, were = verbs(resized)
        of_size = f"{height}x{width}" if height == width else f"{height}x{width} (height x width)"
        swapped = f"; --input-size {width}x{height} is their size" if is_swapped else ""
        notes.append(f"{resized:,} {of_all} {are} not {of_size} and {were} resized{swapped}")
    if on_white := int(decoded.on_white.sum()):
        are, were = verbs(on_white)
        notes.append(f"{on_white:,} {of_all} {are} transparent and {were} laid on white")
    if skipped:
        _, were = verbs(skipped)
        said = f"{counted(skipped, 'file')} in {folder} {were} skipped"
        notes.append(f"{said}: not named as {KINDS} images")
    return tuple(notes)


def _decode_once(
    files: Sequence[str], chosen: NDArray[np.int64], size: tuple[int, int], told: Told | None
) -> Decoded:
    """Return the chosen files decoded, from the cache of them or of all files if there is one."""
    identities = [_identity(file) for file in files]
    own = [identities[index] for index in chosen]
    if len(own) < len(files) and (everything := read_cache(_key(identities, size))):
        images, resized, on_white = everything
        return Decoded(images[chosen], resized[chosen], on_white[chosen])
    key = _key(own, size)
    if cached := read_cache(key):
        return cached
    decoded = read_images([Path(files[index]) for index in chosen], size, told)
    write_cache(key, decoded)
    return decoded


def _key(identities: Sequence[str], size: tuple[int, int]) -> str:
    lines = [repr((DECODER, PIL.__version__, size)), *identities]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:32]


def _identity(file: str) -> str:
    """Return a line that changes with the file's content or place.

    The inode and the time of the last change of any kind differ even if size and time of writing
    do not: after two files, or two folders, changed places.
    """
    found = os.stat(file)  # noqa: PTH116 - 60,000 of them in a fraction of a second
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{file}\0{found.st_size} {times} {found.st_ino}"


def _cut_test(
    classes: Classes, files: Sequence[str], labels: NDArray[np.int64], test_size: float
) -> tuple[NDArray[np.bool_], str]:
    """Return which files are for the test, bool (N), and the SHA-256 of their names.

    These are the files of each class whose names have the lowest hashes, so that one more or less
    moves one other at most, and none in other classes.
    """
    _check_cut(classes, np.bincount(labels, minlength=len(classes)), test_size)
    is_test = np.zeros(len(files), dtype=bool)
    chosen: list[str] = []
    for label, (name, folder) in enumerate(classes.items()):
        indices = np.flatnonzero(labels == label).tolist()
        names = {index: _name_in(folder, files[index]) for index in indices}
        ranked = sorted(indices, key=lambda index: _hash(names[index]))
        for_test = ranked[: round(len(indices) * test_size)]
        is_test[for_test] = True
        chosen += [f"{name}/{names[index]}" for index in for_test]
    return is_test, _hash("\n".join(sorted(chosen)))


def _check_cut(classes: Classes, counts: NDArray[np.int64], test_size: float) -> None:
    """Raise an error unless the smallest class has images for training and test."""
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
