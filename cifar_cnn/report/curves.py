"""Learning curves of runs, and range tests, as pictures."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from cifar_cnn.errors import RunError
from cifar_cnn.report.comparison import Comparison, Line
from cifar_cnn.report.figures import (
    BLUE,
    GREEN,
    ORANGE,
    PANEL,
    PINK,
    SKY,
    draw,
    shortened,
    side_by_side,
)
from cifar_cnn.training.events import Event, RunEnded
from cifar_cnn.training.history import SPLIT_NAMES, EpochRow
from cifar_cnn.training.range_test import RangeTest
from cifar_cnn.training.run_files import CURVES, write_file

TRAIN_COLOR, EVAL_COLOR = BLUE, ORANGE
RUN_COLORS = (ORANGE, BLUE, GREEN, PINK, SKY)
DASHES = ("-", "--", ":")
QUANTITIES = ("loss", "accuracy")

Rows = Sequence[EpochRow]


@dataclass(frozen=True)
class Curve:
    """Loss and accuracy on a split over epochs, of another run or another program."""

    split: str
    epochs: Sequence[int]
    loss: Sequence[float]
    accuracy: Sequence[float]


def draw_at_end(event: Event) -> None:
    """Listener that draws curves.png when a run ends."""
    if isinstance(event, RunEnded) and event.history:
        write_file(event.directory / CURVES, side_by_side(draw_curves(event.history)))


def evaluation_curve(rows: Rows) -> Curve:
    """Return the evaluation's part of a history."""
    return Curve(
        rows[-1].eval_split,
        [row.epoch for row in rows],
        [row.eval_loss for row in rows],
        [row.eval_accuracy for row in rows],
    )


def reference_curve() -> Curve:
    """Return the test figures that the reference program's log publishes for its 100 epochs."""
    text = (files("cifar_cnn") / "report" / "reference_log.csv").read_text(encoding="utf-8")
    rows = [*csv.DictReader(text.splitlines())]
    return Curve(
        "test",
        [int(row["epoch"]) for row in rows],
        [float(row["test_loss"]) for row in rows],
        [float(row["test_accuracy"]) for row in rows],
    )


def draw_curves(history: Rows) -> list[bytes]:
    """Return PNGs of loss and accuracy over the epochs, training and evaluation."""
    last, name = history[-1], SPLIT_NAMES[history[-1].eval_split]
    epochs = [row.epoch for row in history]
    sets = (
        ("train", "training (augmented images)", TRAIN_COLOR),
        ("eval", name, EVAL_COLOR),
    )

    def fill(figure: Figure, quantity: str) -> None:
        axes = _axes(figure, quantity)
        for prefix, label, color in sets:
            values = [getattr(row, f"{prefix}_{quantity}") for row in history]
            _line(axes, epochs, values, color=color, label=label)
        axes.legend(frameon=False)
        if quantity == "accuracy":
            said = f"{name} {last.eval_accuracy:.2%} after epoch {last.epoch}"
            axes.set_title(said, loc="right")

    return [draw(*PANEL, partial(fill, quantity=quantity)) for quantity in QUANTITIES]


def draw_comparison(curves: Mapping[str, Curve]) -> list[bytes]:
    """Return PNGs of the evaluation of several runs over their epochs."""

    def fill(figure: Figure, quantity: str) -> None:
        axes = _axes(figure, quantity)
        for index, (name, curve) in enumerate(curves.items()):
            values = getattr(curve, quantity)
            last = f"{values[-1]:{'.4f' if quantity == 'loss' else '.2%'}}"
            label = f"{shortened(name, 40)}, {SPLIT_NAMES[curve.split]}: {last}"
            style = {
                "label": f" {label}" if label.startswith("_") else label,  # matplotlib hides _
                "color": RUN_COLORS[index % len(RUN_COLORS)],
                "linestyle": DASHES[index // len(RUN_COLORS) % len(DASHES)],
            }
            _line(axes, curve.epochs, values, **style)
        figure.legend(loc="outside lower center", frameon=False)

    width, height = PANEL
    size = (width, height + 0.24 * len(curves))
    return [draw(*size, partial(fill, quantity=quantity)) for quantity in QUANTITIES]


def draw_runs(comparison: Comparison) -> bytes:
    """Return a PNG of the runs' curves, those of a line as their mean."""
    curves = {_title(line): _mean_curve(line) for line in comparison.lines if line.eval}
    if not curves:
        raise RunError("no run has finished an epoch: there are no curves to draw")
    return side_by_side(draw_comparison(curves))


def _title(line: Line) -> str:
    return line.label if line.n == 1 else f"mean of {line.n}: {line.label}"


def _mean_curve(line: Line) -> Curve:
    curves = [evaluation_curve(run.history) for run in line.records]
    return Curve(
        curves[0].split,
        curves[0].epochs,
        [mean(values) for values in zip(*(curve.loss for curve in curves), strict=True)],
        [mean(values) for values in zip(*(curve.accuracy for curve in curves), strict=True)],
    )


def draw_range(result: RangeTest) -> bytes:
    """Return a PNG of the loss over the learning rate, with what was read from it."""
    rates, losses, smoothed = zip(
        *((each.lr, each.loss, each.smoothed_loss) for each in result.curve), strict=True
    )

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(rates, losses, color=BLUE, alpha=0.25, linewidth=1, label="each step")
        axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
        for label, rate, color, style in (
            ("falls fastest", result.steepest_lr, GREEN, "--"),
            ("suggested", result.suggested_lr, GREEN, "-"),
            ("lowest", result.lowest_lr, PINK, "--"),
            ("diverges from", result.diverging_lr, ORANGE, "-."),
            ("the settings' own", result.lr, "0.5", ":"),
        ):
            if rate is not None:
                axes.axvline(rate, color=color, linestyle=style, label=f"{label} {rate:.2g}")
        low, first = min(smoothed), smoothed[0]
        axes.set_ylim(low - 0.3 * (first - low), first + 0.7 * (first - low))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss (nats per image)")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(9, 4, fill)


def _axes(figure: Figure, quantity: str) -> Axes:
    axes = figure.subplots()
    axes.set_ylabel("loss (nats per image)" if quantity == "loss" else quantity)
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    return axes


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float], **style: str) -> None:
    marker = "o" if len(epochs) <= 30 else ""
    axes.plot(epochs, values, marker=marker, markersize=3, **style)  # type: ignore[arg-type]
