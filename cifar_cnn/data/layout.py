"""Which files are images, and which of the folders in a folder hold what."""

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cifar_cnn.errors import DataError, SettingsError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
KINDS = "PNG, JPEG, WEBP, BMP or GIF"
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}

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


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of that name belongs to an editor or a system."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Return whether a file of that name in a folder counts as an image."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(name)


def list_images(folder: Path | str) -> tuple[list[str], int]:
    """Return the images at any depth, in torchvision's ImageFolder order, and how many others.

    Symlinks to folders are followed unless they lead back; hidden files are ignored.
    """
    found: list[tuple[str, list[str]]] = []
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [each for each in folders if not is_hidden(each) and _goes_down(root, each)]
        found.append((root, sorted(name for name in names if not is_hidden(name))))
    files = [(name, f"{root}{os.sep}{name}") for root, names in sorted(found) for name in names]
    images = [path for name, path in files if is_image(name)]
    return images, len(files) - len(images)


def _refuse(error: OSError) -> None:
    raise error


def _goes_down(root: str, name: str) -> bool:
    folder = Path(root, name)
    return not folder.is_symlink() or not Path(root).resolve().is_relative_to(folder.resolve())


@dataclass(frozen=True)
class Layout:
    """The folders in a folder."""

    root: Path
    splits: Mapping[str, Classes]  # those of SPLITS that have a folder
    unsplit: Classes  # the class folders if no folder is a split, else empty
    misnamed: str | None  # advice about a folder whose name is almost a split's

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in the order of their labels."""
        return tuple(sorted({*self.unsplit}.union(*self.splits.values())))

    def classes(self, name: str, test_size: float) -> tuple[Path, Classes]:
        """Return the folder of a split, and those of all its classes, which may be missing."""
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
        """Raise an error if there are no images to evaluate on, or if a split is cut needlessly."""
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
                f"{'test' if 'test' in self.splits else 'val'}/: leave it out"
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
    """Return the layout of `root`, or raise a DataError if it is unusable."""
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
    """Raise a DataError unless each class has a folder in train/."""
    for name, classes in splits.items() if "train" in splits else ():
        missing = sorted(set(classes) - set(splits["train"]))
        if missing:
            raise DataError(f"class {missing[0]!r} is in {root / name} but not in train/")


def _misnamed(root: Path) -> str | None:
    """Return advice about the first folder whose name is almost a split's, if there is one."""
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
