"""Runs, alone and beside one another, and the settings, for people."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from cifar_cnn.errors import SettingsError, counted, did_you_mean
from cifar_cnn.recipes import RECIPES, read_recipe
from cifar_cnn.report.comparison import Comparison, Line
from cifar_cnn.report.console import NARROW, file_size, say, warn
from cifar_cnn.report.table import Table, numbers, texts
from cifar_cnn.settings import Settings
from cifar_cnn.training.record import RunRecord

SORTABLE = (
    *("name", "model", "recipe", "epochs", "parameters", "accuracy", "dataset", "seconds"),
    "state",
)
ALIASES = {"eval_accuracy": "accuracy", "data set": "dataset"}
SAID_ELSEWHERE = ("recipe", "model", "dataset", "epochs", "threads")
MIDDLE, WITH_DATA = 90, 80
"""Columns below which the list leaves out network, recipe and seconds, and the data set."""
ALIKE = ("data set", "epochs", "parameters")
"""Columns of a comparison that become a line below it where all runs have the same."""


def sort_runs(runs: Sequence[RunRecord], column: str) -> list[RunRecord]:
    """Return the runs by a column: text in alphabetical order, numbers from the largest."""
    column = ALIASES.get(column, column)
    if column not in SORTABLE:
        hint = did_you_mean(column, SORTABLE)
        raise SettingsError(f"unknown column {column!r}{hint}: choose from {', '.join(SORTABLE)}")

    def key(run: RunRecord) -> tuple[bool, object]:
        accuracy = run.eval.accuracy if run.eval else None
        value: Any = accuracy if column == "accuracy" else getattr(run, column)
        return value is None, -value if isinstance(value, int | float) else value

    return sorted(runs, key=key)


def show_runs(console: Console, runs: Sequence[RunRecord]) -> None:
    """Print a line for each run."""
    columns = [
        *texts("name"),
        *texts("model", "recipe", least=MIDDLE),
        *numbers("epochs"),
        *numbers("parameters", form=",d", least=NARROW),
        *numbers("accuracy"),
        *texts("data set", least=WITH_DATA),
        *numbers("seconds", form=",.0f", least=MIDDLE),
        *texts("state"),
    ]
    rows = [
        (
            *(run.name, run.model, run.recipe, f"{run.epochs}/{run.planned_epochs}"),
            run.parameters,
            f"{run.eval.accuracy:.2%} {run.eval.split}" if run.eval else None,
            *(run.dataset, run.seconds, run.state),
        )
        for run in runs
    ]
    console.print(Table(columns, rows).on(console))


def show_run(console: Console, run: RunRecord) -> None:
    """Print what is known of one run."""
    say(console, *(f"{heading:<11}{text}" for heading, text in _facts(run).items()))


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print what the runs came to, and the settings that differ."""
    columns = [
        *texts("runs"),
        *numbers("n", "accuracy"),
        *numbers("loss", least=NARROW),
        *texts("data set"),
        *numbers("epochs"),
        *numbers("parameters", "seconds", form=",d", least=NARROW),
    ]
    rows = [_compared(line) for line in comparison.lines]
    alike = {
        column.heading: column.text(rows[0][i])
        for i, column in enumerate(columns)
        if column.heading in ALIKE and len({row[i] for row in rows}) == 1
    }
    kept = [i for i, column in enumerate(columns) if column.heading not in alike]
    table = Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    console.print(table.on(console))
    if alike:
        said = ", ".join(f"{name} {value}" for name, value in alike.items())
        say(console, f"in all of them: {said}")
    console.print()
    _show_differing(console, comparison)
    for warning in comparison.warnings:
        warn(console, f"warning: {warning}")


def show_settings(console: Console) -> None:
    """Print each setting, what the recipes make of it, and what it means."""
    recipes = {name: read_recipe(name) for name in RECIPES}
    columns = [*texts("setting"), *numbers(*recipes), *texts("meaning", least=NARROW)]
    rows = [
        (
            name,
            *(setting_text(recipe.get(name, field.default)) for recipe in recipes.values()),
            field.description,
        )
        for name, field in Settings.model_fields.items()
        if name != "recipe"
    ]
    console.print(Table(columns, rows).on(console))


def setting_text(value: object) -> str:
    """Return a setting's value as people read it: a size as 32x48, none as a dash."""
    if isinstance(value, tuple):
        between = ", " if any(isinstance(each, str) for each in value) else "x"
        return between.join(map(str, value)) or "–"
    return "–" if value is None else str(value)


def _facts(run: RunRecord) -> dict[str, str]:
    best, environment, count = run.best, run.environment, run.parameters
    parameters = "– parameters" if count is None else counted(count, "parameter")
    facts = {
        "run": f"{run.run} ({run.state})",
        "network": f"{run.model}, {parameters}",
        "recipe": f"{run.recipe} on {run.dataset}",
        "epochs": f"{run.epochs} of {run.planned_epochs}",
    }
    if best:
        facts[best.eval_split] = (
            f"accuracy {best.eval_accuracy:.2%}, loss {best.eval_loss:.4f} (epoch {best.epoch})"
        )
        speed = run.history[-1].images_per_second
        facts["training"] = f"{run.seconds:,.0f} s, {speed:,.0f} images/s"
    changed = [name for name in run.changed if name not in SAID_ELSEWHERE]
    if changed:
        facts["settings"] = ", ".join(
            f"{each} {setting_text(getattr(run.settings, each))}" for each in changed
        )
    if {"processor", "torch", "cifar_cnn"} <= environment.keys():
        facts["ran on"] = (
            f"{environment.get('device_name') or environment['processor']}, "
            f"torch {environment['torch']}, cifar-cnn {environment['cifar_cnn']}"
        )
    facts["files"] = ", ".join(f"{each.name} {file_size(each.size)}" for each in run.files)
    return facts


def _compared(line: Line) -> list[object]:
    return [
        line.label,
        line.n,
        _spread(line, "accuracy", ".2%"),
        _spread(line, "loss", ".4f"),
        f"{line.dataset} {line.eval.split if line.eval else ''}".rstrip(),
        f"{line.epochs}/{line.planned_epochs}",
        line.parameters,
        _spread(line, "seconds", ",.0f"),
    ]


def _spread(line: Line, figure: str, form: str) -> str | None:
    """Return a mean with its deviation, if there is one: `53.00 ± 3.00%`."""
    if line.eval is None:
        return None
    mean = format(getattr(line if figure == "seconds" else line.eval, figure), form)
    if line.deviation is None:
        return mean
    return f"{mean.removesuffix('%')} ± {getattr(line.deviation, figure):{form}}"


def _show_differing(console: Console, comparison: Comparison) -> None:
    """Print a table with a column for each line, or, where that is too wide, a row for each."""
    lines, names = comparison.lines, comparison.differing
    if not names:
        console.print("no setting differs")
        return
    values = [[_value(line, name) for line in lines] for name in names]
    columns = texts("setting", *(line.label for line in lines))
    table = Table(columns, [(name, *row) for name, row in zip(names, values, strict=True)])
    if table.width(console) > console.width:
        rows = [
            (
                line.label,
                ", ".join(f"{name} {row[i]}" for name, row in zip(names, values, strict=True)),
            )
            for i, line in enumerate(lines)
        ]
        table = Table(texts("runs", "settings that differ"), rows)
    console.print(table.on(console))


def _value(line: Line, setting: str) -> str:
    if setting == "seed":
        return ", ".join(str(run.seed) for run in line.runs)
    return setting_text(getattr(line.records[0].settings, setting))
