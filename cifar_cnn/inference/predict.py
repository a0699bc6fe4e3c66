"""What a trained network says of image files."""

import glob
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from cifar_cnn.data.images import Source, try_images
from cifar_cnn.data.layout import KINDS, is_image, list_images
from cifar_cnn.data.load import class_names
from cifar_cnn.documents import inference as documents
from cifar_cnn.errors import DataError, counted, verbs
from cifar_cnn.inference.metrics import is_answer
from cifar_cnn.inference.trained import TrainedNetwork, open_stored
from cifar_cnn.runtime import global_state_kept

MOST_AT_ONCE = 500
"""Images decoded before the next answers."""
PIXELS_AT_ONCE = 1 << 26


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Args:
        source: where it was read.
        resized: whether it had another size than the network's input.
        on_white: whether it was transparent, and laid on white.
        top: (class, probability), the most probable first.
    """

    source: Source
    resized: bool
    on_white: bool
    top: tuple[tuple[str, float], ...]

    @property
    def file(self) -> str:
        """Its path; `-` where it was not a file."""
        return _name(self.source)

    def as_dict(self) -> documents.ImagePrediction:
        """Return the image's entry in `predict --json`."""
        top: list[documents.ClassProbability] = [
            {"class": name, "probability": probability} for name, probability in self.top
        ]
        return {
            "file": self.file,
            "resized": self.resized,
            "on_white": self.on_white,
            "top": top,
        }


@dataclass(frozen=True)
class Unreadable:
    """An image that got no answer, and why."""

    file: str
    reason: str

    def as_dict(self) -> documents.UnreadableImage:
        """Return it as in `predict --json`."""
        return {"file": self.file, "reason": self.reason}


@dataclass(frozen=True)
class Predictions:
    """The predictions for all images, in the order they were given."""

    images: tuple[Prediction, ...]
    precision: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told about how the answers came about."""
        on_white = sum(image.on_white for image in self.images)
        notes = []
        if on_white:
            (are, were), of_all = verbs(on_white), counted(len(self.images), "image")
            notes.append(f"{on_white:,} of {of_all} {are} transparent and {were} laid on white")
        if self.precision != "fp32":
            notes.append(f"{self.precision} arithmetic: exported files compute in fp32")
        return tuple(notes)

    def as_dict(self) -> documents.Predictions:
        """Return the document that `predict --json` prints."""
        return {
            "predictions": [image.as_dict() for image in self.images],
            "precision": self.precision,
        }


@global_state_kept()
def predict(
    images: Iterable[Path | str | BinaryIO],
    checkpoint: Path | str,
    *,
    top: int = 3,
    overrides: Mapping[str, Any] | None = None,
    normalization: str | None = None,
) -> Predictions:
    """Classify images of any size and mode.

    Args:
        images: files, folders (with all images below them), patterns such as `"photos/*.png"`, or
            open binary files.
        checkpoint: `model.pt`, `best.pt`, `last.pt`, or a bare state dict, whose classes are those
            of the setting `dataset`.
        top: classes to report for each image.
        overrides: settings in place of the checkpoint's: model, precision, device … The precision
            is fp32 unless given, as in exported files.
        normalization: of a bare state dict, as for `evaluate`.

    Raises:
        CheckpointError: the checkpoint is unusable.
        DataError: an image is missing or unreadable; the message names it.
        RequestError: a setting is invalid.
    """
    trained = load_predictor(checkpoint, overrides, normalization)
    return Predictions(tuple(predictions(trained, images, top=top)), trained.precision)


@global_state_kept()
def load_predictor(
    checkpoint: Path | str,
    overrides: Mapping[str, Any] | None = None,
    normalization: str | None = None,
) -> TrainedNetwork:
    """Load a network for `answers`, in fp32 unless `overrides` say otherwise: see `predict`.

    Raises:
        CheckpointError: the checkpoint is unusable.
        RequestError: a setting is invalid.
    """
    stored = open_stored(checkpoint, {"precision": "fp32", **(overrides or {})}, normalization)
    return stored.build(None if stored.checkpoint else class_names(stored.settings))


def answers(
    trained: TrainedNetwork, images: Iterable[Path | str | BinaryIO], *, top: int = 3
) -> Iterator[Prediction | Unreadable]:
    """Yield what the network says of each image as soon as it is known, in the order given."""
    height, width = trained.settings.input_size
    at_once = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (height * width)))
    sources = itertools.chain.from_iterable(map(_find, images))
    while batch := list(itertools.islice(sources, at_once)):
        yield from _answer(trained, batch, top)


def predictions(
    trained: TrainedNetwork, images: Iterable[Path | str | BinaryIO], *, top: int
) -> Iterator[Prediction]:
    """Yield as `answers` does, of images that can all be read.

    Raises:
        DataError: one cannot; the message names it.
    """
    for answer in answers(trained, images, top=top):
        if isinstance(answer, Unreadable):
            raise DataError(answer.reason)
        yield answer


@global_state_kept()
def _answer(
    trained: TrainedNetwork, batch: list[Source | Unreadable], count: int
) -> list[Prediction | Unreadable]:
    sources = [each for each in batch if not isinstance(each, Unreadable)]
    pixels, read = try_images(sources, trained.settings.input_size)
    good = [not isinstance(each, DataError) for each in read]
    found = iter(_top(trained, torch.from_numpy(pixels[good]), count) if any(good) else [])
    outcomes = iter(read)
    said: list[Prediction | Unreadable] = []
    for each in batch:
        if isinstance(each, Unreadable):
            said.append(each)
            continue
        outcome = next(outcomes)
        if isinstance(outcome, DataError):
            said.append(Unreadable(_name(each), str(outcome)))
        elif top := next(found):
            said.append(Prediction(each, outcome.resized, outcome.on_white, top))
        else:
            name = _name(each)
            said.append(Unreadable(name, f"the network's answer for {name} is NaN"))
    return said


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path) else "-"


def _top(
    trained: TrainedNetwork, images: Tensor, count: int
) -> list[tuple[tuple[str, float], ...]]:
    """Return the classes of each image with their probabilities; none where an answer is NaN."""
    classes, output = trained.classes, trained.log_probabilities(images)
    values, indices = output.exp().topk(min(count, len(classes)))
    columns = (indices.tolist(), values.tolist(), is_answer(output).tolist())
    return [
        tuple((classes[i], p) for i, p in zip(row, probabilities, strict=True)) if answered else ()
        for row, probabilities, answered in zip(*columns, strict=True)
    ]


def _find(given: Path | str | BinaryIO) -> Iterator[Source | Unreadable]:
    """Yield the image files that a path, folder or pattern names; an open file as it is."""
    if not isinstance(given, Path | str):
        yield given
        return
    path = Path(given)
    if path.is_dir():
        yield from _inside(path)
    elif path.exists() or path.is_symlink():
        yield path
    elif not glob.has_magic(str(given)):
        yield Unreadable(str(path), f"image {path} does not exist")
    else:
        matches = map(Path, sorted(glob.glob(str(given), recursive=True)))  # noqa: PTH207 - absolute too
        found = [each for each in matches if is_image(each.name) and not each.is_dir()]
        yield from found
        if not found:
            yield Unreadable(str(given), f"no image matches {given}")


def _inside(folder: Path) -> Iterator[Source | Unreadable]:
    try:
        images, _ = list_images(folder)
    except OSError as error:
        reason = f"{error.filename} cannot be read: {error.strerror}"
        yield Unreadable(str(folder), reason)
        return
    yield from map(Path, images)
    if not images:
        yield Unreadable(str(folder), f"folder {folder} has no images ({KINDS})")
