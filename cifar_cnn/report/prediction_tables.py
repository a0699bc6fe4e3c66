"""Predictions, for people."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from cifar_cnn.errors import printable
from cifar_cnn.inference.predict import Prediction

LONGEST_BAR = 30
EIGHTHS = " ▏▎▍▌▋▊▉"


class PredictionLines:
    """Prints each image's classes with a bar; where only one class is asked, a line an image."""

    def __init__(
        self, console: Console, classes: Sequence[str], input_size: tuple[int, int]
    ) -> None:
        self._file, self._quiet = console.file, console.quiet
        self._names = max(map(len, classes))
        self._bar = max(1, min(LONGEST_BAR, console.width - self._names - 13))
        height, width = input_size
        order = "" if height == width else ", height×width"
        self._note = f" (resized to {height}×{width}{order})"

    def show(self, image: Prediction) -> None:
        """Print it at once, without a formatter's time: there may be many thousands."""
        if self._quiet:
            return
        said = printable(image.file) + (self._note if image.resized else "")
        if len(image.top) == 1:
            (best,) = image.top
            self._file.write(f"{best.name.ljust(self._names)} {best.probability:7.2%}  {said}\n")
        else:
            self._file.writelines([f"{said}\n", *self._rows(image)])
        self._file.flush()

    def _rows(self, image: Prediction) -> Iterator[str]:
        for each in image.top:
            bar = _bar(each.probability, self._bar)
            yield f"  {each.name.ljust(self._names)}  {bar} {each.probability:7.2%}\n"


def _bar(probability: float, longest: int) -> str:
    """Return a bar of `longest` columns, exact to an eighth of a column."""
    full, eighths = divmod(round(8 * longest * probability), 8)
    return ("█" * full + EIGHTHS[eighths].strip()).ljust(longest)
