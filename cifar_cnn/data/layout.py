"""Find image files, and the class folders of each split in a folder."""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cifar_cnn.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
KINDS = "PNG, JPEG, WEBP, BMP or GIF"
_SYSTEM_FILES = {*("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin")}

LAYOUT = (
    f"expected train/<class>/ and test/<class>/ or val/<class>/ with {KINDS} images below "
    "--data-dir, or class folders alone, which training splits by --test-size"
)
SPLITS = ("train", "val", "test")
OFFICIAL = ("cifar-10-batches-py", "data_batch_1")
"""Folder and first file of CIFAR-10's official archive, unpacked."""
_SYNONYMS = {"training": "train", "testing": "test"} | dict.fromkeys(
    ("valid", "validation", "dev"), "val"
)

Classes = Mapping[str, Path]
"""The folder of each class, in the order of their names."""


@contextmanager
def readable_folders() -> Iterator[None]:
    """Raise a DataError that names the file or folder that the system cannot read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of that name belongs to an editor or a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def is_image(name: str) -> bool:
    """Return whether a file of that name in a folder counts as an image."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(name)


@readable_folders()
def list_images(folder: Path) -> tuple[list[str], int]:
    """Return the images at any depth, in torchvision's ImageFolder order, and how many others.

    Symlinks to folders are followed unless they lead back; hidden files are ignored.
    """

    def stop(error: OSError) -> None:
        raise error

    def leads_down(path: Path) -> bool:
        return not path.is_symlink() or not path.parent.resolve().is_relative_to(path.resolve())

    files: list[tuple[str, list[str]]] = []
    for root, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        folders[:] = [
            each for each in folders if not is_hidden(each) and leads_down(Path(root, each))
        ]
        files.append((root, sorted(name for name in names if not is_hidden(name))))
    images = [
        f"{root}{os.sep}{name}" for root, names in sorted(files) for name in filter(is_image, names)
    ]
    return images, sum(len(names) for _, names in files) - len(images)


@readable_folders()
def find_class_folders(root: Path) -> Mapping[str, Classes]:
    """Return the class folders of each of SPLITS in `root`; if it has no splits, its own as ``""``.

    Raises a DataError if there are none, or if a class has no folder in train/.
    """
    if not root.is_dir():
        raise DataError(f"folder {root} does not exist: {LAYOUT}")
    splits = {name: classes for name in SPLITS if (classes := _class_folders(root / name))}
    if splits:
        for name in splits if "train" in splits else ():
            if missing := sorted({*splits[name]} - {*splits["train"]}):
                raise DataError(f"class {missing[0]!r} is in {root / name} but not in train/")
        return splits
    for folder in (root, root / OFFICIAL[0]):
        if (folder / OFFICIAL[1]).is_file():
            raise DataError(
                f"{folder} holds the files of CIFAR-10's archive, not class folders: use "
                f"--dataset cifar10 --data-dir {folder.parent}"
            )
    unsplit, advice = _class_folders(root), describe_misnamed(root)
    if not unsplit.keys() - {*SPLITS}:
        raise DataError(f"folder {root} has no class folders: {advice or LAYOUT}")
    if advice:
        raise DataError(f"{root} has neither train/ nor test/: {advice}")
    return {"": unsplit}


def describe_misnamed(root: Path) -> str | None:
    """Return advice about the folders whose names are almost a split's, if there are any."""
    renames = []
    for path in sorted(root.iterdir()):
        name = path.name.lower()
        split = _SYNONYMS.get(name, name)
        if split in SPLITS and split != path.name and _class_folders(path):
            renames.append(f"{path} to {split}")
    return f"rename {' and '.join(renames)}" if renames else None


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the folders in a folder by their names in Unicode's form NFC; none if it is a file."""
    classes: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_hidden(path.name) or not path.is_dir():
            continue
        name = unicodedata.normalize("NFC", path.name)
        if name.encode(errors="ignore") != os.fsencode(name):
            raise DataError(f"class folder {path} has a name that is not UTF-8: rename it")
        if name in classes:
            raise DataError(f"two class folders in {folder} are called {name!r}: rename one")
        classes[name] = path
    return dict(sorted(classes.items()))
