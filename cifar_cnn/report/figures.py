"""The style that all pictures share: light, color-blind-safe, no ornament."""

import io
import warnings
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
"""Of Okabe and Ito's palette, safe for the color-blind."""

WIDE, NARROW = (9, 3.8), (5.2, 6.8)
"""Inches of two panels: side by side on a page, or one above the other on a telephone."""

_DPI = 110
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar in the name of a class is a dollar
}


def picture(
    width: float, height: float, draw: Callable[[Figure], None], *, colors: int | None = 128
) -> bytes:
    """Return a PNG of `width` by `height` inches that `draw` fills.

    With `colors` it has no more than so many, which makes it a third of the size.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names beyond the font's letters
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
        draw(figure)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    if colors is None:
        return content.getvalue()
    reduced = io.BytesIO()
    with Image.open(content) as image:
        image.convert("RGB").quantize(colors, dither=Image.Dither.NONE).save(reduced, "png")
    return reduced.getvalue()


def ending(name: str, length: int) -> str:
    """Return `name`, cut at its start: files and layers are told apart by their ends."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def shortened(name: str, length: int = 18) -> str:
    """Return `name`, cut to what fits beside an axis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
