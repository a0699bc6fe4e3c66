"""Runs beside one another: which settings differ, and what came of each."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console

from cifar_cnn.errors import RequestError
from cifar_cnn.report.console import NARROW, Column, Table, format_setting, say, warn
from cifar_cnn.results import IfGiven, NotInJson, Result
from cifar_cnn.settings import SOURCES, Settings
from cifar_cnn.training.history import SplitFigures
from cifar_cnn.training.record import RunEntry, RunRecord, read_run

OPTIONAL_COLUMNS = ("data set", "epochs", "parameters")
"""Columns that become a line below the table if all runs have the same value."""


class ComparedRun(RunEntry):
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
    copies = Counter(run.name for run in runs)
    labels = {run.run: run.name if copies[run.name] == 1 else str(run.run) for run in runs}
    differing = tuple(name for name in Settings.model_fields if _differ(runs, name))
    lines = []
    for group in _group_by_seed(runs):
        settings = group[0].settings.as_dict()
        own = {name: settings[name] for name in settings if name in differing and name != "seed"}
        lines.append(_to_line(group, ", ".join(labels[run.run] for run in group), own))
    return Comparison(differing=differing, lines=tuple(lines), warnings=_warn_of_images(runs))


def _group_by_seed(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group the runs that differ in their seed alone; a group has each seed once."""
    groups: dict[Any, list[RunRecord]] = defaultdict(list)
    repeats: Counter[Any] = Counter()
    for run in runs:
        settings = run.settings.model_copy(update={"seed": 0})
        facts = settings, run.epochs, run.parameters
        groups[facts, repeats[facts, run.settings.seed]].append(run)
        repeats[facts, run.settings.seed] += 1
    return [*groups.values()]


def _to_line(runs: Sequence[RunRecord], label: str, settings: dict[str, Any]) -> Line:
    first = runs[0]
    evals = [run.eval for run in runs if run.eval]
    figures = {
        "accuracy": [each.accuracy for each in evals],
        "loss": [each.loss for each in evals],
        "seconds": [run.seconds for run in runs],
    }
    means = {name: mean(values) for name, values in figures.items() if values}
    seconds, deviation = means.pop("seconds"), None
    if len(evals) > 1:
        deviation = Deviation(**{name: stdev(values) for name, values in figures.items()})
    return Line(
        n=len(runs),
        settings=settings,
        dataset=first.dataset,
        epochs=first.epochs,
        planned_epochs=first.planned_epochs,
        parameters=first.parameters,
        eval=SplitFigures(split=evals[0].split, **means) if evals else None,
        seconds=seconds,
        deviation=deviation,
        runs=tuple(ComparedRun(**vars(run.entry), seed=run.settings.seed) for run in runs),
        label=label,
        records=tuple(runs),
    )


def _differ(runs: Sequence[RunRecord], setting: str) -> bool:
    values = [getattr(run.settings, setting) for run in runs]
    return any(value != values[0] for value in values)


def _warn_of_images(runs: Sequence[RunRecord]) -> tuple[str, ...]:
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


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the results of the runs, and the settings that differ."""
    lines = comparison.lines
    columns = [
        Column("runs", "label"),
        Column("n", right=True),
        Column("accuracy", partial(_format_mean, "accuracy", ".2%"), right=True),
        Column("loss", partial(_format_mean, "loss", ".4f"), right=True, least=NARROW),
        Column("data set", _format_images),
        Column("epochs", lambda line: f"{line.epochs}/{line.planned_epochs}", right=True),
        Column("parameters", form=",d", right=True, least=NARROW),
        Column("seconds", partial(_format_mean, "seconds", ",.0f"), right=True, least=NARROW),
    ]
    same = {
        column: column.cell(lines[0])
        for column in columns
        if column.heading in OPTIONAL_COLUMNS and len({column.cell(line) for line in lines}) == 1
    }
    Table([column for column in columns if column not in same], lines).show(console)
    if same:
        facts = (f"{column.heading} {cell}" for column, cell in same.items())
        say(console, f"in all of them: {', '.join(facts)}")
    console.print()
    _show_differing(console, comparison)
    for warning in comparison.warnings:
        warn(console, f"warning: {warning}")


def _format_mean(figure: str, form: str, line: Line) -> str | None:
    """Return a mean with its deviation, if there is one: `53.00 ± 3.00%`."""
    if line.eval is None:
        return None
    text = format(getattr(line if figure == "seconds" else line.eval, figure), form)
    if line.deviation is None:
        return text
    return f"{text.removesuffix('%')} ± {getattr(line.deviation, figure):{form}}"


def _format_images(line: Line) -> str:
    return f"{line.dataset} {line.eval.split}" if line.eval else line.dataset


def _show_differing(console: Console, comparison: Comparison) -> None:
    """Print a table with a column for each line, or, where that is too wide, a row for each."""
    lines, names = comparison.lines, comparison.differing
    if not names:
        console.print("no setting differs")
        return
    columns = [Column("setting", str)]
    columns += [Column(line.label, partial(_format_setting_of, line)) for line in lines]
    table = Table(columns, names)
    if table.measure(console) > console.width:
        columns = [
            Column("runs", "label"),
            Column("settings that differ", partial(_list_settings, names)),
        ]
        table = Table(columns, lines)
    table.show(console)


def _list_settings(names: Sequence[str], line: Line) -> str:
    return ", ".join(f"{name} {_format_setting_of(line, name)}" for name in names)


def _format_setting_of(line: Line, setting: str) -> str:
    if setting == "seed":
        return ", ".join(str(run.seed) for run in line.runs)
    return format_setting(getattr(line.records[0].settings, setting))
