"""The learning curves of a run, alone or beside others', as pictures."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_cnn.report.figures import (
    BLUE,
    GREEN,
    NARROW,
    ORANGE,
    PINK,
    SKY,
    WIDE,
    picture,
    shortened,
)
from cifar_cnn.training.events import Event, RunEnded
from cifar_cnn.training.history import SPLIT_NAMES, EpochRow
from cifar_cnn.training.run_files import CURVES, write_file

TRAIN_COLOR, EVAL_COLOR = BLUE, ORANGE
RUN_COLORS = (ORANGE, BLUE, GREEN, PINK, SKY)
DASHES = ("-", "--", ":")

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
        write_file(event.directory / CURVES, draw_curves(event.history))


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


def draw_curves(history: Rows, *, narrow: bool = False) -> bytes:
    """Return a PNG of loss and accuracy over the epochs, training and evaluation."""

    def draw(figure: Figure) -> None:
        name = SPLIT_NAMES[history[-1].eval_split]
        for axes, quantity in zip(
            _panels(figure, narrow=narrow), ("loss", "accuracy"), strict=True
        ):
            epochs = [row.epoch for row in history]
            for prefix, label, color in (
                ("train", "training (augmented images)", TRAIN_COLOR),
                ("eval", name, EVAL_COLOR),
            ):
                values = [getattr(row, f"{prefix}_{quantity}") for row in history]
                _line(axes, epochs, values, color=color, label=label)
            axes.legend(frameon=False)
        last = history[-1]
        said = f"{name} {last.eval_accuracy:.2%} after epoch {last.epoch}"
        figure.axes[1].set_title(said, loc="right")

    width, height = NARROW if narrow else WIDE
    return picture(width, height, draw)


def draw_comparison(curves: Mapping[str, Curve], *, narrow: bool = False) -> bytes:
    """Return a PNG of the evaluation of several runs over their epochs."""

    def draw(figure: Figure) -> None:
        panels = _panels(figure, narrow=narrow)
        for index, (name, curve) in enumerate(curves.items()):
            split = SPLIT_NAMES[curve.split]
            label = f"{shortened(name, 40)}, {split}: {curve.accuracy[-1]:.2%}"
            style = {
                "label": f" {label}" if label.startswith("_") else label,  # matplotlib hides _
                "color": RUN_COLORS[index % len(RUN_COLORS)],
                "linestyle": DASHES[index // len(RUN_COLORS) % len(DASHES)],
            }
            for axes, values in zip(panels, (curve.loss, curve.accuracy), strict=True):
                _line(axes, curve.epochs, values, **style)
        handles, labels = panels[1].get_legend_handles_labels()
        columns = 1 if narrow else 2
        figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=columns)

    width, height = NARROW if narrow else WIDE
    return picture(width, height + (0.24 if narrow else 0.12) * len(curves), draw)


def _panels(figure: Figure, *, narrow: bool) -> tuple[Axes, Axes]:
    """Make room for loss and accuracy: side by side, or one above the other."""
    loss_axes, accuracy_axes = figure.subplots(*((2, 1) if narrow else (1, 2)))
    loss_axes.set_ylabel("loss (nats per image)")
    accuracy_axes.set_ylabel("accuracy")
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
    return loss_axes, accuracy_axes


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float], **style: str) -> None:
    marker = "o" if len(epochs) <= 30 else ""
    axes.plot(epochs, values, marker=marker, markersize=3, **style)  # type: ignore[arg-type]
