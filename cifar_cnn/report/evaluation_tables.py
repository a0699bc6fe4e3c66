"""Show the result of an evaluation, and predictions."""

import itertools
from collections.abc import Sequence
from functools import partial
from operator import itemgetter

from rich.console import Console
from rich.text import Text

from cifar_cnn.errors import counted, printable
from cifar_cnn.inference.evaluate import CheckpointEvaluation
from cifar_cnn.inference.predict import Prediction
from cifar_cnn.report.console import NARROW, Column, Table, say, warn

MAX_CONFUSED = 5
MAX_BAR = 30
EIGHTHS = " ▏▎▍▌▋▊▉"


def show_evaluation(console: Console, result: CheckpointEvaluation) -> None:
    """Print the figures, the accuracy of each class and what is confused with what."""
    for note in result.notes:
        warn(console, f"note: {note}")
    cut = f" (test_size {result.test_size:g})" if result.test_size else ""
    averaged = ", mirror images averaged" if result.tta else ""
    images = counted(result.samples, f"{result.split} image")
    title = f"{result.checkpoint}: {result.model} on {images} of {result.dataset}{cut}{averaged}"
    say(console, title, wrap=True)
    console.print(
        f"loss {result.loss:.4f}  accuracy {result.accuracy:.2%} "
        f"({result.correct}/{result.samples})  "
        f"calibration error {result.calibration_error:.4f}\n"
        f"balanced accuracy {result.balanced_accuracy:.2%}  macro f1 {result.macro.f1:.4f}"
    )
    scores = result.per_class
    columns = [
        Column("class", str),
        Column("accuracy", lambda name: scores[name].recall, ".2%", right=True),
        Column("precision", lambda name: scores[name].precision, ".2%", right=True, least=NARROW),
        Column("f1", lambda name: scores[name].f1, ".2%", right=True, least=NARROW),
        Column("images", lambda name: scores[name].samples, right=True),
    ]
    Table(columns, [*scores]).show(console)
    _show_confusion(console, [*scores], result.confusion)


def _show_confusion(console: Console, names: list[str], confusion: list[list[int]]) -> None:
    """Print the confusion matrix; if the console is too narrow, its largest errors."""

    def image_count(predicted: int, true: int) -> Text:
        return Text(str(confusion[true][predicted]), "bold" if true == predicted else "")

    classes = range(len(names))
    columns = [Column("", lambda true: f"{true} {names[true]}")]
    columns += [Column(str(i), partial(image_count, i), right=True) for i in classes]
    matrix = Table(columns, classes)
    if matrix.measure(console) <= console.width:
        console.print("true class (row) by predicted class (column)")
        matrix.show(console)
        return
    errors = [
        (confusion[true][predicted], names[true], names[predicted])
        for true, predicted in itertools.permutations(classes, 2)
        if confusion[true][predicted]
    ]
    columns = [Column("true", itemgetter(1)), Column("taken for", itemgetter(2))]
    columns.append(Column("images", itemgetter(0), right=True))
    console.print("most confused")
    Table(columns, sorted(errors, reverse=True)[:MAX_CONFUSED]).show(console)


class PredictionPrinter:
    """Prints each image's classes with a bar; with a single class, a line an image."""

    def __init__(
        self, console: Console, classes: Sequence[str], input_size: tuple[int, int]
    ) -> None:
        self._file, self._quiet = console.file, console.quiet
        self._name_width = max(map(len, classes))
        self._bar_width = max(1, min(MAX_BAR, console.width - self._name_width - 13))
        height, width = input_size
        order = "" if height == width else ", height×width"
        self._note = f" (resized to {height}×{width}{order})"

    def show(self, image: Prediction) -> None:
        """Print it at once, without a formatter's time: there may be many thousands."""
        if self._quiet:
            return
        title = printable(image.file) + (self._note if image.resized else "")
        if len(image.top) == 1:
            (best,) = image.top
            line = f"{best.name.ljust(self._name_width)} {best.probability:7.2%}  {title}\n"
            self._file.write(line)
        else:
            rows = [
                f"  {each.name.ljust(self._name_width)}  {self._bar(each.probability)} "
                f"{each.probability:7.2%}\n"
                for each in image.top
            ]
            self._file.writelines([f"{title}\n", *rows])
        self._file.flush()

    def _bar(self, share: float) -> str:
        """Return a bar, exact to an eighth of a column."""
        full, eighths = divmod(round(8 * self._bar_width * share), 8)
        return ("█" * full + EIGHTHS[eighths].strip()).ljust(self._bar_width)
