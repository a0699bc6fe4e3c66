"""Collect what a run's report shows, with notes on what had to be left out."""

import dataclasses
import io
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.receptive_field import receptive_field
from cifar_cnn.analysis.results import ReceptiveField, Summary
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.data.dataset import Progress, Split
from cifar_cnn.data.load import load_trained_on
from cifar_cnn.errors import UserError
from cifar_cnn.inference.evaluate import JudgedImage, judge_images, load_images, notes_on
from cifar_cnn.inference.metrics import Evaluation, calibrate, is_answer, judge
from cifar_cnn.inference.trained import answer_images, open_trained
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import move
from cifar_cnn.report import charts, curves, mosaics
from cifar_cnn.runtime import CPU
from cifar_cnn.storage.naming import LAST, MODEL
from cifar_cnn.storage.network import Network
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.history import SPLIT_NAMES
from cifar_cnn.training.record import RunRecord
from cifar_cnn.training.run_files import PICTURE_OF

MAX_MISTAKES = 24


class Picture(NamedTuple):
    """A picture of a report: its file, its caption, and its panels, PNGs of one height."""

    file: str
    caption: str
    panels: Sequence[bytes]

    @property
    def content(self) -> bytes:
        """The panels beside one another, as the file has them."""
        return charts.join_panels(self.panels)

    @property
    def sources(self) -> list[tuple[str, float]]:
        """Each panel as a page has it, and its width by its height."""
        images = [(panel, Image.open(io.BytesIO(panel))) for panel in self.panels]
        return [
            (f"data:image/png;base64,{b64encode(panel).decode()}", image.width / image.height)
            for panel, image in images
        ]


@dataclasses.dataclass
class Contents:
    """Pictures by their keys in PICTURE_OF, results, and notes on what is left out and why.

    `split` is `val` where a folder of images has that in place of the test images; `mistakes` are
    the most confident ones, with their files below the data folder.
    """

    run: RunRecord
    pictures: dict[str, Picture] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    split: str = ""
    evaluation: Evaluation | None = None
    mistakes: Sequence[JudgedImage] = ()
    summary: Summary | None = None
    field: ReceptiveField | None = None

    def add_picture(self, key: str, caption: str, *panels: bytes) -> None:
        """Add a picture of one or more panels."""
        self.pictures[key] = Picture(PICTURE_OF[key], caption, panels)

    @contextmanager
    def optional_part(self) -> Iterator[None]:
        """Turn an error into a note."""
        try:
            with guarded("this part of the report fails", UserError):
                yield
        except UserError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))


def collect_contents(
    record: RunRecord,
    others: Sequence[RunRecord],
    overrides: Mapping[str, Any],
    progress: Progress | None,
    *,
    reference: bool,
) -> Contents:
    """Draw and compute all that the run's files allow."""
    contents = Contents(record)
    _add_curves(contents, others, reference=reference)
    with contents.optional_part():
        files = [record.run / name for name in (MODEL, LAST) if (record.run / name).exists()]
        if not files:
            raise UserError("there is no checkpoint yet")
        network = open_trained(files[0], overrides, allow_bare=False)
        with contents.optional_part():
            _add_evaluation(contents, network, progress)
        _add_analysis(contents, network)
    return contents


def _add_curves(contents: Contents, others: Sequence[RunRecord], *, reference: bool) -> None:
    record, notes = contents.run, contents.notes
    if not record.history:
        notes.append("no epoch has ended yet")
        return
    panels = curves.draw_curves(record.history)
    contents.add_picture("curves", "loss and accuracy by epoch", *panels)
    compared: dict[str, curves.Curve] = {}
    for each in (record, *others):
        if each.history:
            name = str(each.run) if each.name in compared else each.name
            compared[name] = curves.evaluation_curve(each.history)
        else:
            notes.append(f"{each.run} has no finished epoch to compare")
    if reference:
        compared["reference log"] = curves.reference_curve()
    if len({curve.split for curve in compared.values()}) > 1:
        splits = ", ".join(f"{SPLIT_NAMES[c.split]} of {name}" for name, c in compared.items())
        notes.append(f"the curves that are compared are not of one split: {splits}")
    if len(compared) > 1:
        caption = f"evaluation by epoch of {', '.join(compared)}"
        contents.add_picture("comparison", caption, *curves.draw_comparison(compared))


def _add_evaluation(contents: Contents, network: Network, progress: Progress | None) -> None:
    """Add answers on the test images, as many as the run was evaluated on, and the inputs."""
    assert network.checkpoint is not None
    data = load_images(network, None, network.checkpoint.settings.limit_eval, progress)
    output = answer_images(network, data.images)
    answered = is_answer(output)
    evaluation = contents.evaluation = judge(output, data)
    contents.split = data.name
    contents.notes += notes_on(data, network)
    calibration = calibrate(output[answered], data.labels[answered])
    reliability = charts.draw_reliability(calibration, evaluation.calibration_error)
    confusion = charts.draw_confusion(evaluation)
    contents.add_picture("confusion", "true class (row) by predicted (column)", confusion)
    contents.add_picture("classes", "accuracy of each class", charts.draw_classes(evaluation))
    contents.add_picture("reliability", "accuracy by confidence", *reliability)
    _add_mistakes(contents, network, data, judge_images(data, output))
    if filters := mosaics.draw_filters(network.model):
        contents.add_picture("filters", "weights of the first convolution as colors", filters)
    with contents.optional_part():
        train, _ = load_trained_on(network.settings, progress)
        batches = TrainingBatches(network.settings, train, CPU, network.normalization)
        batch = mosaics.draw_batch(batches.at(epoch=0, index=0)[0], network.normalization)
        contents.add_picture("batch", "images of the first training step, augmented", batch)


def _add_mistakes(
    contents: Contents, network: Network, data: Split, judged: Sequence[JudgedImage]
) -> None:
    wrong = [i for i, each in enumerate(judged) if each.predicted and not each.correct]
    wrong = sorted(wrong, key=lambda i: -judged[i].probability)[:MAX_MISTAKES]
    if not wrong:
        return
    images, root = data.images[torch.tensor(wrong)].numpy(), network.settings.data_dir
    mistakes = contents.mistakes = [
        each._replace(file=Path(each.file).relative_to(root).as_posix())
        if Path(each.file).is_relative_to(root)
        else each
        for each in (judged[i] for i in wrong)
    ]
    caption = "wrong answers: true class, predicted class, file; the surest first"
    contents.add_picture("mistakes", caption, mosaics.draw_mistakes(images, mistakes))
    with contents.optional_part():
        explanation = mosaics.Explanation(network)
        heat = explanation.heat(images, [each.predicted for each in mistakes])
        caption = f"what speaks for the predicted class: {explanation.place}"
        heated = mosaics.draw_mistakes(images, mistakes, heat)
        contents.add_picture("grad_cam", caption, heated)


def _add_analysis(contents: Contents, network: Network) -> None:
    model, size = move(network.model, CPU), network.settings.input_size
    with contents.optional_part():
        contents.summary = summarize(model, size, budget=read_budget({}))
    with contents.optional_part():
        contents.field = receptive_field(model, size)
        caption = "receptive field after each layer with a window, in pixels"
        contents.add_picture("field", caption, charts.draw_receptive_field(contents.field))
