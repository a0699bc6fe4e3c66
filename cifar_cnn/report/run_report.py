"""A run as pictures and as report.html: one file that needs no network and no script."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from jinja2 import Environment, PackageLoader

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.receptive_field import ReceptiveField, receptive_field
from cifar_cnn.analysis.summary import Summary, summarize
from cifar_cnn.data.load import load_train
from cifar_cnn.errors import UserError
from cifar_cnn.inference.examine import Examination, examine
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.report.analysis_tables import LAYER_HEADINGS, layer_cells
from cifar_cnn.report.curves import (
    Curve,
    draw_comparison,
    draw_curves,
    evaluation_curve,
    reference_curve,
)
from cifar_cnn.report.evaluation_pictures import draw_classes, draw_confusion, draw_reliability
from cifar_cnn.report.field_picture import draw_receptive_field
from cifar_cnn.report.image_pictures import draw_batch, draw_filters, draw_mistakes, first_filters
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.events import Event, RunEnded
from cifar_cnn.training.record import RunRecord, read_run
from cifar_cnn.training.run_directory import write_file
from cifar_cnn.training.run_files import CURVES, LAST, MODEL, REPORT

T = TypeVar("T")
TEMPLATES = Environment(loader=PackageLoader("cifar_cnn.report"), autoescape=True)


@dataclass(frozen=True)
class Picture:
    """A picture of the report: its file in the run directory, its PNG, and what it shows."""

    file: str
    content: bytes
    shows: str

    @property
    def data(self) -> str:
        """The PNG as it stands in the page."""
        return f"data:image/png;base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class RunReport:
    """What was written: the page, the pictures, and what had to be left out and why."""

    path: Path
    pictures: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the document that `report --json` prints."""
        return {
            "report": str(self.path),
            "pictures": [str(self.path.parent / name) for name in self.pictures],
            "notes": list(self.notes),
        }


class ReportFiles:
    """Listener that writes the report of a run that has finished."""

    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self, event: Event) -> None:
        """Write it at the end; the run let the network's code run, so the report may."""
        if isinstance(event, RunEnded) and event.finished:
            record = replace(read_run(event.directory), state="finished")
            _write(record, _Gathered(record, {"model": self.model}), (), reference=False)


