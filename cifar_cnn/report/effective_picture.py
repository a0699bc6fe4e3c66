"""The effective receptive field as a picture."""

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cifar_cnn.analysis.results import EffectiveField
from cifar_cnn.errors import counted
from cifar_cnn.report.figures import GREEN, ORANGE, SKY, picture

SQUARES = {0.5: SKY, 0.9: GREEN}


def draw_effective(result: EffectiveField) -> bytes:
    """Return a PNG: the heat map, the theoretical field, the squares that hold 50 % and 90 %."""
    height, width = result.heat.shape
    top, left = result.theoretical.top, result.theoretical.left
    rows, columns = result.theoretical.receptive_field

    def draw(figure: Figure) -> None:
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

    return picture(6.4, 5.4, draw, colors=None)


def _frame(axes: Axes, frame: tuple[int, int, int, int], color: str, label: str) -> None:
    top, left, height, width = frame
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=2, label=label)
    )
