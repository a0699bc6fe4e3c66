"""The style that all pictures share, and pictures made of panels."""

import io
import struct
import warnings
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
"""Of Okabe and Ito's palette, safe for the color-blind."""

PANEL = (4.6, 3.8)
"""Inches of a panel that stands beside another on a page, or above it on a telephone."""

_DPI = 110
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar in the name of a class is a dollar
}


@dataclass(frozen=True)
class Picture:
    """A picture of a report: its file, what it shows, and its panels, PNGs of one height."""

    file: str
    shows: str
    panels: Sequence[bytes]

    @property
    def content(self) -> bytes:
        """The panels beside one another, as the file has them."""
        return side_by_side(self.panels)

    @property
    def sources(self) -> list[tuple[str, float]]:
        """Each panel as a page has it, and its width by its height."""
        return [(f"data:image/png;base64,{b64encode(p).decode()}", _aspect(p)) for p in self.panels]


def draw(
    width: float, height: float, fill: Callable[[Figure], None], *, colors: int | None = 128
) -> bytes:
    """Return a PNG of `width` by `height` inches.

    With `colors` it has no more than so many, which makes it a third of the size.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names beyond the font's letters
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
        fill(figure)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    if colors is None:
        return content.getvalue()
    with Image.open(content) as image:
        return _reduced(image.convert("RGB"), colors)


def side_by_side(panels: Sequence[bytes]) -> bytes:
    """Return a PNG of panels of one height beside one another."""
    if len(panels) == 1:
        return panels[0]
    images = [Image.open(io.BytesIO(panel)).convert("RGB") for panel in panels]
    whole = Image.new("RGB", (sum(each.width for each in images), images[0].height))
    left = 0
    for each in images:
        whole.paste(each, (left, 0))
        left += each.width
    return _reduced(whole, 128)


def ending(name: str, length: int) -> str:
    """Return `name`, cut at its start: files and layers are told apart by their ends."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def shortened(name: str, length: int = 18) -> str:
    """Return `name`, cut to what fits beside an axis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _aspect(png: bytes) -> float:
    width, height = struct.unpack(">II", png[16:24])  # of the header
    return float(width / height)


def _reduced(image: Image.Image, colors: int) -> bytes:
    content = io.BytesIO()
    image.quantize(colors, dither=Image.Dither.NONE).save(content, "png")
    return content.getvalue()
