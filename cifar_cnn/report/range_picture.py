"""The learning rate range test as a picture."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from cifar_cnn.report.figures import BLUE, GREEN, ORANGE, PINK, picture
from cifar_cnn.training.range_test import RangeTest


def draw_range(result: RangeTest) -> bytes:
    """Return a PNG of the loss over the learning rate, with what was read from it."""
    rates, losses, smoothed = zip(
        *((each.lr, each.loss, each.smoothed_loss) for each in result.curve), strict=True
    )

    def draw(figure: Figure) -> None:
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

    return picture(9, 4, draw)
