"""The learning curves of a run as a picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_cnn.inference.files import write_atomically
from cifar_cnn.training.events import Event, RunEnded
from cifar_cnn.training.history import LOG_NAMES, EpochRow
from cifar_cnn.training.run_directory import CURVES

TRAIN_COLOUR, EVAL_COLOUR = "#0072B2", "#D55E00"  # Okabe and Ito's palette, safe for colour-blind


class CurvesPicture:
    """Listener that draws curves.png when a run ends."""

    def __init__(self) -> None:
        self.history: Sequence[EpochRow] = ()

    def __call__(self, event: Event) -> None:
        """Remember the history, draw it at the end."""
        if isinstance(event, RunEnded):
            if self.history:
                draw_curves(self.history, event.directory / CURVES)
        else:
            self.history = getattr(event, "history", self.history)


def draw_curves(history: Sequence[EpochRow], path: Path) -> None:
    """Write a PNG of loss and accuracy over the epochs, training and evaluation."""
    figure = Figure(figsize=(9, 3.8), dpi=120, layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    name = LOG_NAMES[history[-1].eval_split].lower()
    _draw(loss_axes, history, "loss", name)
    _draw(accuracy_axes, history, "accuracy", name)
    loss_axes.set_ylabel("loss (nats per image)")
    accuracy_axes.set_ylabel("accuracy")
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    last = history[-1]
    accuracy_axes.set_title(
        f"{name} {last.eval_accuracy:.2%} after epoch {last.epoch}", loc="right", fontsize=10
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def _draw(axes: Axes, history: Sequence[EpochRow], quantity: str, name: str) -> None:
    epochs = [row.epoch for row in history]
    marker = "o" if len(history) <= 30 else None
    for prefix, label, colour in (
        ("train", "training (augmented images)", TRAIN_COLOUR),
        ("eval", name, EVAL_COLOUR),
    ):
        values = [getattr(row, f"{prefix}_{quantity}") for row in history]
        axes.plot(epochs, values, color=colour, label=label, marker=marker, markersize=3)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
