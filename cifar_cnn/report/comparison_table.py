"""Several runs beside one another, as tables and as a picture."""

from statistics import mean

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cifar_cnn.errors import RunError
from cifar_cnn.report.comparison import Comparison, Line
from cifar_cnn.report.console import NARROW, natural_width, plain_table, say, warn
from cifar_cnn.report.curves import Curve, draw_comparison, evaluation_curve
from cifar_cnn.report.runs_table import number
from cifar_cnn.report.settings_table import setting_text

SHARED = ("data set", "epochs", "parameters")
"""Columns that become a line below the table where all runs have the same."""


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print what the runs came to, and the settings that differ."""
    lines = [_cells(line) for line in comparison.lines]
    alike = [name for name in SHARED if len({cells[name] for cells in lines}) == 1]
    kept = [name for name in lines[0] if name not in alike]
    if console.width < NARROW:
        kept = [name for name in kept if name not in {"loss", "parameters", "seconds"}]
    table = plain_table(kept, ("runs", "data set"))
    for cells in lines:
        table.add_row(*(escape(cells[name]) for name in kept))
    console.print(table)
    if alike:
        said = ", ".join(f"{name} {lines[0][name]}" for name in alike)
        say(console, f"in all of them: {said}")
    console.print()
    _show_settings(console, comparison)
    for warning in comparison.warnings:
        warn(console, f"warning: {warning}")


def draw_runs(comparison: Comparison) -> bytes:
    """Return a PNG of the runs' curves, those of a line as their mean.

    Raises:
        RunError: no run has an epoch.
    """
    curves = {_title(line): _curve(line) for line in comparison.lines if line.eval}
    if not curves:
        raise RunError("no run has finished an epoch: there are no curves to draw")
    return draw_comparison(curves)


def _cells(line: Line) -> dict[str, str]:
    return {
        "runs": line.label,
        "n": str(line.n),
        "accuracy": _spread(line, "accuracy", ".2%"),
        "loss": _spread(line, "loss", ".4f"),
        "data set": f"{line.dataset} {line.eval.split if line.eval else ''}".rstrip(),
        "epochs": f"{line.epochs}/{line.planned_epochs}",
        "parameters": number(line.parameters, ",d"),
        "seconds": _spread(line, "seconds", ",.0f"),
    }


def _spread(line: Line, figure: str, form: str) -> str:
    """Return a mean with its deviation, if there is one: `53.00 ± 3.00%`."""
    if line.eval is None:
        return "–"
    mean = format(getattr(line if figure == "seconds" else line.eval, figure), form)
    if line.deviation is None:
        return mean
    return f"{mean.removesuffix('%')} ± {getattr(line.deviation, figure):{form}}"


def _show_settings(console: Console, comparison: Comparison) -> None:
    """Print a table with a column for each line, or, where that is too wide, a row for each."""
    if not comparison.differing:
        console.print("no setting differs")
        return
    values = [
        {name: _value(line, name) for name in comparison.differing} for line in comparison.lines
    ]
    table = Table("setting", box=None, pad_edge=False)
    for line in comparison.lines:
        table.add_column(escape(line.label))
    for name in comparison.differing:
        table.add_row(name, *(escape(each[name]) for each in values))
    if natural_width(console, table) > console.width:
        headings = ("runs", "settings that differ")
        table = plain_table(headings, headings)
        for line, each in zip(comparison.lines, values, strict=True):
            said = ", ".join(f"{name} {value}" for name, value in each.items())
            table.add_row(escape(line.label), escape(said))
    console.print(table)


def _value(line: Line, setting: str) -> str:
    if setting == "seed":
        return ", ".join(str(run.seed) for run in line.runs)
    return setting_text(getattr(line.records[0].settings, setting))


def _title(line: Line) -> str:
    return line.label if line.n == 1 else f"mean of {line.n}: {line.label}"


def _curve(line: Line) -> Curve:
    curves = [evaluation_curve(run.history) for run in line.records]
    return Curve(
        curves[0].split,
        curves[0].epochs,
        [mean(values) for values in zip(*(curve.loss for curve in curves), strict=True)],
        [mean(values) for values in zip(*(curve.accuracy for curve in curves), strict=True)],
    )