def write_report(
    run: Path | str,
    *,
    compare: Sequence[Path | str] = (),
    reference: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> RunReport:
    """Write a run's pictures and its report.html into its directory.

    What cannot be had (no checkpoint yet, images gone, a network that the analysis cannot follow)
    is left out, and said.

    Args:
        run: the run directory.
        compare: other run directories, for a picture of the learning curves side by side.
        reference: compare with the figures of the reference program's log too.
        overrides: settings in place of the run's: model, data_dir, device …

    Raises:
        RunError: a run directory cannot be used, or the report cannot be written.
    """
    record = read_run(run)
    others = [read_run(each) for each in compare]
    return _write(record, _Gathered(record, {**(overrides or {})}), others, reference=reference)


def _write(
    record: RunRecord, gathered: "_Gathered", others: Sequence[RunRecord], *, reference: bool
) -> RunReport:
    gathered.curves(others, reference=reference)
    gathered.trained()
    gathered.network()
    page = TEMPLATES.get_template("report.html.j2").render(
        run=record,
        pictures=gathered.pictures,
        notes=gathered.notes,
        summary=gathered.summary,
        field=gathered.field,
        headings=LAYER_HEADINGS,
        layers=[layer_cells(layer) for layer in gathered.field.layers] if gathered.field else [],
        examination=gathered.examination,
        settings=record.settings.model_dump(mode="json"),
    )
    path = record.directory / REPORT
    for picture in gathered.pictures.values():
        write_file(record.directory / picture.file, picture.content)
    write_file(path, page.encode())
    files = tuple(picture.file for picture in gathered.pictures.values())
    return RunReport(path, files, tuple(gathered.notes))


class _Gathered:
    """The parts of a report as far as they are to be had."""

    def __init__(self, record: RunRecord, overrides: dict[str, Any]) -> None:
        self.record = record
        self.overrides = overrides
        self.pictures: dict[str, Picture] = {}
        self.notes: list[str] = []
        self.summary: Summary | None = None
        self.field: ReceptiveField | None = None
        self.examination: Examination | None = None

    def curves(self, others: Sequence[RunRecord], *, reference: bool) -> None:
        """Draw the learning curves, and those of the others beside them."""
        if not self.record.rows:
            self.notes.append("no epoch has ended yet")
            return
        self._add("curves", CURVES, draw_curves(self.record.rows), "loss and accuracy by epoch")
        curves: dict[str, Curve] = {}
        for each in (self.record, *others):
            if each.rows:
                curves[_label(each, curves)] = evaluation_curve(each.rows)
            else:
                self.notes.append(f"{each.directory} has no finished epoch to compare")
        if reference:
            curves["reference log"] = reference_curve()
        if len(curves) > 1:
            shows = f"evaluation by epoch of {', '.join(curves)}"
            self._add("comparison", "comparison.png", draw_comparison(curves), shows)

    def trained(self) -> None:
        """Look at the trained network, and at what it was shown."""
        file = next((n for n in (MODEL, LAST) if (self.record.directory / n).exists()), None)
        if file is None:
            self.notes.append("there is no checkpoint yet")
            return
        found = self._try(lambda: examine(self.record.directory / file, self.overrides))
        if found is None:
            return
        self.examination = found
        measured, classes = found.evaluation, found.trained.checkpoint.classes
        drawn = draw_confusion(measured, classes)
        self._add("confusion", "confusion.png", drawn, "true class (row) by predicted (column)")
        drawn = draw_classes(measured, classes)
        self._add("classes", "classes.png", drawn, "accuracy of each class")
        drawn = draw_reliability(found.calibration, measured.calibration_error)
        self._add("reliability", "reliability.png", drawn, "accuracy by confidence")
        if found.mistakes:
            shows = "wrong answers with their true and predicted class, the surest first"
            self._add("mistakes", "mistakes.png", draw_mistakes(found.mistakes), shows)
        filters = first_filters(found.trained.model)
        if filters is not None:
            shows = "weights of the first convolution as colours"
            self._add("filters", "filters.png", draw_filters(filters), shows)
        batch = self._try(lambda: self._first_batch(found))
        if batch is not None:
            self._add("batch", "batch.png", batch, "images of the first training step, augmented")

    def network(self) -> None:
        """Analyse the network: summary, budget, receptive field. Comes after `trained`."""
        spec = self.overrides.get("model", self.record.settings.model)
        if "model" not in self.overrides and not is_built_in(spec):
            return  # its code may not run unasked; `trained` says so
        model = self.examination.trained.model.cpu() if self.examination else spec
        size = self.record.settings.input_size
        self.summary = self._try(lambda: summarize(model, size, budget=read_budget({})))
        self.field = self._try(lambda: receptive_field(model, size))
        if self.field is not None:
            shows = "receptive field after each layer with a window, in pixels"
            self._add("field", "receptive-field.png", draw_receptive_field(self.field), shows)

    def _first_batch(self, found: Examination) -> bytes:
        settings = found.trained.settings
        batches = TrainingBatches(settings, load_train(settings)[0], torch.device("cpu"))
        images, _, _ = batches.at(batches.order(0)[: settings.batch_size], epoch=0, step=0)
        return draw_batch(images)

    def _try(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except UserError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return None

    def _add(self, key: str, file: str, content: bytes, shows: str) -> None:
        self.pictures[key] = Picture(file, content, shows)


def _label(run: RunRecord, taken: Mapping[str, Curve]) -> str:
    """Return the run's name, or its path where another run has that name."""
    return str(run.directory) if run.name in taken else run.name
