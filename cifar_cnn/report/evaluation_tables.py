"""The result of an evaluation, and predictions, for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from cifar_cnn.errors import counted, printable
from cifar_cnn.inference.evaluate import CheckpointEvaluation
from cifar_cnn.inference.predict import Prediction
from cifar_cnn.report.console import NARROW, say, warn
from cifar_cnn.report.table import Table, numbers, texts

MOST_CONFUSED = 5
CONFUSION = "true class (row) by predicted class (column)"
LONGEST_BAR = 30
EIGHTHS = " ▏▎▍▌▋▊▉"


def show_evaluation(console: Console, result: CheckpointEvaluation) -> None:
    """Print the figures, the accuracy of each class and what is confused with what."""
    for note in result.notes:
        warn(console, f"note: {note}")
    cut = f" (test_size {result.test_size:g})" if result.test_size else ""
    averaged = ", mirror images averaged" if result.tta else ""
    images = counted(result.samples, f"{result.split} image")
    said = f"{result.checkpoint}: {result.model} on {images} of {result.dataset}{cut}{averaged}"
    say(console, said, wrap=True)
    console.print(
        f"loss {result.loss:.4f}  accuracy {result.accuracy:.2%} "
        f"({result.correct}/{result.samples})  "
        f"calibration error {result.calibration_error:.4f}"
    )
    console.print(
        f"balanced accuracy {result.balanced_accuracy:.2%}  macro f1 {result.macro.f1:.4f}"
    )
    console.print(_class_table(result).on(console))
    matrix = _confusion_table(result)
    width = matrix.width(console)
    if width > console.width:
        console.print(_most_confused_table(result).on(console, "most confused"))
    elif width < len(CONFUSION):  # as a title it would be as narrow as the table
        console.print(CONFUSION, matrix.on(console), sep="\n")
    else:
        console.print(matrix.on(console, CONFUSION))


def _class_table(result: CheckpointEvaluation) -> Table:
    columns = [
        *texts("class"),
        *numbers("accuracy", form=".2%"),
        *numbers("precision", "f1", form=".2%", least=NARROW),
        *numbers("images"),
    ]
    rows = [
        (name, each.recall, each.precision, each.f1, each.samples)
        for name, each in result.per_class.items()
    ]
    return Table(columns, rows)


def _confusion_table(result: CheckpointEvaluation) -> Table:
    columns = [*texts(""), *numbers(*map(str, range(len(result.per_class))))]
    rows = [
        (
            f"{true} {name}",
            *(Text(str(n), "bold") if i == true else n for i, n in enumerate(counts)),
        )
        for true, (name, counts) in enumerate(zip(result.per_class, result.confusion, strict=True))
    ]
    return Table(columns, rows)


def _most_confused_table(result: CheckpointEvaluation) -> Table:
    """Return the largest cells off the matrix's diagonal, for a narrow screen."""
    cells = [
        (count, true, predicted)
        for true, row in zip(result.per_class, result.confusion, strict=True)
        for predicted, count in zip(result.per_class, row, strict=True)
        if true != predicted and count
    ]
    columns = [*texts("true", "taken for"), *numbers("images")]
    return Table(
        columns, [(*names, n) for n, *names in sorted(cells, reverse=True)[:MOST_CONFUSED]]
    )


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
            rows = [
                f"  {each.name.ljust(self._names)}  {_bar(each.probability, self._bar)} "
                f"{each.probability:7.2%}\n"
                for each in image.top
            ]
            self._file.writelines([f"{said}\n", *rows])
        self._file.flush()


def _bar(share: float, longest: int) -> str:
    """Return a bar of `longest` columns, exact to an eighth of a column."""
    full, eighths = divmod(round(8 * longest * share), 8)
    return ("█" * full + EIGHTHS[eighths].strip()).ljust(longest)
