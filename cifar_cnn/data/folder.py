"""Images in folders, one for each class, decoded once and cached."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from cifar_cnn.data.cache import read_cache, write_cache
from cifar_cnn.data.dataset import Loading, Split, balanced, describe_lacking
from cifar_cnn.data.images import DECODER, read_image, read_images
from cifar_cnn.data.layout import Classes, find_layout
from cifar_cnn.data.listing import KINDS, list_images
from cifar_cnn.errors import DataError, SettingsError, counted, verbs


class _Decoded(NamedTuple):
    """Images uint8 (N, 3, H, W), and bool (N): which of them were changed."""

    images: NDArray[np.uint8]
    resized: NDArray[np.bool_]
    on_white: NDArray[np.bool_]


def load_folder(
    root: Path,
    name: str,
    size: tuple[int, int],
    *,
    test_size: float = 0.0,
    limit: int | None = None,
    loading: Loading | None = None,
) -> Split:
    """Load the `train`, `val` or `test` images below `root`, resized to `size` (H, W).

    Classes are the sub-folders in alphabetical order, their names in Unicode's form NFC, and images
    lie at any depth in them, as in torchvision's ImageFolder. Decoded images are cached, keyed by
    the files' names, sizes, times and numbers in the file system.

    Args:
        root: with a folder for each split, or those of the classes alone.
        name: of the split.
        size: of the images that are returned.
        test_size: fraction of the images that are `test` where there are class folders alone, of
            each class the same; the files' names decide which, and one more changes one at most.
        limit: as many images as `Split.limited` leaves of them; no others are decoded.
        loading: is told how it goes.

    Raises:
        DataError: a folder, class or image is missing or unreadable; the message names it.
        SettingsError: `test_size` does not go with the folder, or leaves a class without images.
    """
    layout = find_layout(root)
    unused = [f"{layout.misnamed}, or it is not used"] if layout.misnamed else []
    folder, classes = layout.classes(name, test_size)
    try:
        files, labels, skipped = _list(classes)
        _check_some(classes, labels, name)
        chosen, digest = np.arange(len(files)), None
        if layout.unsplit:
            is_test, digest = _cut_test(classes, files, labels, test_size)
            chosen = np.flatnonzero(is_test == (name == "test"))
        chosen = chosen[balanced(labels[chosen], limit)]
        told = loading and partial(loading, "decoding", folder)
        decoded = _decode_once(files, chosen, size, told)
        is_swapped = bool(decoded.resized.all()) and _is_swapped(files[chosen[0]], size)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    return Split(
        torch.from_numpy(decoded.images),
        torch.from_numpy(labels[chosen]),
        tuple(classes),
        (
            *unused,
            *describe_lacking(classes, labels, name),
            *_notes(folder, size, decoded, skipped, is_swapped=is_swapped),
        ),
        tuple(files[index] for index in chosen),
        name,
        digest,
    )


def _list(classes: Classes) -> tuple[list[str], NDArray[np.int64], int]:
    """Return all files in order, their labels, and how many others were skipped."""
    listed = [_images_of(folder) for folder in classes.values()]
    labels = np.repeat(np.arange(len(classes)), [len(images) for images, _ in listed])
    files = [file for images, _ in listed for file in images]
    return files, labels, sum(skipped for _, skipped in listed)


def _images_of(folder: Path) -> tuple[list[str], int]:
    return list_images(folder) if folder.is_dir() else ([], 0)


def _check_some(classes: Classes, labels: NDArray[np.int64], name: str) -> None:
    """Raise a DataError for a class without training images, or where all are without images."""
    lacking = [each for label, each in enumerate(classes.values()) if label not in labels]
    if lacking and (name == "train" or len(lacking) == len(classes)):
        raise DataError(f"class folder {lacking[0]} has no {KINDS} images")


def _is_swapped(file: str, size: tuple[int, int]) -> bool:
    """Return whether an image has the width for its height, and the other way round."""
    height, width = size
    return height != width and not read_image(Path(file), (width, height))[1].resized


def _notes(
    folder: Path, size: tuple[int, int], decoded: _Decoded, skipped: int, *, is_swapped: bool
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
    files: Sequence[str],
    chosen: NDArray[np.int64],
    size: tuple[int, int],
    told: Callable[[int, int], None] | None,
) -> _Decoded:
    """Return the chosen ones of the files; those of all are looked for in the cache, too."""
    identities = [_identity(file) for file in files]
    own = [identities[index] for index in chosen]
    if len(own) < len(files) and (everything := _cached(_key(identities, size))):
        images, resized, on_white = everything
        return _Decoded(images[chosen], resized[chosen], on_white[chosen])
    key = _key(own, size)
    if cached := _cached(key):
        return cached
    images, changes = read_images([Path(files[index]) for index in chosen], size, told)
    resized, on_white = np.array(changes).T
    decoded = _Decoded(images, resized, on_white)
    write_cache(key, decoded._asdict())
    return decoded


def _cached(key: str) -> _Decoded | None:
    found = read_cache(key)
    if found is None:
        return None
    return _Decoded(found["images"], found["resized"].view(bool), found["on_white"].view(bool))


def _key(identities: Sequence[str], size: tuple[int, int]) -> str:
    lines = [repr((DECODER, PIL.__version__, size)), *identities]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:32]


def _identity(file: str) -> str:
    """Return a line that any change of content or place makes another one.

    The number of a file and the time of its last change of any kind catch what keeps size and time
    of writing: two files, or two folders, that changed places.
    """
    found = os.stat(file)  # noqa: PTH116 - 60,000 of them in a fraction of a second
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{file}\0{found.st_size} {times} {found.st_ino}"


def _cut_test(
    classes: Classes, files: Sequence[str], labels: NDArray[np.int64], test_size: float
) -> tuple[NDArray[np.bool_], str]:
    """Choose that fraction of each class whose names in its folder have the lowest hashes.

    Returns which files are for the test, bool (N), and the SHA-256 of their names in all classes.
    One file more or less moves one other at most, and none in other classes.

    Raises:
        DataError: a class has a single image.
        SettingsError: `test_size` leaves a class no image for the test, or none for training.
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
