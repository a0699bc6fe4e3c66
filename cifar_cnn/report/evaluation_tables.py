"""The result of an evaluation, for people."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cifar_cnn.errors import counted
from cifar_cnn.inference.evaluate import CheckpointEvaluation
from cifar_cnn.report.console import NARROW, natural_width, say, warn

MOST_CONFUSED = 5
CONFUSION = "true class (row) by predicted class (column)"


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
    console.print(_class_table(result, narrow=console.width < NARROW))
    matrix = _confusion_table(result)
    width = natural_width(console, matrix)
    if width <= console.width:
        if width < len(CONFUSION):  # as a title it would be as narrow as the table
            console.print(CONFUSION)
        else:
            matrix.title = CONFUSION
        console.print(matrix)
    else:
        console.print(_most_confused_table(result))


def _class_table(result: CheckpointEvaluation, *, narrow: bool) -> Table:
    table = Table("class", box=None, pad_edge=False)
    for name in ("accuracy", "images") if narrow else ("accuracy", "precision", "f1", "images"):
        table.add_column(name, justify="right")
    for name, each in result.per_class.items():
        shares = (each.recall,) if narrow else (each.recall, each.precision, each.f1)
        shown = ["–" if share is None else f"{share:.2%}" for share in shares]
        table.add_row(escape(name), *shown, str(each.samples))
    return table


def _confusion_table(result: CheckpointEvaluation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for index in range(len(result.per_class)):
        table.add_column(str(index), justify="right")
    for index, (name, counts) in enumerate(zip(result.per_class, result.confusion, strict=True)):
        cells = [f"[bold]{n}[/]" if i == index else str(n) for i, n in enumerate(counts)]
        table.add_row(escape(f"{index} {name}"), *cells)
    return table


def _most_confused_table(result: CheckpointEvaluation) -> Table:
    """The narrow screen's answer: the largest cells off the matrix's diagonal."""
    cells = [
        (count, true, predicted)
        for true, row in zip(result.per_class, result.confusion, strict=True)
        for predicted, count in zip(result.per_class, row, strict=True)
        if true != predicted and count
    ]
    table = Table("true", "taken for", box=None, pad_edge=False, title="most confused")
    table.add_column("images", justify="right")
    for count, true, predicted in sorted(cells, reverse=True)[:MOST_CONFUSED]:
        table.add_row(escape(true), escape(predicted), str(count))
    return table
