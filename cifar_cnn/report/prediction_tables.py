"""Predictions, for people."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from cifar_cnn.inference.predict import Prediction, Predictions

LONGEST_BAR = 30
EIGHTHS = " ▏▎▍▌▋▊▉"


def show_predictions(console: Console, predictions: Predictions) -> None:
    """Print each image's classes with a bar; where only one class is asked, a line an image."""
    height, width = predictions.input_size
    note = f" (resized to {width}×{height})"
    lines = Text(no_wrap=True)
    names = max(len(name) for image in predictions.images for name, _ in image.top)
    bar = max(1, min(LONGEST_BAR, console.width - names - 13))
    for image in predictions.images:
        said = note if image.resized else ""
        if len(image.top) == 1:
            ((name, probability),) = image.top
            lines.append(f"{name.ljust(names)} {probability:7.2%}  {image.file}{said}\n")
            continue
        lines.append(f"{image.file}{said}\n")
        for row in _rows(image, names, bar):
            lines.append(row)
    console.print(lines, end="", soft_wrap=True)


def _rows(image: Prediction, names: int, longest: int) -> Iterator[str]:
    for name, probability in image.top:
        yield f"  {name.ljust(names)}  {_bar(probability, longest)} {probability:7.2%}\n"


def _bar(probability: float, longest: int) -> str:
    """Return a bar of `longest` columns, exact to an eighth of a column."""
    full, eighths = divmod(round(8 * longest * probability), 8)
    return ("█" * full + EIGHTHS[eighths].strip()).ljust(longest)
