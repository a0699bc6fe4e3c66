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

from cifar_cnn.data.dataset import Progress, Split, choose_balanced, describe_empty_classes
from cifar_cnn.data.images import (
    DECODER,
    Decoded,
    Tell,
    read_cache,
    read_image,
    read_images,
    write_cache,
)
from cifar_cnn.data.layout import (
    KINDS,
    LAYOUT,
    Classes,
    describe_misnamed,
    find_class_folders,
    list_images,
    readable_folders,
)
from cifar_cnn.data.load import DataSource
from cifar_cnn.errors import DataError, SettingsError, counted, first_few
from cifar_cnn.settings import Settings


class FolderSource(DataSource):
    """Folders of images in `data_dir`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.root, self.folders = settings.data_dir, find_class_folders(settings.data_dir)
        self.is_split = "" not in self.folders
        self.splits = tuple(self.folders) if self.is_split else ()
        self.classes = tuple(sorted(set().union(*self.folders.values())))

    def check(self) -> None:
        """Raise an error if there are no images to evaluate on, or if a split is cut needlessly."""
        test_size, val_size, root = self.settings.test_size, self.settings.val_size, self.root
        if not self.is_split and not test_size:
            raise DataError(
                f"{self._unsplit}: train with --test-size 0.2, which makes a fifth of each class "
                "the test images, or put them below train/ and test/"
            )
        if "val" in self.splits and val_size:
            raise SettingsError(
                f"val_size {val_size} would cut validation images from the training images, and "
                f"{root} has val/: leave it out"
            )
        if test_size and "train" in self.splits and len(self.splits) > 1:
            raise SettingsError(
                f"test_size {test_size:g} is for class folders alone, and {root} has "
                f"{'test' if 'test' in self.splits else 'val'}/: leave it out"
            )
        if self.splits == ("train",):
            advice = describe_misnamed(root) or (
                f"add one of them, or cut the test images from it with --data-dir "
                f"{root / 'train'} --test-size 0.2"
            )
            raise DataError(f"{root} has neither test/ nor val/ beside train/: {advice}")

    @property
    def _unsplit(self) -> str:
        return f"{self.root} has class folders alone ({first_few(self.classes)})"

    def _class_folders(self, name: str) -> tuple[Path, Classes]:
        """Return the folder of a split, and those of all classes, which may be missing."""
        folder = self.root / name
        if self.is_split and name not in self.folders:
            advice = describe_misnamed(self.root) or LAYOUT
            raise DataError(f"folder {folder} has no class folders: {advice}")
        if not self.is_split and not self.settings.test_size:
            raise DataError(
                f"{self._unsplit}: put them below {folder} to take them as {name} images"
            )
        if not self.is_split:
            return self.root, self.folders[""]
        return folder, {each: self.folders[name].get(each, folder / each) for each in self.classes}

    @readable_folders()
    def load(self, name: str, limit: int | None, progress: Progress | None) -> Split:
        """Decode the images that the limit leaves, in the size of the settings, or read the cache.

        Classes are the subfolders in alphabetical order, with names in Unicode's form NFC; images
        may lie at any depth in them, as in torchvision's ImageFolder. If `data_dir` has class
        folders alone, `test_size` is the fraction of each class that is `test`.
        """
        size, (folder, classes) = self.settings.input_size, self._class_folders(name)
        folders = [*classes.values()]
        listings = [list_images(each) if each.is_dir() else ([], 0) for each in folders]
        files = [file for images, _ in listings for file in images]
        counts = [len(images) for images, _ in listings]
        labels = np.repeat(np.arange(len(classes)), counts)
        if 0 in counts and (name == "train" or not files):
            raise DataError(f"class folder {folders[counts.index(0)]} has no {KINDS} images")
        chosen, test_sha256 = np.arange(len(files)), None
        if not self.is_split:
            is_test, test_sha256 = _cut_test(classes, files, labels, self.settings.test_size)
            chosen = np.flatnonzero(is_test == (name == "test"))
        chosen = chosen[choose_balanced(labels[chosen], limit)]
        tell = progress and partial(progress, "decoding", folder)
        decoded = _decode_once(files, chosen, size, tell)
        advice = describe_misnamed(self.root)
        notes = [f"{advice}, or it is not used"] if advice else []
        notes += describe_empty_classes(classes, labels, name)
        notes += _describe_changes(folder, decoded, files[chosen[0]], size)
        if skipped := sum(others for _, others in listings):
            notes.append(f"skipped {counted(skipped, 'file')} in {folder}, not named as {KINDS}")
        return Split(
            torch.from_numpy(decoded.images),
            torch.from_numpy(labels[chosen]),
            tuple(classes),
            tuple(notes),
            tuple(files[index] for index in chosen),
            name,
            test_sha256,
        )


SOURCE = FolderSource


def _describe_changes(
    folder: Path, decoded: Decoded, first: str, size: tuple[int, int]
) -> list[str]:
    """Return notes on the images that were resized or laid on white; `first` is one of the files.

    If none has the size, and `first` has it with height and width swapped, a note says so.
    """
    height, width = size
    (resized, on_white), count = decoded.changes.sum(axis=0).tolist(), len(decoded.images)
    of_all = f"of {counted(count, 'image')} in {folder}"
    notes = []
    if resized:
        note = f"resized {resized:,} {of_all} to {height}x{width}"
        if height != width:
            note += " (height x width)"
            swapped = (width, height)
            if resized == count and not read_image(Path(first), swapped)[1].resized:
                note += f"; --input-size {width}x{height} is their size"
        notes.append(note)
    if on_white:
        notes.append(f"laid {on_white:,} {of_all} on white: transparent")
    return notes


def _decode_once(
    files: Sequence[str], chosen: NDArray[np.int64], size: tuple[int, int], tell: Tell | None
) -> Decoded:
    """Return the chosen files decoded, from the cache of them or of all files if there is one."""
    identities = [_identify(file) for file in files]
    own = [identities[index] for index in chosen]
    if len(own) < len(files) and (everything := read_cache(_key(identities, size))):
        return Decoded(everything.images[chosen], everything.changes[chosen])
    key = _key(own, size)
    if cached := read_cache(key):
        return cached
    decoded = read_images([Path(files[index]) for index in chosen], size, tell)
    write_cache(key, decoded)
    return decoded


def _identify(file: str) -> str:
    """Return a line that changes with the file's content or place.

    The inode and the time of the last change of any kind differ even if size and time of writing
    do not: after two files, or two folders, changed places.
    """
    stat = os.stat(file)  # noqa: PTH116 - 60,000 of them in a fraction of a second
    times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
    return f"{file}\0{stat.st_size} {times} {stat.st_ino}"


def _key(identities: Sequence[str], size: tuple[int, int]) -> str:
    lines = [repr((DECODER, PIL.__version__, size)), *identities]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:32]


def _cut_test(
    classes: Classes, files: Sequence[str], labels: NDArray[np.int64], test_size: float
) -> tuple[NDArray[np.bool_], str]:
    """Return which files are for the test, bool (N), and the SHA-256 of their names.

    These are the files of each class whose names have the lowest hashes, so that one more or less
    moves one other at most, and none in other classes.
    """
    folders, counts = [*classes.values()], np.bincount(labels, minlength=len(classes))
    smallest, count = folders[counts.argmin()], int(counts.min())
    problem = f"class folder {smallest} has too few images to split ({count})"
    if count < 2:
        raise DataError(f"{problem}: each class needs two or more")
    if not 0 < round(count * test_size) < count:
        split = "the test" if round(count * test_size) == 0 else "training"
        raise SettingsError(f"{problem}: test_size {test_size:g} leaves none of them for {split}")
    is_test = np.zeros(len(files), dtype=bool)
    test_names: list[str] = []
    for label, (name, folder) in enumerate(classes.items()):
        indices, start = np.flatnonzero(labels == label).tolist(), len(str(folder)) + 1
        inside = {index: files[index][start:].replace(os.sep, "/") for index in indices}
        names = {index: unicodedata.normalize("NFC", path) for index, path in inside.items()}
        ranked = sorted(names, key=lambda index: _hash(names[index]))
        for_test = ranked[: round(len(names) * test_size)]
        is_test[for_test] = True
        test_names += [f"{name}/{names[index]}" for index in for_test]
    return is_test, _hash("\n".join(sorted(test_names)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
