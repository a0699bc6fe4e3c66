"""The contents of a run's report, with notes on the parts that could not be made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.receptive_field import receptive_field
from cifar_cnn.analysis.results import ReceptiveField, Summary
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.data.dataset import Progress
from cifar_cnn.data.load import load_trained_on
from cifar_cnn.errors import UserError
from cifar_cnn.inference.examine import Examination, examine
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import move
from cifar_cnn.report import charts, mosaics
from cifar_cnn.report.curves import (
    Curve,
    draw_comparison,
    draw_curves,
    evaluation_curve,
    reference_curve,
)
from cifar_cnn.report.figures import Picture
from cifar_cnn.storage.naming import LAST, MODEL
from cifar_cnn.storage.network import Network
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.history import SPLIT_NAMES
from cifar_cnn.training.record import RunRecord
from cifar_cnn.training.run_files import PICTURE_OF

T = TypeVar("T")
Pictures = dict[str, Picture]
Notes = list[str]


@dataclass(frozen=True)
class Parts:
    """Pictures by their keys in PICTURE_OF, results, and notes on what is lacking, and why."""

    pictures: Pictures
    notes: Notes
    examination: Examination | None = None
    summary: Summary | None = None
    field: ReceptiveField | None = None


def collect_parts(
    record: RunRecord,
    others: Sequence[RunRecord],
    overrides: Mapping[str, Any],
    progress: Progress | None,
    *,
    reference: bool,
) -> Parts:
    """Draw and compute all that the run's files allow."""
    notes: Notes = []
    pictures = _draw_curves(record, others, notes, reference=reference)
    network = _open_network(record, overrides, notes)
    if network is None:  # nothing says for how many classes it is
        return Parts(pictures, notes)
    found = _attempt(notes, lambda: examine(network, progress))
    if found:
        notes += found.notes
        pictures |= _draw_answers(found, notes) | _draw_inputs(found, notes, progress)
    model = move(network.model, torch.device("cpu"))
    size = network.settings.input_size
    summary = _attempt(notes, lambda: summarize(model, size, budget=read_budget({})))
    field = _attempt(notes, lambda: receptive_field(model, size))
    if field:
        shows = "receptive field after each layer with a window, in pixels"
        pictures |= _picture("field", shows, charts.draw_receptive_field(field))
    return Parts(pictures, notes, found, summary, field)


def _draw_curves(
    record: RunRecord, others: Sequence[RunRecord], notes: Notes, *, reference: bool
) -> Pictures:
    if not record.history:
        notes.append("no epoch has ended yet")
        return {}
    pictures = _picture("curves", "loss and accuracy by epoch", *draw_curves(record.history))
    curves: dict[str, Curve] = {}
    for each in (record, *others):
        if each.history:
            name = str(each.run) if each.name in curves else each.name
            curves[name] = evaluation_curve(each.history)
        else:
            notes.append(f"{each.run} has no finished epoch to compare")
    if reference:
        curves["reference log"] = reference_curve()
    if len({curve.split for curve in curves.values()}) > 1:
        said = ", ".join(f"{SPLIT_NAMES[c.split]} of {name}" for name, c in curves.items())
        notes.append(f"the curves that are compared are not of one split: {said}")
    if len(curves) > 1:
        shows = f"evaluation by epoch of {', '.join(curves)}"
        pictures |= _picture("comparison", shows, *draw_comparison(curves))
    return pictures


def _open_network(record: RunRecord, overrides: Mapping[str, Any], notes: Notes) -> Network | None:
    files = [record.run / name for name in (MODEL, LAST)]
    file = next((each for each in files if each.exists()), None)
    if file is None:
        notes.append("there is no checkpoint yet")
        return None
    return _attempt(notes, lambda: open_trained(file, overrides, allow_bare=False))


def _draw_answers(found: Examination, notes: Notes) -> Pictures:
    measured, classes, wrong = found.evaluation, found.network.classes, found.mistakes
    reliability = charts.draw_reliability(found.calibration, measured.calibration_error)
    pictures = {
        **_picture(
            "confusion",
            "true class (row) by predicted (column)",
            charts.draw_confusion(measured, classes),
        ),
        **_picture("classes", "accuracy of each class", charts.draw_classes(measured, classes)),
        **_picture("reliability", "accuracy by confidence", *reliability),
    }
    if wrong:
        shows = "wrong answers: true class, predicted class, file; the surest first"
        pictures |= _picture("mistakes", shows, mosaics.draw_mistakes(wrong))
        pictures |= _attempt(notes, lambda: _explain(found)) or {}
    return pictures


def _explain(found: Examination) -> Pictures:
    explanation = mosaics.Explanation(found.network)
    wrong = found.mistakes
    heat = explanation.heat([each.pixels for each in wrong], [each.predicted for each in wrong])
    shows = f"what speaks for the predicted class: {explanation.where}"
    return _picture("grad_cam", shows, mosaics.draw_heated_mistakes(wrong, heat))


def _draw_inputs(found: Examination, notes: Notes, progress: Progress | None) -> Pictures:
    pictures: Pictures = {}
    filters = mosaics.first_filters(found.network.model)
    if filters is not None:
        shows = "weights of the first convolution as colors"
        pictures |= _picture("filters", shows, mosaics.draw_filters(filters))
    batch = _attempt(notes, lambda: _draw_first_batch(found.network, progress))
    if batch is not None:
        pictures |= _picture("batch", "images of the first training step, augmented", batch)
    return pictures


def _draw_first_batch(network: Network, progress: Progress | None) -> bytes:
    train, _ = load_trained_on(network.settings, progress)
    device = torch.device("cpu")
    batches = TrainingBatches(network.settings, train, device, network.normalization)
    images, _, _ = batches.at(epoch=0, index=0)
    return mosaics.draw_batch(images, network.normalization)


def _picture(key: str, shows: str, *panels: bytes) -> Pictures:
    return {key: Picture(PICTURE_OF[key], shows, panels)}


def _attempt(notes: Notes, make: Callable[[], T]) -> T | None:
    """Return the result of `make`; if it fails, add a note and return None."""
    try:
        with guarded("this part of the report fails", UserError):
            return make()
    except UserError as error:
        if str(error) not in notes:
            notes.append(str(error))
        return None
