"""Runs, alone and in a list, and the settings, for people."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from cifar_cnn.errors import SettingsError, counted, did_you_mean
from cifar_cnn.recipes import RECIPES, read_recipe
from cifar_cnn.report.console import NARROW, Column, Table, format_setting, format_size, say
from cifar_cnn.settings import Settings
from cifar_cnn.training.record import RunRecord

SORTABLE = (
    *("name", "model", "recipe", "epochs", "parameters", "accuracy", "dataset", "seconds"),
    "state",
)
ALIASES = {"eval_accuracy": "accuracy", "data set": "dataset"}
MIDDLE, WITH_DATA = 90, 80
"""Columns below which the list leaves out network, recipe and seconds, and the data set."""


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
        Column("name"),
        Column("model", least=MIDDLE),
        Column("recipe", least=MIDDLE),
        Column("epochs", lambda run: f"{run.epochs}/{run.planned_epochs}", right=True),
        Column("parameters", form=",d", right=True, least=NARROW),
        Column("accuracy", _format_accuracy, right=True),
        Column("data set", "dataset", least=WITH_DATA),
        Column("seconds", form=",.0f", right=True, least=MIDDLE),
        Column("state"),
    ]
    Table(columns, runs).show(console)


def _format_accuracy(run: RunRecord) -> str | None:
    return f"{run.eval.accuracy:.2%} {run.eval.split}" if run.eval else None


def show_run(console: Console, run: RunRecord) -> None:
    """Print what is known of one run."""
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
    changed = run.changed.keys() - {"recipe", "model", "dataset", "epochs", "threads"}
    if changed:
        facts["settings"] = ", ".join(
            f"{name} {format_setting(value)}" for name, value in run.settings if name in changed
        )
    if {"processor", "torch", "cifar_cnn"} <= environment.keys():
        facts["ran on"] = (
            f"{environment.get('device_name') or environment['processor']}, "
            f"torch {environment['torch']}, cifar-cnn {environment['cifar_cnn']}"
        )
    facts["files"] = ", ".join(f"{each.name} {format_size(each.size)}" for each in run.files)
    say(console, *(f"{heading:<11}{text}" for heading, text in facts.items()))


def show_settings(console: Console) -> None:
    """Print each setting, its value in each recipe, and what it means."""
    fields = Settings.model_fields
    columns = [Column("setting", str)]
    for recipe in RECIPES:
        values = {name: field.default for name, field in fields.items()} | read_recipe(recipe)
        texts = {name: format_setting(value) for name, value in values.items()}
        columns.append(Column(recipe, texts.get, right=True))
    columns.append(Column("meaning", lambda name: fields[name].description, least=NARROW))
    Table(columns, [name for name in fields if name != "recipe"]).show(console)
