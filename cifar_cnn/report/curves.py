"""Learning curves of runs, as pictures and for TensorBoard, and range tests."""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from cifar_cnn.errors import RunError, UserError
from cifar_cnn.report import charts
from cifar_cnn.report.comparison import Comparison
from cifar_cnn.training.history import (
    SPLIT_NAMES,
    EpochEnded,
    EpochRow,
    Event,
    RunEnded,
    RunStarted,
)
from cifar_cnn.training.run_files import CURVES, EVENTS, remove_events, write_file
from cifar_cnn.training.trial import RangeTest

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TRAIN_COLOR, EVAL_COLOR = charts.BLUE, charts.ORANGE
RUN_COLORS = (charts.ORANGE, charts.BLUE, charts.GREEN, charts.PINK, charts.SKY)
DASHES = ("-", "--", ":")
QUANTITIES = {"loss": "loss (nats per image)", "accuracy": "accuracy"}
"""What is drawn over the epochs, and how its axis is labeled."""


class Curve(NamedTuple):
    """Loss and accuracy on a split over epochs, of a run or another program."""

    split: str
    epochs: Sequence[int]
    loss: Sequence[float]
    accuracy: Sequence[float]


def draw_at_end(event: Event) -> None:
    """Listener that draws curves.png when a run ends."""
    if isinstance(event, RunEnded) and event.history:
        write_file(event.directory / CURVES, charts.join_panels(draw_curves(event.history)))


class TensorBoardEvents:
    """Listener that writes the metrics of each epoch, by step, below the run directory.

    The files are begun anew when a run starts or goes on, from its whole history, so they hold
    what metrics.csv holds. It needs the extra `tensorboard`.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise UserError("--tensorboard needs a package: pip install '.[tensorboard]'")
        self.writer: SummaryWriter | None = None

    def __call__(self, event: Event) -> None:
        """Write what the event adds."""
        if isinstance(event, RunStarted):
            from torch.utils.tensorboard import SummaryWriter

            remove_events(event.directory)
            self.writer = SummaryWriter(str(event.directory / EVENTS))
            self._write(event.history)
        elif isinstance(event, EpochEnded):
            self._write(event.history[-1:])
        elif isinstance(event, RunEnded) and self.writer:
            self.writer.close()

    def _write(self, rows: Sequence[EpochRow]) -> None:
        assert self.writer is not None
        for row in rows:
            self.writer.add_scalar("loss/train", row.train_loss, row.step)
            self.writer.add_scalar(f"loss/{row.eval_split}", row.eval_loss, row.step)
            self.writer.add_scalar("accuracy/train", row.train_accuracy, row.step)
            self.writer.add_scalar(f"accuracy/{row.eval_split}", row.eval_accuracy, row.step)
            self.writer.add_scalar("lr", row.lr, row.step)
            self.writer.add_scalar("images_per_second", row.images_per_second, row.step)
        self.writer.flush()


def evaluation_curve(history: Sequence[EpochRow]) -> Curve:
    """Return the evaluation's part of a history."""
    rows = [(row.epoch, row.eval_loss, row.eval_accuracy) for row in history]
    return Curve(history[-1].eval_split, *zip(*rows, strict=True))


def reference_curve() -> Curve:
    """Return the test figures that the reference program's log publishes for its 100 epochs."""
    text = (files("cifar_cnn") / "report" / "reference_log.csv").read_text(encoding="utf-8")
    _, *rows = csv.reader(text.splitlines())
    epochs, losses, accuracies = zip(*rows, strict=True)
    return Curve("test", [*map(int, epochs)], [*map(float, losses)], [*map(float, accuracies)])


