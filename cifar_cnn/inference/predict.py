"""Classify image files with a trained network."""

import glob
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import torch
from pydantic import Field
from torch import Tensor

from cifar_cnn.data.images import Changes, Source, try_images
from cifar_cnn.data.layout import KINDS, is_image, list_images
from cifar_cnn.errors import DataError, counted
from cifar_cnn.inference.metrics import is_answer
from cifar_cnn.inference.trained import answer_images, open_trained
from cifar_cnn.results import IfGiven, NotInJson, Result, Share
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.storage.network import Network

MOST_AT_ONCE = 500
"""Images per inference batch."""
PIXELS_AT_ONCE = 1 << 26
FP32 = {"precision": "fp32"}
"""Arithmetic of a network that predicts, unless another is given: as in exported files."""


class ClassProbability(Result):
    """A class and its probability."""

    name: Annotated[str, Field(alias="class")]
    probability: Share


class Prediction(Result):
    """The most probable classes of one image, the most probable first.

    `resized` says whether it had another size than the network's input, `on_white` whether it was
    transparent, and laid on white. `source` is where it was read, `file` its path, or `-`.
    """

    file: str
    resized: bool
    on_white: bool
    top: tuple[ClassProbability, ...]
    source: NotInJson[Any]


class Unreadable(Result):
    """An image that got no answer, and why."""

    file: str
    reason: str


class Predictions(Result):
    """Predictions in the order of the images, and the images that got none."""

    predictions: tuple[Prediction, ...]
    precision: str
    explain: IfGiven[Path] = None
    error: IfGiven[str] = None
    exit_status: IfGiven[int] = None
    unreadable: IfGiven[tuple[Unreadable, ...]] = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told about how the answers came about."""
        on_white = sum(image.on_white for image in self.predictions)
        notes = []
        if on_white:
            images = counted(len(self.predictions), "image")
            notes.append(f"laid {on_white:,} of {images} on white: transparent")
        if self.precision != "fp32":
            notes.append(f"{self.precision} arithmetic: exported files compute in fp32")
        return tuple(notes)


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
    overrides = FP32 | dict(overrides or {})
    network = open_trained(checkpoint, overrides, normalization=normalization)
    answers = tuple(classify_readable(network, images, top=top))
    return Predictions(predictions=answers, precision=network.precision)


def classify(
    network: Network, images: Iterable[Path | str | BinaryIO], *, top: int = 3
) -> Iterator[Prediction | Unreadable]:
    """Yield the answer for each image, in their order, as soon as its batch is done."""
    height, width = network.settings.input_size
    at_once = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (height * width)))
    sources = itertools.chain.from_iterable(map(_find_images, images))
    while batch := list(itertools.islice(sources, at_once)):
        yield from _classify_batch(network, batch, top)


def classify_readable(
    network: Network, images: Iterable[Path | str | BinaryIO], *, top: int
) -> Iterator[Prediction]:
    """Yield as `classify` does, but raise a DataError for an unreadable image."""
    for answer in classify(network, images, top=top):
        if isinstance(answer, Unreadable):
            raise DataError(answer.reason)
        yield answer


@global_state_kept()
def _classify_batch(
    network: Network, batch: list[Source | Unreadable], count: int
) -> list[Prediction | Unreadable]:
    sources = [each for each in batch if not isinstance(each, Unreadable)]
    pixels, outcomes = try_images(sources, network.settings.input_size)
    readable = [not isinstance(each, DataError) for each in outcomes]
    tops = iter(
        _rank_classes(network, torch.from_numpy(pixels[readable]), count) if any(readable) else []
    )
    answers = (
        _make_answer(source, outcome, () if isinstance(outcome, DataError) else next(tops))
        for source, outcome in zip(sources, outcomes, strict=True)
    )
    return [each if isinstance(each, Unreadable) else next(answers) for each in batch]


def _make_answer(
    source: Source, outcome: Changes | DataError, top: tuple[ClassProbability, ...]
) -> Prediction | Unreadable:
    file = str(source) if isinstance(source, Path) else "-"
    if isinstance(outcome, DataError):
        return Unreadable(file=file, reason=str(outcome))
    if not top:
        return Unreadable(file=file, reason=f"the network's answer for {file} is NaN")
    return Prediction(file=file, top=top, source=source, **outcome._asdict())


def _rank_classes(
    network: Network, images: Tensor, count: int
) -> list[tuple[ClassProbability, ...]]:
    """Return the classes of each image with their probabilities; none where an answer is NaN."""
    classes, output = network.classes, answer_images(network, images)
    values, indices = output.exp().topk(min(count, len(classes)))
    columns = (indices.tolist(), values.tolist(), is_answer(output).tolist())
    return [
        tuple(
            ClassProbability(name=classes[i], probability=probability)
            for i, probability in zip(row, probabilities, strict=True)
            if answered
        )
        for row, probabilities, answered in zip(*columns, strict=True)
    ]


def _find_images(name: Path | str | BinaryIO) -> Iterator[Source | Unreadable]:
    """Yield the image files that a path, folder or pattern names; an open file as it is."""
    if not isinstance(name, Path | str):
        yield name
        return
    path, files = Path(name), []
    if path.is_dir():
        problem = f"folder {path} has no images ({KINDS})"
        try:
            files = [Path(file) for file in list_images(path)[0]]
        except DataError as error:
            problem = str(error)
    elif path.exists() or path.is_symlink():
        files = [path]
    elif glob.has_magic(str(name)):
        problem = f"no image matches {name}"
        matches = map(Path, sorted(glob.glob(str(name), recursive=True)))  # noqa: PTH207 - absolute too
        files = [each for each in matches if is_image(each.name) and not each.is_dir()]
    else:
        problem = f"image {path} does not exist"
    yield from files
    if not files:
        yield Unreadable(file=str(name), reason=problem)
