"""Runs beside one another: which settings differ, and what came of each."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cifar_cnn.errors import RequestError
from cifar_cnn.results import IfGiven, NotInJson, Result
from cifar_cnn.settings import SOURCES, Settings
from cifar_cnn.training.history import SplitFigures
from cifar_cnn.training.record import Run, RunRecord, read_run


class ComparedRun(Run):
    """A run of a comparison."""

    seed: int


class Deviation(Result):
    """Sample deviations over runs that differ in their seed alone."""

    accuracy: float
    loss: float
    seconds: float


class Line(Result):
    """Runs that differ in their seed alone: means, and deviations where there are several.

    The settings are those in which the lines differ; `eval` is None before an epoch has ended.
    `label` are the names of the runs; paths where names are not enough to tell runs apart.
    """

    n: int
    settings: dict[str, Any]
    dataset: str
    epochs: int
    planned_epochs: int
    parameters: int | None
    eval: SplitFigures | None
    seconds: float
    deviation: Deviation | None
    runs: tuple[ComparedRun, ...]
    label: NotInJson[str]
    records: NotInJson[tuple[RunRecord, ...]]


class Comparison(Result):
    """Several runs: the settings that differ, and those together that differ in their seed alone.

    The warnings say why figures should not be compared.
    """

    differing: tuple[str, ...]
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    plot: IfGiven[Path] = None


def compare_runs(names: Sequence[Path | str]) -> Comparison:
    """Compare runs that are named as for `find_run`; one that is named twice counts once.

    Raises:
        RequestError: there are not two.
        RunError: one is no run directory, or one that this version cannot read.
    """
    runs = [*{run.run.resolve(): run for run in map(read_run, names)}.values()]
    if len(runs) < 2:
        raise RequestError("there is nothing to compare in one run: name two or more")
    own_names = [run.name for run in runs]
    groups: list[list[RunRecord]] = []
    for run in runs:
        _group_of(run, groups).append(run)
    differing = tuple(name for name in Settings.model_fields if _differ(runs, name))
    lines = tuple(
        _line(
            group,
            ", ".join(r.name if own_names.count(r.name) == 1 else str(r.run) for r in group),
            {name: value for name, value in _stored(group[0]) if name in differing},
        )
        for group in groups
    )
    return Comparison(differing=differing, lines=lines, warnings=_other_images(runs))


def _line(runs: list[RunRecord], label: str, settings: dict[str, Any]) -> Line:
    first = runs[0]
    evals = [run.eval for run in runs if run.eval]
    accuracies, losses = [each.accuracy for each in evals], [each.loss for each in evals]
    seconds = [run.seconds for run in runs]
    means = deviation = None
    if evals:
        accuracy, loss = mean(accuracies), mean(losses)
        means = SplitFigures(split=evals[0].split, accuracy=accuracy, loss=loss)
    if len(evals) > 1:
        deviation = Deviation(
            accuracy=stdev(accuracies), loss=stdev(losses), seconds=stdev(seconds)
        )
    return Line(
        n=len(runs),
        settings=settings,
        dataset=first.dataset,
        epochs=first.epochs,
        planned_epochs=first.planned_epochs,
        parameters=first.parameters,
        eval=means,
        seconds=mean(seconds),
        deviation=deviation,
        runs=tuple(ComparedRun(**vars(run.entry), seed=run.settings.seed) for run in runs),
        label=label,
        records=tuple(runs),
    )


def _group_of(run: RunRecord, groups: list[list[RunRecord]]) -> list[RunRecord]:
    """Return the group of runs that differ from this run in the seed alone, or a new group."""
    for group in groups:
        is_new = all(each.settings.seed != run.settings.seed for each in group)
        if is_new and _but_for_seed(group[0]) == _but_for_seed(run):
            return group
    groups.append([])
    return groups[-1]


def _but_for_seed(run: RunRecord) -> tuple[Settings, int, int | None]:
    settings = run.settings.model_copy(update={"seed": 0})
    return settings, run.epochs, run.parameters


def _stored(run: RunRecord) -> list[tuple[str, Any]]:
    """Return the settings as settings.toml has them, without the seed."""
    return [*((name, value) for name, value in run.settings.as_dict().items() if name != "seed")]


def _differ(runs: Sequence[RunRecord], setting: str) -> bool:
    values = [getattr(run.settings, setting) for run in runs]
    return any(value != values[0] for value in values)


def _other_images(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return a warning where the runs' figures are not of the same images."""
    sources = dict.fromkeys(run.settings.dataset for run in runs)
    names = ["dataset", "limit_eval", *(n for each in sources for n in SOURCES[each].chosen_by)]
    splits = {run.eval.split for run in runs if run.eval}
    if "val" in splits:  # cut from the training images
        names += ["val_size", "limit_train"]
    differing = ["split"] * (len(splits) > 1)
    differing += [name for name in names if _differ(runs, name)]
    if not differing:
        return ()
    return (f"the figures are not of the same images: the runs differ in {', '.join(differing)}",)