def draw_curves(history: Sequence[EpochRow]) -> list[bytes]:
    """Return PNGs of loss and accuracy over the epochs, training and evaluation."""
    last, split = history[-1], SPLIT_NAMES[history[-1].eval_split]
    lines = (("train", "training (augmented images)", TRAIN_COLOR), ("eval", split, EVAL_COLOR))

    def fill(axes: Axes, quantity: str) -> None:
        for prefix, label, color in lines:
            values = [getattr(row, f"{prefix}_{quantity}") for row in history]
            _plot(axes, [row.epoch for row in history], values, color=color, label=label)
        axes.legend(frameon=False)
        _label_epochs(axes, quantity)
        if quantity == "accuracy":
            title = f"{split} {last.eval_accuracy:.2%} after epoch {last.epoch}"
            axes.set_title(title, loc="right")

    return [charts.draw(*charts.PANEL, partial(fill, quantity=quantity)) for quantity in QUANTITIES]


def draw_comparison(curves: Mapping[str, Curve]) -> list[bytes]:
    """Return PNGs of the evaluation of several runs over their epochs."""

    def fill(axes: Axes, quantity: str) -> None:
        for index, (name, curve) in enumerate(curves.items()):
            values = getattr(curve, quantity)
            last = f"{values[-1]:{'.4f' if quantity == 'loss' else '.2%'}}"
            label = f"{charts.cut_end(name, 40)}, {SPLIT_NAMES[curve.split]}: {last}"
            label = f" {label}" if label.startswith("_") else label  # matplotlib hides _
            color = RUN_COLORS[index % len(RUN_COLORS)]
            dashes = DASHES[index // len(RUN_COLORS) % len(DASHES)]
            _plot(axes, curve.epochs, values, color=color, linestyle=dashes, label=label)
        axes.figure.legend(loc="outside lower center", frameon=False)
        _label_epochs(axes, quantity)

    width, height = charts.PANEL
    size = (width, height + 0.24 * len(curves))
    return [charts.draw(*size, partial(fill, quantity=quantity)) for quantity in QUANTITIES]


def draw_runs(comparison: Comparison) -> bytes:
    """Return a PNG of the runs' curves, those of a line as their mean."""
    means: dict[str, Curve] = {}
    for line in comparison.lines:
        if line.eval:
            split, epochs, losses, accuracies = zip(
                *(evaluation_curve(run.history) for run in line.records), strict=True
            )
            title = line.label if line.n == 1 else f"mean of {line.n}: {line.label}"
            figures = [np.mean(each, axis=0).tolist() for each in (losses, accuracies)]
            means[title] = Curve(split[0], epochs[0], *figures)
    if not means:
        raise RunError("no run has finished an epoch: there are no curves to draw")
    return charts.join_panels(draw_comparison(means))


def draw_range(result: RangeTest) -> bytes:
    """Return a PNG of the loss over the learning rate, with what was read from it."""
    rates = [each.lr for each in result.curve]
    smoothed = [each.smoothed_loss for each in result.curve]

    def fill(axes: Axes) -> None:
        losses = [each.loss for each in result.curve]
        axes.plot(rates, losses, color=charts.BLUE, alpha=0.25, linewidth=1, label="each step")
        axes.plot(rates, smoothed, color=charts.BLUE, linewidth=2, label="smoothed")
        for label, rate, color, style in (
            ("falls fastest", result.steepest_lr, charts.GREEN, "--"),
            ("suggested", result.suggested_lr, charts.GREEN, "-"),
            ("lowest", result.lowest_lr, charts.PINK, "--"),
            ("diverges from", result.diverging_lr, charts.ORANGE, "-."),
            ("the settings' own", result.lr, "0.5", ":"),
        ):
            if rate is not None:
                axes.axvline(rate, color=color, linestyle=style, label=f"{label} {rate:.2g}")
        low, first = min(smoothed), smoothed[0]
        axes.set_ylim(low - 0.3 * (first - low), first + 0.7 * (first - low))
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats per image)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))

    return charts.draw(9, 4, fill)


def _label_epochs(axes: Axes, quantity: str) -> None:
    axes.set(xlabel="epoch", ylabel=QUANTITIES[quantity])
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)


def _plot(axes: Axes, epochs: Sequence[int], values: Sequence[float], **style: str) -> None:
    marker = "o" if len(epochs) <= 30 else ""
    axes.plot(epochs, values, marker=marker, markersize=3, **style)  # type: ignore[arg-type]
