"""Which files are images: one answer for training, evaluation and prediction."""

import os
from pathlib import Path

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
KINDS = "PNG, JPEG, WEBP, BMP or GIF"

_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of that name is an editor's or a system's, not the user's."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Say whether a file of that name is taken for an image where a folder is given."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(name)


def list_images(folder: Path | str) -> tuple[list[str], int]:
    """Return the images at any depth, in the order of torchvision's ImageFolder, and skipped files.

    Links to folders are followed, except where they lead back. Hidden files are not counted.

    Raises:
        OSError: a folder cannot be read.
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
