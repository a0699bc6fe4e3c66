"""What a trained network says of image files."""

import glob
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cifar_cnn.data.images import Source, read_images
from cifar_cnn.errors import DataError
from cifar_cnn.inference.trained import load_trained
from cifar_cnn.runtime import global_state_kept

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""Endings of the files that are taken from a folder; a file named by itself may have any."""


IMAGES_AT_ONCE = 1000
"""Decoded images held in memory."""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Args:
        file: its path; `-` where it was not a file.
        resized: whether it had another size than the network's input.
        top: (class, probability), the most probable first.
    """

    file: str
    resized: bool
    top: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the image's entry in `predict --json`."""
        top = [{"class": name, "probability": probability} for name, probability in self.top]
        return {"file": self.file, "resized": self.resized, "top": top}


@dataclass(frozen=True)
class Predictions:
    """The predictions for all images, in the order they were given."""

    input_size: tuple[int, int]
    images: tuple[Prediction, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the document that `predict --json` prints."""
        return {"predictions": [image.as_dict() for image in self.images]}


@global_state_kept()
def predict(
    images: Iterable[Path | str | BinaryIO],
    checkpoint: Path | str,
    *,
    top: int = 3,
    overrides: Mapping[str, Any] | None = None,
) -> Predictions:
    """Classify images of any size and mode.

    Args:
        images: files, folders (with all images below them), patterns such as `"photos/*.png"`, or
            open binary files.
        checkpoint: `model.pt`, `best.pt` or `last.pt`.
        top: classes to report for each image.
        overrides: settings in place of the checkpoint's: model, precision, device …

    Raises:
        CheckpointError: the checkpoint is unusable.
        DataError: an image is missing or unreadable; the message names it.
        RequestError: a setting is invalid.
    """
    sources = find_images(images)
    trained = load_trained(checkpoint, overrides)
    settings, classes = trained.settings, trained.classes
    predictions: list[Prediction] = []
    for start in range(0, len(sources), IMAGES_AT_ONCE):
        batch = sources[start : start + IMAGES_AT_ONCE]
        pixels, resized = read_images(batch, settings.input_size)
        output = trained.log_probabilities(torch.from_numpy(pixels))
        values, indices = output.exp().topk(min(top, len(classes)))
        rows = zip(batch, resized, indices.tolist(), values.tolist(), strict=True)
        predictions += [
            Prediction(
                str(source) if isinstance(source, Path) else "-",
                was_resized,
                tuple((classes[i], p) for i, p in zip(row, probabilities, strict=True)),
            )
            for source, was_resized, row, probabilities in rows
        ]
    return Predictions(settings.input_size, tuple(predictions))


def find_images(given: Iterable[Path | str | BinaryIO]) -> list[Source]:
    """Return the image files that paths, folders and patterns name; open files as they are.

    Raises:
        DataError: there is no such file, or a folder or pattern has no images.
    """
    return list(itertools.chain.from_iterable(map(_find, given)))


def _find(given: Path | str | BinaryIO) -> list[Source]:
    if not isinstance(given, Path | str):
        return [given]
    path = Path(given)
    if path.is_dir():
        return _inside(path)
    if path.exists():
        return [path]
    if not glob.has_magic(str(given)):
        raise DataError(f"image {path} does not exist")
    found: list[Source] = []
    for match in sorted(glob.glob(str(given), recursive=True)):  # noqa: PTH207 - absolute too
        each = Path(match)
        if each.suffix.lower() in EXTENSIONS and each.is_file():
            found.append(each)
    if not found:
        raise DataError(f"no image matches {given}")
    return found


def _inside(folder: Path) -> list[Source]:
    named = (each for each in folder.rglob("*") if each.suffix.lower() in EXTENSIONS)
    found = sorted(each for each in named if each.is_file())
    if not found:
        raise DataError(f"folder {folder} has no images ({', '.join(EXTENSIONS)})")
    return [*found]
