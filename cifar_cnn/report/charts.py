"""Draw charts of a network's accuracy and receptive fields."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from cifar_cnn.analysis.results import EffectiveField, ReceptiveField
from cifar_cnn.errors import counted
from cifar_cnn.inference.metrics import CALIBRATION_BINS, Calibration, Evaluation
from cifar_cnn.report.figures import BLUE, GREEN, ORANGE, PANEL, SKY, draw, ending, shortened

MOST_NUMBERED = 20
"""Classes up to which each cell of the confusion matrix says its number."""
MOST_NAMED = 60
"""Classes up to which the axes name each."""
MOST_LAYERS = 40
SQUARES = {0.5: SKY, 0.9: GREEN}


def draw_confusion(evaluation: Evaluation, classes: Sequence[str]) -> bytes:
    """Return a PNG: images of each true class (row) by predicted class (column)."""
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = _side(classes)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        bar = figure.colorbar(shown, ax=axes, shrink=0.7, label="share of the true class")
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if len(classes) <= MOST_NAMED:
            names = [shortened(name) for name in classes]
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axes.set_yticks(range(len(names)), names)
        if len(classes) <= MOST_NUMBERED:
            for (row, column), count in np.ndenumerate(counts):
                color = "white" if shares[row, column] > 0.5 else "black" if count else "0.75"
                axes.text(column, row, count, ha="center", va="center", color=color, fontsize=8)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.spines[:].set_visible(False)

    return draw(side + 0.8, side, fill)


def _side(classes: Sequence[str]) -> float:
    """Return the height in inches of the pictures that stand beside each other."""
    return min(max(0.5 * len(classes) + 1.4, 4.2), 9.0)


def draw_classes(evaluation: Evaluation, classes: Sequence[str]) -> bytes:
    """Return a PNG: the accuracy of each class, best first."""
    recalls = [each.recall for each in evaluation.per_class.values()]
    accuracy = np.array([recall or 0.0 for recall in recalls])
    order = accuracy.argsort(kind="stable")

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(range(len(classes)), accuracy[order], color=BLUE, height=0.7)
        if len(classes) <= MOST_NAMED:
            axes.set_yticks(range(len(classes)), [shortened(classes[i]) for i in order])
            said = ["–" if recalls[i] is None else f"{recalls[i]:.1%}" for i in order]
            axes.bar_label(bars, said, padding=3, fontsize=9)
        axes.axvline(evaluation.accuracy, color=ORANGE, linestyle="--", linewidth=1)
        axes.set_title(f"dashed: all images, {evaluation.accuracy:.1%}", loc="left", color=ORANGE)
        axes.set_xlim(0, 1.08)
        axes.set_ylim(-0.6, len(classes) - 0.4)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("accuracy")

    return draw(6, _side(classes), fill)


def draw_reliability(calibration: Calibration, error: float) -> list[bytes]:
    """Return PNGs: accuracy by confidence against the diagonal, and how many images there are."""
    samples, hits = calibration.samples.numpy(), calibration.hits.numpy()
    filled = samples > 0
    confidence = calibration.confidence.numpy()[filled] / samples[filled]
    accuracy = hits[filled] / samples[filled]
    bin_width = 1 / CALIBRATION_BINS

    def shares(figure: Figure) -> None:
        axes = _confidence_axes(figure, "accuracy")
        axes.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1, label="as it should be")
        axes.plot(confidence, accuracy, color=BLUE, marker="o", markersize=4, label="the network")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title(f"expected calibration error {error:.4f}", loc="right")
        axes.legend(frameon=False, loc="upper left")
        axes.grid(alpha=0.25)

    def counts(figure: Figure) -> None:
        centers = (np.arange(CALIBRATION_BINS) + 0.5) * bin_width
        _confidence_axes(figure, "images").bar(centers, samples, width=0.9 * bin_width, color=BLUE)

    return [draw(*PANEL, shares), draw(*PANEL, counts)]


def _confidence_axes(figure: Figure, quantity: str) -> Axes:
    axes = figure.subplots()
    axes.set_xlabel("confidence (probability of the predicted class)")
    axes.set_ylabel(quantity)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return axes


def draw_receptive_field(result: ReceptiveField) -> bytes:
    """Return a PNG: the field after each layer that has a window, and at the output.

    Of very deep networks the last layers are shown.
    """
    rows = [(layer.name, min(layer.receptive_field)) for layer in result.layers if layer.has_window]
    rows = [*rows[-MOST_LAYERS:], ("output", min(result.final.receptive_field))]
    names, sizes = zip(*rows, strict=True)
    side = min(result.input_size[1:])

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(range(len(rows)), sizes, color=BLUE, height=0.65)
        axes.bar_label(bars, padding=3, fontsize=9)
        axes.set_yticks(range(len(rows)), [ending(name, 30) for name in names])
        axes.invert_yaxis()
        axes.axvline(side, color="0.45", linestyle=":", linewidth=1.2, label=f"image: {side}")
        limit = f"must be above {result.minimum}"
        axes.axvline(result.minimum, color=ORANGE, linestyle="--", linewidth=1.2, label=limit)
        axes.set_xlim(0, 1.1 * max(*sizes, side, result.minimum))
        axes.set_xlabel("receptive field (pixels, the smaller side)")
        figure.legend(loc="outside upper right", frameon=False, ncols=2)

    return draw(6.4, 0.3 * len(rows) + 1.3, fill)


def draw_effective(result: EffectiveField) -> bytes:
    """Return a PNG: the heat map, the theoretical field, the squares that hold 50 % and 90 %."""
    height, width = result.heat.shape
    top, left = result.theoretical.top, result.theoretical.left
    rows, columns = result.theoretical.receptive_field

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        # The square root shows the faint parts: the mass falls off about as a Gaussian does.
        shown = axes.imshow(result.heat / result.heat.max(), cmap="inferno", norm=PowerNorm(0.5))
        figure.colorbar(shown, ax=axes, label="gradient magnitude, largest = 1", shrink=0.8)
        _frame(axes, (top, left, rows, columns), ORANGE, f"theoretical field {rows}×{columns}")
        for square in result.squares:
            label = f"{square.mass:.0%} of the mass: side {square.side}"
            frame = (square.top, square.left, square.side, square.side)
            _frame(axes, frame, SQUARES[square.mass], label)
        axes.set_xlim(min(left, 0) - 1.5, max(left + columns, width) + 0.5)
        axes.set_ylim(max(top + rows, height) + 0.5, min(top, 0) - 1.5)
        axes.set_facecolor("0.85")  # outside of the image
        unit = f"unit {result.unit} of {result.layer}" if result.unit else "the largest logit"
        axes.set_title(f"{unit}, {counted(result.samples, 'image')} of {height}×{width}")
        axes.set_xlabel("pixel")
        axes.set_ylabel("pixel")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)

    return draw(6.4, 5.4, fill, colors=None)


def _frame(axes: Axes, frame: tuple[int, int, int, int], color: str, label: str) -> None:
    top, left, height, width = frame
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=2, label=label)
    )
