"""Draw pictures in one style, among them charts of a network's accuracy and receptive fields."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image

from cifar_cnn.analysis.results import EffectiveField, ReceptiveField
from cifar_cnn.errors import counted
from cifar_cnn.inference.metrics import CALIBRATION_BINS, Calibration, Evaluation

BLUE, ORANGE, GREEN, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
"""Of Okabe and Ito's palette, safe for the color-blind."""
PANEL = (4.6, 3.8)
"""Inches of a panel, which a page lays beside another, or on a telephone above it."""
PERCENT = PercentFormatter(1, decimals=0)

MAX_NUMBERED_CLASSES = 20
"""Of a confusion matrix with numbers in its cells."""
MAX_NAMED_CLASSES = 60
"""Of a chart with names along its axes."""
MAX_LAYERS = 40
SQUARE_COLORS = {0.5: SKY, 0.9: GREEN}

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar in the name of a class is a dollar
}


def draw(
    width: float,
    height: float,
    fill: Callable[[Any], None],
    *,
    reduce_colors: bool = True,
) -> bytes:
    """Return a PNG of `width` by `height` inches, whose axes `fill` draws.

    128 colors, which are enough for a chart, make the file a third of the size.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names beyond the font's letters
        figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
        fill(figure.subplots())
        content = io.BytesIO()
        figure.savefig(content, format="png")
    if not reduce_colors:
        return content.getvalue()
    with Image.open(content) as image:
        return _encode_chart(image)


def join_panels(panels: Sequence[bytes]) -> bytes:
    """Return a PNG of panels of one height beside one another."""
    if len(panels) == 1:
        return panels[0]
    pixels = [np.asarray(Image.open(io.BytesIO(panel)).convert("RGB")) for panel in panels]
    return _encode_chart(Image.fromarray(np.hstack(pixels)))


def _encode_chart(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(content, "png")
    return content.getvalue()


def cut_start(name: str, length: int) -> str:
    """Return at most the last `length` characters of a name: files and layers differ there."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def cut_end(name: str, length: int = 18) -> str:
    """Return at most `length` characters of a name, by default what fits beside an axis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def draw_confusion(evaluation: Evaluation) -> bytes:
    """Return a PNG: images of each true class (row) by predicted class (column)."""
    classes, counts = [*evaluation.per_class], np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = _height(classes)

    def fill(axes: Axes) -> None:
        matrix = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        bar = axes.figure.colorbar(matrix, ax=axes, shrink=0.7, label="share of the true class")
        bar.ax.yaxis.set_major_formatter(PERCENT)
        if len(classes) <= MAX_NAMED_CLASSES:
            names = [cut_end(name) for name in classes]
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axes.set_yticks(range(len(names)), names)
        if len(classes) <= MAX_NUMBERED_CLASSES:
            for (row, column), count in np.ndenumerate(counts):
                color = "white" if shares[row, column] > 0.5 else "black" if count else "0.75"
                axes.text(column, row, count, ha="center", va="center", color=color, fontsize=8)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.spines[:].set_visible(False)

    return draw(side + 0.8, side, fill)


def draw_classes(evaluation: Evaluation) -> bytes:
    """Return a PNG: the accuracy of each class, best first."""
    scores = sorted(evaluation.per_class.items(), key=lambda item: item[1].recall or 0.0)
    names = [name for name, _ in scores]
    recalls = [score.recall for _, score in scores]

    def fill(axes: Axes) -> None:
        bars = axes.barh(range(len(names)), [each or 0.0 for each in recalls], 0.7, color=BLUE)
        if len(names) <= MAX_NAMED_CLASSES:
            axes.set_yticks(range(len(names)), [cut_end(name) for name in names])
            labels = ["–" if each is None else f"{each:.1%}" for each in recalls]
            axes.bar_label(bars, labels, padding=3, fontsize=9)
        axes.axvline(evaluation.accuracy, color=ORANGE, linestyle="--", linewidth=1)
        axes.set_title(f"dashed: all images, {evaluation.accuracy:.1%}", loc="left", color=ORANGE)
        axes.set(xlabel="accuracy", xlim=(0, 1.08), ylim=(-0.6, len(names) - 0.4))
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(PERCENT)

    return draw(6, _height(names), fill)


def _height(classes: Sequence[str]) -> float:
    """Return the height in inches of the two charts of classes, which stand beside each other."""
    return min(max(0.5 * len(classes) + 1.4, 4.2), 9.0)


def draw_reliability(calibration: Calibration, error: float) -> list[bytes]:
    """Return PNGs: accuracy by confidence against the diagonal, and how many images there are."""
    samples = calibration.samples.numpy()
    is_filled = samples > 0
    confidence, accuracy = (
        sums.numpy()[is_filled] / samples[is_filled]
        for sums in (calibration.confidence, calibration.hits)
    )
    bin_width = 1 / CALIBRATION_BINS

    def fill_accuracy(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1, label="as it should be")
        axes.plot(confidence, accuracy, color=BLUE, marker="o", markersize=4, label="the network")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_title(f"expected calibration error {error:.4f}", loc="right")
        axes.legend(frameon=False, loc="upper left")
        axes.grid(alpha=0.25)
        label_axes(axes, "accuracy")

    def fill_counts(axes: Axes) -> None:
        centers = (np.arange(CALIBRATION_BINS) + 0.5) * bin_width
        axes.bar(centers, samples, width=0.9 * bin_width, color=BLUE)
        label_axes(axes, "images")

    def label_axes(axes: Axes, quantity: str) -> None:
        axes.set(xlim=(0, 1), xlabel="confidence (probability of the predicted class)")
        axes.set_ylabel(quantity)
        axes.xaxis.set_major_formatter(PERCENT)

    return [draw(*PANEL, fill_accuracy), draw(*PANEL, fill_counts)]


def draw_receptive_field(result: ReceptiveField) -> bytes:
    """Return a PNG: the field after each layer that has a window, and at the output.

    Of very deep networks the last layers are drawn.
    """
    rows = [(layer.name, min(layer.receptive_field)) for layer in result.layers if layer.has_window]
    rows = [*rows[-MAX_LAYERS:], ("output", min(result.final.receptive_field))]
    names, sizes = zip(*rows, strict=True)
    side = min(result.input_size[1:])

    def fill(axes: Axes) -> None:
        bars = axes.barh(range(len(rows)), sizes, color=BLUE, height=0.65)
        axes.bar_label(bars, padding=3, fontsize=9)
        axes.set_yticks(range(len(rows)), [cut_start(name, 30) for name in names])
        axes.invert_yaxis()
        axes.axvline(side, color="0.45", linestyle=":", linewidth=1.2, label=f"image: {side}")
        limit = f"must be above {result.minimum}"
        axes.axvline(result.minimum, color=ORANGE, linestyle="--", linewidth=1.2, label=limit)
        axes.set_xlim(0, 1.1 * max(*sizes, side, result.minimum))
        axes.set_xlabel("receptive field (pixels, the smaller side)")
        axes.figure.legend(loc="outside upper right", frameon=False, ncols=2)

    return draw(6.4, 0.3 * len(rows) + 1.3, fill)


def draw_effective(result: EffectiveField) -> bytes:
    """Return a PNG: the heat map, the theoretical field, the squares that hold 50 % and 90 %."""
    height, width = result.heat.shape
    top, left = result.theoretical.top, result.theoretical.left
    rows, columns = result.theoretical.receptive_field

    def fill(axes: Axes) -> None:
        # The square root shows the faint parts: the mass falls off about as a Gaussian does.
        heat = axes.imshow(result.heat / result.heat.max(), cmap="inferno", norm=PowerNorm(0.5))
        axes.figure.colorbar(heat, ax=axes, label="gradient magnitude, largest = 1", shrink=0.8)
        frames = [(left, top, columns, rows, ORANGE, f"theoretical field {rows}×{columns}")]
        for square in result.squares:
            label = f"{square.mass:.0%} of the mass: side {square.side}"
            color = SQUARE_COLORS[square.mass]
            frames.append((square.left, square.top, square.side, square.side, color, label))
        for x, y, wide, high, color, label in frames:
            frame = Rectangle((x - 0.5, y - 0.5), wide, high, fill=False, edgecolor=color)
            frame.set(linewidth=2, label=label)
            axes.add_patch(frame)
        axes.set_xlim(min(left, 0) - 1.5, max(left + columns, width) + 0.5)
        axes.set_ylim(max(top + rows, height) + 0.5, min(top, 0) - 1.5)
        axes.set_facecolor("0.85")  # outside of the image
        unit = f"unit {result.unit} of {result.layer}" if result.unit else "the largest logit"
        axes.set_title(f"{unit}, {counted(result.samples, 'image')} of {height}×{width}")
        axes.set(xlabel="pixel", ylabel="pixel")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)

    return draw(6.4, 5.4, fill, reduce_colors=False)
