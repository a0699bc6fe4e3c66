"""The effective receptive field as a picture."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cifar_cnn.analysis.effective import EffectiveField
from cifar_cnn.inference.files import write_atomically

COLOURS = {0.5: "#56B4E9", 0.9: "#009E73"}  # Okabe and Ito's palette, safe for colour-blind


def draw_effective(result: EffectiveField, path: Path) -> None:
    """Write a PNG: the heat map, the theoretical field, the squares that hold 50 % and 90 %.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(6.4, 5.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    height, width = result.heat.shape
    # The square root shows the faint parts: the mass falls off about as a Gaussian does.
    shown = axes.imshow(result.heat / result.heat.max(), cmap="inferno", norm=PowerNorm(0.5))
    figure.colorbar(shown, ax=axes, label="gradient magnitude, largest = 1", shrink=0.8)
    top, left, bottom, right = result.theoretical
    field = f"theoretical field {bottom - top + 1}×{right - left + 1}"
    _frame(axes, (top, left, bottom - top + 1, right - left + 1), "#D55E00", field)
    for square in result.squares:
        label = f"{square.mass:.0%} of the mass: side {square.side}"
        frame = (square.top, square.left, square.side, square.side)
        _frame(axes, frame, COLOURS[square.mass], label)
    axes.set_xlim(min(left, 0) - 1.5, max(right, width - 1) + 1.5)
    axes.set_ylim(max(bottom, height - 1) + 1.5, min(top, 0) - 1.5)
    axes.set_facecolor("0.85")  # outside of the image
    unit = f"unit {result.unit} of {result.layer}" if result.unit else "the largest logit"
    axes.set_title(f"{unit}, {result.samples} images of {height}×{width}", fontsize=10)
    axes.set_xlabel("pixel")
    axes.set_ylabel("pixel")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def _frame(axes: Axes, frame: tuple[int, int, int, int], colour: str, label: str) -> None:
    top, left, height, width = frame
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2, label=label)
    )
