"""How the receptive field grows through a network, as a picture."""

from matplotlib.figure import Figure

from cifar_cnn.analysis.results import ReceptiveField
from cifar_cnn.report.figures import BLUE, NARROW, ORANGE, WIDE, ending, picture

MOST_LAYERS = 40


def draw_receptive_field(result: ReceptiveField, *, narrow: bool = False) -> bytes:
    """Return a PNG: the field after each layer that has a window, and at the output.

    Of very deep networks the last layers are shown.
    """
    rows = [(layer.name, min(layer.receptive_field)) for layer in result.layers if layer.has_window]
    rows = [*rows[-MOST_LAYERS:], ("output", min(result.final.receptive_field))]
    names, sizes = zip(*rows, strict=True)
    side = min(result.input_size[1:])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(range(len(rows)), sizes, color=BLUE, height=0.65)
        axes.bar_label(bars, padding=3, fontsize=9)
        axes.set_yticks(range(len(rows)), [ending(name, 30) for name in names])
        axes.invert_yaxis()
        axes.axvline(side, color="0.45", linestyle=":", linewidth=1.2, label=f"image: {side}")
        limit = f"has to be above {result.minimum}"
        axes.axvline(result.minimum, color=ORANGE, linestyle="--", linewidth=1.2, label=limit)
        axes.set_xlim(0, 1.1 * max(*sizes, side, result.minimum))
        axes.set_xlabel("receptive field (pixels, the smaller side)")
        figure.legend(loc="outside upper right", frameon=False, ncols=2)

    width, _ = NARROW if narrow else WIDE
    return picture(width, 0.3 * len(rows) + 1.3, draw)
