"""How good a checkpoint is on a split of a data set."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from cifar_cnn.data.dataset import Progress, Split
from cifar_cnn.data.load import load_split
from cifar_cnn.errors import CheckpointError, DataError, first_few
from cifar_cnn.inference.metrics import Evaluation, is_answer, judge
from cifar_cnn.inference.trained import answer_images, open_trained
from cifar_cnn.results import NotInJson, Result
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.storage.files import write_result
from cifar_cnn.storage.network import Network


class JudgedImage(NamedTuple):
    """One image: its class, the predicted class, and the probability of the latter.

    If the network's answer is NaN, `predicted` is empty and the probability NaN.
    """

    file: str
    true: str
    predicted: str
    probability: float
    correct: bool


class Evaluated(Result):
    """The network of an evaluation, and its images."""

    checkpoint: str
    model: str
    dataset: str
    split: str


class CheckpointEvaluation(Evaluation, Evaluated):
    """The measures of a checkpoint.

    `test_size` is the fraction that was cut from class folders for the test; None if none was.
    """

    tta: bool
    test_size: NotInJson[float | None]
    notes: NotInJson[tuple[str, ...]]
    images: NotInJson[tuple[JudgedImage, ...]]


@global_state_kept()
def evaluate(
    file: Path | str,
    *,
    split: str | None = None,
    tta: bool = False,
    overrides: Mapping[str, Any] | None = None,
    normalization: str | None = None,
    progress: Progress | None = None,
) -> CheckpointEvaluation:
    """Evaluate a checkpoint, an ONNX file, or a bare state dict, on a split.

    Args:
        file: `model.pt`, `best.pt`, `last.pt`, an ONNX file, or another program's state dict.
        split: `train` and `val` are those of the checkpoint's own run; `test` unless said, or `val`
            where a folder of images has that in its place.
        tta: average each image's probabilities with those of its mirror image.
        overrides: settings in place of the checkpoint's: model, dataset, data_dir, limit_eval …
        normalization: of weights from elsewhere: `cifar10` unless said, `dataset` for that of the
            training images, or MEAN/STD: `0.5/0.5`, or R,G,B/R,G,B, for colors in 0–1.
        progress: told how the decoding of image files, or a download, goes.

    Raises:
        CheckpointError: the file is unusable, or does not fit the network or the data.
        DataError: the images are missing or unusable.
        RequestError: a setting is invalid, or the split does not exist.
    """
    network = open_trained(file, overrides, normalization=normalization, progress=progress)
    settings = network.settings
    data = load_images(network, split, settings.limit_eval, progress)
    output = answer_images(network, data.images, tta=tta)
    return CheckpointEvaluation(
        checkpoint=str(network.file),
        model=settings.model,
        dataset=settings.dataset,
        split=data.name,
        test_size=settings.test_size if data.test_sha256 else None,
        tta=tta,
        **vars(judge(output, data)),
        notes=(*network.notes, *data.notes, *notes_on(data, network)),
        images=judge_images(data, output),
    )


def load_images(
    network: Network, split: str | None, limit: int | None, progress: Progress | None
) -> Split:
    """Return a split of the network's data set, the test images by default, for its own classes."""
    settings, own, stored = network.settings, network.classes, network.checkpoint
    try:
        data = load_split(settings, split, limit, progress)
    except DataError as error:
        folder = settings.data_dir
        is_own = stored is not None and folder == stored.settings.data_dir
        if not is_own or folder.is_absolute() or folder.exists():
            raise
        raise DataError(
            f"{error}; {network.file} was trained with it, from another folder perhaps: "
            "--data-dir says where it is from here"
        ) from error
    if {*data.classes} < {*own}:
        data = data.among(own)
    if data.classes != own:
        raise CheckpointError(
            f"{network.file} was trained on the classes {first_few(own)}; "
            f"the data set has {first_few(data.classes)}"
        )
    return data


def notes_on(data: Split, network: Network) -> tuple[str, ...]:
    """Return a warning where `test_size` makes other files the test images than in training."""
    trained = network.checkpoint and network.checkpoint.test_sha256
    if not trained or data.test_sha256 in {None, trained}:
        return ()
    settings = network.settings
    return (
        f"the files in {settings.data_dir} that test_size {settings.test_size:g} "
        "makes the test images are not those of the training: some may have been trained on",
    )


def write_predictions(images: Iterable[JudgedImage], path: Path) -> None:
    """Write a CSV file with a line for each image; replace an existing file."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(JudgedImage._fields)
    for each in images:
        correct = "true" if each.correct else "false"
        rows.writerow([*each[:3], f"{each.probability:.6f}", correct])
    write_result(path, os.fsencode(text.getvalue()))


def judge_images(data: Split, log_probabilities: Tensor) -> tuple[JudgedImage, ...]:
    """Compare each image's log-probabilities (N, classes) with its label."""
    confidence, predicted = log_probabilities.exp().max(dim=1)
    predicted[~is_answer(log_probabilities)] = -1
    columns = (data.files, data.labels.tolist(), predicted.tolist(), confidence.tolist())
    names = (*data.classes, "")
    return tuple(
        JudgedImage(file, names[true], names[answer], probability, true == answer)
        for file, true, answer, probability in zip(*columns, strict=True)
    )
