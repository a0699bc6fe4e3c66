"""The runs in a folder, and one of them, for people."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from cifar_cnn.errors import SettingsError, counted, did_you_mean
from cifar_cnn.report.console import NARROW, file_size, plain_table, say
from cifar_cnn.report.settings_table import setting_text
from cifar_cnn.training.record import RunRecord

SORTABLE = (
    *("name", "model", "recipe", "epochs", "parameters", "accuracy", "dataset", "seconds"),
    "state",
)
ALIASES = {"eval_accuracy": "accuracy", "data set": "dataset"}
SAID_ELSEWHERE = ("recipe", "model", "dataset", "epochs", "threads")
MIDDLE = 90
"""Columns below which the table leaves network, recipe and seconds out."""


def sort_runs(runs: Sequence[RunRecord], column: str) -> list[RunRecord]:
    """Return the runs by a column: text in alphabetical order, numbers from the largest.

    Raises:
        SettingsError: there is no such column.
    """
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
    """Print a line for each run, in the columns that the screen has room for."""
    columns = {  # and how wide a screen each wants
        "name": 0,
        "model": MIDDLE,
        "recipe": MIDDLE,
        "epochs": 0,
        "parameters": NARROW,
        "accuracy": 0,
        "data set": 80,
        "seconds": MIDDLE,
        "state": 0,
    }
    kept = [name for name, least in columns.items() if console.width >= least]
    table = plain_table(kept, ("name", "model", "recipe", "data set", "state"))
    for run in runs:
        cells = {
            "name": run.name,
            "model": run.model,
            "recipe": run.recipe,
            "epochs": f"{run.epochs}/{run.planned_epochs}",
            "parameters": number(run.parameters, ",d"),
            "accuracy": f"{run.eval.accuracy:.2%} {run.eval.split}" if run.eval else "–",
            "data set": run.dataset,
            "seconds": number(run.seconds, ",.0f"),
            "state": run.state,
        }
        table.add_row(*(escape(cells[name]) for name in kept))
    console.print(table)


def show_run(console: Console, run: RunRecord) -> None:
    """Print what is known of one run."""
    say(console, *(f"{heading:<11}{text}" for heading, text in _facts(run).items()))


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
        facts["training"] = (
            f"{run.seconds:,.0f} s, {run.history[-1].images_per_second:,.0f} images/s"
        )
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


def number(value: float | None, form: str) -> str:
    """Return a figure as text; a dash where there is none."""
    return "–" if value is None else format(value, form)
