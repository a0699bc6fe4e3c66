"""How a folder of images is laid out: which of the folders in it hold what."""

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cifar_cnn.data.listing import KINDS, is_hidden
from cifar_cnn.errors import DataError, SettingsError

LAYOUT = (
    f"expected train/<class>/ and test/<class>/ or val/<class>/ with {KINDS} images below "
    "--data-dir, or class folders alone, which training splits by --test-size"
)
SPLITS = ("train", "val", "test")
OFFICIAL = ("cifar-10-batches-py", "data_batch_1")
"""Folder and first file of CIFAR-10's official archive, unpacked."""
_MEANT = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}

Classes = Mapping[str, Path]
"""The folder of each class, in the order of their names."""


@dataclass(frozen=True)
class Layout:
    """What is where.

    Args:
        root: the folder.
        splits: of train, val and test those that are there.
        unsplit: the classes where no folder is a split; else empty.
        misnamed: what to do about a folder that is meant for a split, and is not called so.
    """

    root: Path
    splits: Mapping[str, Classes]
    unsplit: Classes
    misnamed: str | None

    @property
    def evaluation(self) -> str:
        """The split to evaluate on: test, or val where that is there in its place."""
        return "val" if "val" in self.splits and "test" not in self.splits else "test"

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in the order of their labels."""
        return tuple(sorted({*self.unsplit}.union(*self.splits.values())))

    def classes(self, name: str, test_size: float) -> tuple[Path, Classes]:
        """Return the folder that holds a split, and that of each class, there or not.

        Raises:
            DataError: there is none.
        """
        if self.unsplit and not test_size:
            raise DataError(
                f"{self._unsplit}: put them below {self.root / name} to take them as {name} images"
            )
        if self.unsplit:
            return self.root, self.unsplit
        if name not in self.splits:
            advice = self.misnamed or LAYOUT
            raise DataError(f"folder {self.root / name} has no class folders: {advice}")
        folder, there = self.root / name, self.splits[name]
        return folder, {each: there.get(each, folder / each) for each in self.names}

    def check_for_training(self, test_size: float, val_size: int) -> None:
        """Hold the folder against how a run would split it.

        Raises:
            DataError: there is nothing to evaluate on beside the training images.
            SettingsError: a split would be cut where there is one.
        """
        if self.unsplit and not test_size:
            raise DataError(
                f"{self._unsplit}: train with --test-size 0.2, which makes a fifth of each class "
                "the test images, or put them below train/ and test/"
            )
        if "val" in self.splits and val_size:
            raise SettingsError(
                f"val_size {val_size} would cut validation images from the training images, and "
                f"{self.root} has val/: leave it out"
            )
        if "train" not in self.splits:
            return
        if test_size and len(self.splits) > 1:
            raise SettingsError(
                f"test_size {test_size:g} is for class folders alone, and {self.root} has "
                f"{self.evaluation}/: leave it out"
            )
        if len(self.splits) == 1:
            advice = self.misnamed or (
                f"add one of them, or cut the test images from it with --data-dir "
                f"{self.root / 'train'} --test-size 0.2"
            )
            raise DataError(f"{self.root} has neither test/ nor val/ beside train/: {advice}")

    @property
    def _unsplit(self) -> str:
        return f"{self.root} has class folders alone ({_some(self.unsplit)})"


def find_layout(root: Path) -> Layout:
    """Look which folders are in `root`; hidden ones are none.

    Raises:
        DataError: it is not there or cannot be read, or its splits have other classes.
    """
    if not root.is_dir():
        raise DataError(f"folder {root} does not exist: {LAYOUT}")
    try:
        splits = {name: found for name in SPLITS if (found := _subfolders(root / name))}
        unsplit = {} if splits else _subfolders(root)
        if unsplit.keys() <= {*SPLITS}:
            unsplit = {}
        misnamed = _misnamed(root)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    for folder in (root, root / OFFICIAL[0]):
        if not splits and (folder / OFFICIAL[1]).is_file():
            raise DataError(
                f"{folder} holds the files of CIFAR-10's archive, not class folders: use "
                f"--dataset cifar10 --data-dir {folder.parent}"
            )
    if misnamed and unsplit:
        raise DataError(f"{root} has neither train/ nor test/: {misnamed}")
    _check_classes(root, splits)
    return Layout(root, splits, unsplit, misnamed)


def _check_classes(root: Path, splits: Mapping[str, Classes]) -> None:
    """Raise a DataError unless there are training images of each class."""
    for name, classes in splits.items() if "train" in splits else ():
        missing = sorted(set(classes) - set(splits["train"]))
        if missing:
            raise DataError(f"class {missing[0]!r} is in {root / name} but not in train/")


def _misnamed(root: Path) -> str | None:
    """Return what `Layout` says of the first such folder."""
    for path in sorted(root.iterdir()):
        name = path.name.lower()
        meant = _MEANT.get(name, name)
        if meant in SPLITS and path.name != meant and _subfolders(path):
            return f"rename {path} to {meant}"
    return None


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


def _some(classes: Classes) -> str:
    names = [*classes]
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} … {names[-1]}"
