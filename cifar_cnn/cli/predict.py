"""`cifar-cnn predict`: classify images with a trained network."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from cifar_cnn.cli.options import (
    OWN,
    BareNormalization,
    JsonFlag,
    OutputDir,
    complete_run,
    settings_options,
)
from cifar_cnn.cli.output import print_json
from cifar_cnn.errors import DataError, printable
from cifar_cnn.storage.naming import RUNS, find_checkpoint
from cifar_cnn.training.run_files import check_result

STDIN = "-"


@settings_options(
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
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help='Files, folders, patterns ("photos/*.png"), or - for stdin.'
        ),
    ],
    checkpoint: Annotated[
        Path,
        typer.Option(
            metavar="RUN|FILE",
            help="Run (its model.pt), its best.pt or last.pt, or a state dict.",
            autocompletion=complete_run,
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 3,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Picture of where the first class of each image comes from (Grad-CAM); of many "
            "images the first 16.",
        ),
    ] = None,
    normalization: BareNormalization = None,
    output_dir: OutputDir = RUNS,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Classes of images of any size, most probable first.

    With --top 1 each image is one line. Images without an answer come last: exit code 1.

    Examples:
        cifar-cnn predict photo.png --checkpoint runs/first/model.pt
        cifar-cnn predict photos --checkpoint runs/first/model.pt --top 1
    """
    from cifar_cnn.inference.predict import (
        FP32,
        Prediction,
        Predictions,
        Unreadable,
        answers,
    )
    from cifar_cnn.inference.trained import open_trained
    from cifar_cnn.report.console import people_console, say
    from cifar_cnn.report.evaluation_tables import PredictionPrinter
    from cifar_cnn.storage.files import write_result

    if explain is not None:
        check_result("--explain", explain, ".png")
    file = find_checkpoint(checkpoint, output_dir)
    sources = [_standard_input() if image == STDIN else image for image in images]
    network = open_trained(file, FP32 | overrides, normalization=normalization)
    _tell(network.notes)
    explanation = None
    if explain is not None:
        from cifar_cnn.report.mosaics import Explanation  # and matplotlib

        explanation = Explanation(network)
    console = people_console(json=json)
    lines = PredictionPrinter(console, network.classes, network.settings.input_size)
    found: list[Prediction] = []
    unreadable: list[Unreadable] = []
    for answer in answers(network, sources, top=top):
        if isinstance(answer, Unreadable):
            unreadable.append(answer)
        else:
            lines.show(answer)
            found.append(answer)
    predictions = Predictions(predictions=tuple(found), precision=network.precision)
    _tell(predictions.notes)
    for each in unreadable:
        sys.stderr.write(f"cifar-cnn: {printable(each.reason)}\n")
    more: dict[str, Any] = {}
    if unreadable:
        why = f"no answer: {len(unreadable)} of the images, the first because: "
        more = {"error": why + unreadable[0].reason, "exit_status": DataError.exit_status}
        more["unreadable"] = tuple(unreadable)
    if explain is not None and explanation is not None and found:
        _check_is_no_image(explain, [each.file for each in found])
        _check_is_no_image(explain, [each.file for each in unreadable])
        write_result(explain, explanation.draw(found))
        say(console, f"saved {explain}: {explanation.describe(len(found))}")
        more["explain"] = explain
    if json:
        print_json(predictions.model_copy(update=more))
    if unreadable:
        raise typer.Exit(DataError.exit_status)


def _tell(notes: Sequence[str]) -> None:
    sys.stderr.writelines(f"note: {printable(note)}\n" for note in notes)


def _check_is_no_image(picture: Path, images: Sequence[str]) -> None:
    for each in images:
        with suppress(OSError):  # one of the two is not there
            if picture.samefile(each):
                raise DataError(f"{picture} is one of the images: give --explain another name")


def _standard_input() -> BinaryIO:
    content = sys.stdin.buffer.read()
    if not content:
        raise DataError("standard input is closed or empty: there is no image in it")
    return BytesIO(content)
