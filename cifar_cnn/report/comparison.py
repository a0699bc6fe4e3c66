"""Runs beside one another: which settings differ, and what came of each."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_cnn.documents import runs as documents
from cifar_cnn.errors import RequestError
from cifar_cnn.settings import SOURCES, Settings
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.record import RunRecord, read_run

FIGURES = ("eval_accuracy", "eval_loss", "seconds")


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation; a single figure has no deviation."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Line:
    """Runs that differ in their seed alone, of as many epochs.

    Args:
        runs: one or more.
        label: their names; paths where names are not enough to tell runs apart.
        settings: those that differ between the lines of a comparison, as settings.toml has them.
    """

    runs: tuple[RunRecord, ...]
    label: str
    settings: dict[str, Any]

    @property
    def best(self) -> EpochRow | None:
        """The first run's epoch whose network `model.pt` holds."""
        return self.runs[0].best

    def spread(self, figure: str) -> Spread | None:
        """Return one of `FIGURES` over the runs; None before an epoch has ended."""
        if self.best is None:
            return None
        values = [_figure(run, figure) for run in self.runs]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Spread(statistics.mean(values), deviation)

    def as_dict(self) -> documents.RunLine:
        """Return the line's entry in `runs compare --json`."""
        first, best = self.runs[0].as_dict(), self.best
        accuracy, loss, seconds = (self.spread(figure) for figure in FIGURES)
        means: documents.SplitFigures | None = None
        deviation: documents.Deviation | None = None
        if best and accuracy and loss and seconds:
            means = {"split": best.eval_split, "accuracy": accuracy.mean, "loss": loss.mean}
            if accuracy.deviation is not None:
                deviation = {
                    "accuracy": accuracy.deviation,
                    "loss": loss.deviation or 0.0,
                    "seconds": seconds.deviation or 0.0,
                }
        return {
            "n": len(self.runs),
            "settings": self.settings,
            "dataset": first["dataset"],
            "epochs": first["epochs"],
            "planned_epochs": first["planned_epochs"],
            "parameters": first["parameters"],
            "eval": means,
            "seconds": seconds.mean if seconds else 0.0,
            "deviation": deviation,
            "runs": [{**run.as_dict(), "seed": run.settings.seed} for run in self.runs],
        }


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Args:
        differing: names of the settings in which any two of them differ.
        lines: the runs in the order given, those together that differ in their seed alone.
        warnings: why figures should not be compared.
    """

    differing: tuple[str, ...]
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> documents.Comparison:
        """Return the document that `runs compare --json` prints."""
        return {
            "differing": list(self.differing),
            "lines": [line.as_dict() for line in self.lines],
            "warnings": list(self.warnings),
        }


def compare_runs(names: Sequence[Path | str]) -> Comparison:
    """Compare runs that are named as for `find_run`; one that is named twice counts once.

    Raises:
        RequestError: there are not two.
        RunError: one is no run directory, or one that this version cannot read.
    """
    runs = [*{run.directory.resolve(): run for run in map(read_run, names)}.values()]
    if len(runs) < 2:
        raise RequestError("there is nothing to compare in one run: name two or more")
    own_names = [run.name for run in runs]
    groups: list[list[RunRecord]] = []
    for run in runs:
        _group_of(run, groups).append(run)
    differing = tuple(name for name in Settings.model_fields if _differ(runs, name))
    lines = tuple(
        Line(
            tuple(group),
            ", ".join(r.name if own_names.count(r.name) == 1 else str(r.directory) for r in group),
            {name: value for name, value in _stored(group[0]) if name in differing},
        )
        for group in groups
    )
    return Comparison(differing, lines, _other_images(runs))


def _group_of(run: RunRecord, groups: list[list[RunRecord]]) -> list[RunRecord]:
    """Return the group of the runs that the run is like but for its seed; a new one if none is."""
    for group in groups:
        is_new = all(each.settings.seed != run.settings.seed for each in group)
        if is_new and _but_for_seed(group[0]) == _but_for_seed(run):
            return group
    groups.append([])
    return groups[-1]


def _but_for_seed(run: RunRecord) -> tuple[Settings, int, int | None]:
    settings = run.settings.model_copy(update={"seed": 0})
    return settings, len(run.rows), run.environment.get("parameters")


def _stored(run: RunRecord) -> list[tuple[str, Any]]:
    """Return the settings as settings.toml has them, without the seed."""
    return [*((name, value) for name, value in run.settings.as_dict().items() if name != "seed")]


def _differ(runs: Sequence[RunRecord], setting: str) -> bool:
    values = [getattr(run.settings, setting) for run in runs]
    return any(value != values[0] for value in values)


def _figure(run: RunRecord, name: str) -> Any:
    """Return a figure of the epoch whose network `model.pt` holds, or the whole run's seconds."""
    return sum(row.seconds for row in run.rows) if name == "seconds" else getattr(run.best, name)


def _other_images(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return a warning where the runs' figures are not of the same images."""
    sources = dict.fromkeys(run.settings.dataset for run in runs)
    names = ["dataset", "limit_eval", *(n for each in sources for n in SOURCES[each].chosen_by)]
    splits = {run.best.eval_split for run in runs if run.best}
    if "val" in splits:  # cut from the training images
        names += ["val_size", "limit_train"]
    differing = ["split"] * (len(splits) > 1)
    differing += [name for name in names if _differ(runs, name)]
    if not differing:
        return ()
    return (f"the figures are not of the same images: the runs differ in {', '.join(differing)}",)
