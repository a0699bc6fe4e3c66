"""`cifar-cnn predict`: classify images with a trained network."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console

from cifar_cnn.cli.options import OWN, BareNormalization, OutputDir, PngFile, command, complete_run
from cifar_cnn.errors import DataError, printable
from cifar_cnn.report.console import say
from cifar_cnn.storage.naming import RUNS, find_checkpoint

if TYPE_CHECKING:
    from cifar_cnn.inference.predict import Prediction, Unreadable

STDIN = "-"


@command(
    model=f"{OWN}; baseline for a bare state dict",
    model_arg=OWN,
    dataset=f"{OWN}; a bare state dict gets its classes from it, cifar10 unless said",
    data_dir=OWN,
    input_size=OWN,
    precision="fp32, as in exported files",
    threads="",
    device="",
)
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE")],
    checkpoint: Annotated[Path, typer.Option(metavar="RUN|FILE", autocompletion=complete_run)],
    top: Annotated[int, typer.Option(min=1)] = 3,
    explain: PngFile = None,
    normalization: BareNormalization = None,
    output_dir: OutputDir = RUNS,
    *,
    console: Console,
    overrides: dict[str, Any],
) -> tuple[Any, int]:
    """Classes of images of any size, most probable first.

    With --top 1 each image is one line. Images without an answer come last: exit code 1.

    Options:
        images: Files, folders, patterns ("photos/*.png"), or - for stdin.
        checkpoint: Run (its model.pt), its best.pt or last.pt, or a state dict.
        top: Classes to show for each image.
        explain: Picture of where the first class of each image comes from (Grad-CAM); of many
            images the first 16.

    Examples:
        cifar-cnn predict photo.png --checkpoint runs/first/model.pt
        cifar-cnn predict photos --checkpoint runs/first/model.pt --top 1
    """
    from cifar_cnn.inference.predict import FP32, Predictions, Unreadable, classify
    from cifar_cnn.inference.trained import open_trained
    from cifar_cnn.report.evaluation_tables import PredictionPrinter
    from cifar_cnn.storage.files import write_result

    file = find_checkpoint(checkpoint, output_dir)
    sources = [_read_standard_input() if image == STDIN else image for image in images]
    network = open_trained(file, FP32 | overrides, normalization=normalization)
    _print_notes(network.notes)
    if explain is not None:
        from cifar_cnn.report.mosaics import Explanation  # and matplotlib

        explanation = Explanation(network)
    lines = PredictionPrinter(console, network.classes, network.settings.input_size)
    predictions: list[Prediction] = []
    unreadable: list[Unreadable] = []
    for answer in classify(network, sources, top=top):
        if isinstance(answer, Unreadable):
            unreadable.append(answer)
        else:
            lines.show(answer)
            predictions.append(answer)
    result = Predictions(predictions=tuple(predictions), precision=network.precision)
    _print_notes(result.notes)
    sys.stderr.writelines(f"cifar-cnn: {printable(each.reason)}\n" for each in unreadable)
    more: dict[str, Any] = {}
    status = DataError.exit_status if unreadable else 0
    if unreadable:
        reason = f"{len(unreadable)} of the images, the first because: {unreadable[0].reason}"
        more = {"error": f"no answer: {reason}", "exit_status": status}
        more["unreadable"] = tuple(unreadable)
    if explain is not None and predictions:
        _check_is_no_image(explain, [*predictions, *unreadable])
        write_result(explain, explanation.draw(predictions))
        say(console, f"saved {explain}: {explanation.describe(len(predictions))}")
        more["explain"] = explain
    return result.model_copy(update=more), status


def _print_notes(notes: Sequence[str]) -> None:
    sys.stderr.writelines(f"note: {printable(note)}\n" for note in notes)


def _check_is_no_image(picture: Path, answers: "Sequence[Prediction | Unreadable]") -> None:
    for each in answers:
        with suppress(OSError):  # one of the two does not exist
            if picture.samefile(each.file):
                raise DataError(f"{picture} is one of the images: give --explain another name")


def _read_standard_input() -> BinaryIO:
    content = sys.stdin.buffer.read()
    if not content:
        raise DataError("standard input is closed or empty: there is no image in it")
    return BytesIO(content)
