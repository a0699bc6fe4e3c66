"""How good a network is, as pictures: confusion, accuracy of each class, reliability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_cnn.inference.metrics import CALIBRATION_BINS, Calibration, Evaluation
from cifar_cnn.report.figures import BLUE, NARROW, ORANGE, WIDE, picture, shortened

MOST_NUMBERED = 20
"""Classes up to which each cell of the confusion matrix says its number."""
MOST_NAMED = 60
"""Classes up to which the axes name each."""


def draw_confusion(evaluation: Evaluation, classes: Sequence[str]) -> bytes:
    """Return a PNG: images of each true class (row) by predicted class (column)."""
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = _side(classes)

    def draw(figure: Figure) -> None:
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

    return picture(side + 0.8, side, draw)


def _side(classes: Sequence[str]) -> float:
    """Return the height in inches of the pictures that stand beside each other."""
    return min(max(0.5 * len(classes) + 1.4, 4.2), 9.0)


def draw_classes(evaluation: Evaluation, classes: Sequence[str]) -> bytes:
    """Return a PNG: the accuracy of each class, best first."""
    recalls = [each.recall for each in evaluation.per_class.values()]
    accuracy = np.array([recall or 0.0 for recall in recalls])
    order = accuracy.argsort(kind="stable")

    def draw(figure: Figure) -> None:
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

    return picture(6, _side(classes), draw)


def draw_reliability(calibration: Calibration, error: float, *, narrow: bool = False) -> bytes:
    """Return a PNG: accuracy by confidence against the diagonal, and how many images there are."""
    samples, hits = calibration.samples.numpy(), calibration.hits.numpy()
    filled = samples > 0
    confidence = calibration.confidence.numpy()[filled] / samples[filled]
    accuracy = hits[filled] / samples[filled]
    bin_width = 1 / CALIBRATION_BINS
    centers = (np.arange(CALIBRATION_BINS) + 0.5) * bin_width

    def draw(figure: Figure) -> None:
        shares, counts = figure.subplots(*((2, 1) if narrow else (1, 2)))
        shares.plot(
            [0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="as it should be"
        )
        shares.plot(confidence, accuracy, color=BLUE, marker="o", markersize=4, label="the network")
        shares.set_ylabel("accuracy")
        shares.set_title(f"expected calibration error {error:.4f}", loc="right")
        shares.legend(frameon=False, loc="upper left")
        shares.grid(alpha=0.25)
        counts.bar(centers, samples, width=0.9 * bin_width, color=BLUE)
        counts.set_ylabel("images")
        for axes in (shares, counts):
            axes.set_xlabel("confidence (probability of the predicted class)")
            axes.set_xlim(0, 1)
        for axis in (shares.xaxis, shares.yaxis, counts.xaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))

    width, height = NARROW if narrow else WIDE
    return picture(width, height, draw)
