"""What a report of a run is made of, as far as it is available: pictures, figures, notes."""

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.receptive_field import receptive_field
from cifar_cnn.analysis.results import ReceptiveField, Summary
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.data.dataset import Loading
from cifar_cnn.data.load import load_trained_on
from cifar_cnn.errors import UserError
from cifar_cnn.inference.examine import Examination, examine
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import move
from cifar_cnn.report.curves import (
    Curve,
    draw_comparison,
    draw_curves,
    evaluation_curve,
    reference_curve,
)
from cifar_cnn.report.evaluation_pictures import draw_classes, draw_confusion, draw_reliability
from cifar_cnn.report.explanation import Explanation
from cifar_cnn.report.field_picture import draw_receptive_field
from cifar_cnn.report.image_pictures import (
    draw_batch,
    draw_filters,
    draw_heated_mistakes,
    draw_mistakes,
    first_filters,
)
from cifar_cnn.storage.naming import LAST, MODEL
from cifar_cnn.storage.network import Network
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.history import SPLIT_NAMES
from cifar_cnn.training.record import RunRecord
from cifar_cnn.training.run_files import PICTURE_OF

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A picture of the report: its file in the run directory, its PNG, and what it shows.

    One that has a line of the page to itself is there for a telephone too, `narrow`.
    """

    file: str
    content: bytes
    shows: str
    narrow: bytes | None = None

    @property
    def data(self) -> str:
        """The PNG as it stands in the page."""
        return _in_page(self.content)

    @property
    def narrow_data(self) -> str | None:
        """The PNG for a telephone as it stands in the page."""
        return _in_page(self.narrow) if self.narrow else None

    @property
    def aspect(self) -> float:
        """Its width by its height, from the PNG's header."""
        width, height = struct.unpack(">II", self.content[16:24])
        return float(width / height)


class ReportParts:
    """The parts of a report that are available."""

    def __init__(
        self, record: RunRecord, overrides: dict[str, Any], loading: Loading | None = None
    ) -> None:
        self.record = record
        self.loading = loading
        self.overrides = overrides
        self.pictures: dict[str, Picture] = {}
        self.notes: list[str] = []
        self.summary: Summary | None = None
        self.field: ReceptiveField | None = None
        self.trained_network: Network | None = None
        self.examination: Examination | None = None

    def curves(self, others: Sequence[RunRecord], *, reference: bool) -> None:
        """Draw the learning curves, and those of the others beside them."""
        if not self.record.history:
            self.notes.append("no epoch has ended yet")
            return
        self._add_wide(
            "curves", partial(draw_curves, self.record.history), "loss and accuracy by epoch"
        )
        curves: dict[str, Curve] = {}
        for each in (self.record, *others):
            if each.history:
                curves[_label(each, curves)] = evaluation_curve(each.history)
            else:
                self.notes.append(f"{each.run} has no finished epoch to compare")
        if reference:
            curves["reference log"] = reference_curve()
        splits = {curve.split for curve in curves.values()}
        if len(splits) > 1:
            said = ", ".join(f"{SPLIT_NAMES[c.split]} of {n}" for n, c in curves.items())
            self.notes.append(f"the curves that are compared are not of one split: {said}")
        if len(curves) > 1:
            shows = f"evaluation by epoch of {', '.join(curves)}"
            self._add_wide("comparison", partial(draw_comparison, curves), shows)

    def trained(self) -> None:
        """Look at the trained network, and at what it was shown."""
        file = next((n for n in (MODEL, LAST) if (self.record.run / n).exists()), None)
        if file is None:
            self.notes.append("there is no checkpoint yet")
            return
        path = self.record.run / file
        network = self._try(lambda: open_trained(path, self.overrides, allow_bare=False))
        if network is None:
            return
        self.trained_network = network
        found = self._try(lambda: examine(network, self.loading))
        if found is None:
            return
        self.examination = found
        self.notes += found.notes
        measured, classes = found.evaluation, found.network.classes
        drawn = draw_confusion(measured, classes)
        self._add("confusion", drawn, "true class (row) by predicted (column)")
        drawn = draw_classes(measured, classes)
        self._add("classes", drawn, "accuracy of each class")
        draw = partial(draw_reliability, found.calibration, measured.calibration_error)
        self._add_wide("reliability", draw, "accuracy by confidence")
        if found.mistakes:
            shows = "wrong answers: true class, predicted class, file; the surest first"
            self._add("mistakes", draw_mistakes(found.mistakes), shows)
            self._try(lambda: self._explain(found))
        filters = first_filters(found.network.model)
        if filters is not None:
            shows = "weights of the first convolution as colors"
            self._add("filters", draw_filters(filters), shows)
        batch = self._try(lambda: self._first_batch(found))
        if batch is not None:
            self._add("batch", batch, "images of the first training step, augmented")

    def network(self) -> None:
        """Analyze the trained network: summary, budget, receptive field. Comes after `trained`.

        Without one nothing says for how many classes it is, on which its size depends.
        """
        if self.trained_network is None:
            return
        model = move(self.trained_network.model, torch.device("cpu"))
        size = self.trained_network.settings.input_size
        self.summary = self._try(lambda: summarize(model, size, budget=read_budget({})))
        self.field = self._try(lambda: receptive_field(model, size))
        if self.field is not None:
            shows = "receptive field after each layer with a window, in pixels"
            self._add_wide("field", partial(draw_receptive_field, self.field), shows)

    def _explain(self, found: Examination) -> None:
        explanation = Explanation(found.network)
        wrong = found.mistakes
        heat = explanation.heat([each.pixels for each in wrong], [each.predicted for each in wrong])
        shows = f"what speaks for the predicted class: {explanation.where}"
        self._add("grad_cam", draw_heated_mistakes(wrong, heat), shows)

    def _first_batch(self, found: Examination) -> bytes:
        settings = found.network.settings
        normalization = found.network.normalization
        train, _ = load_trained_on(settings, self.loading)
        batches = TrainingBatches(settings, train, torch.device("cpu"), normalization)
        images, _, _ = batches.at(epoch=0, index=0)
        return draw_batch(images, normalization)

    def _try(self, make: Callable[[], T]) -> T | None:
        try:
            with guarded("this part of the report fails", UserError):
                return make()
        except UserError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return None

    def _add(self, key: str, content: bytes, shows: str) -> None:
        self.pictures[key] = Picture(PICTURE_OF[key], content, shows)

    def _add_wide(self, key: str, draw: Callable[..., bytes], shows: str) -> None:
        self.pictures[key] = Picture(PICTURE_OF[key], draw(), shows, draw(narrow=True))


def _in_page(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _label(run: RunRecord, taken: Mapping[str, Curve]) -> str:
    """Return the run's name, or its path where another run has that name."""
    return str(run.run) if run.name in taken else run.name
