"""`cifar-cnn predict`: what a trained network says of images."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from cifar_cnn.cli.evaluate import OWN
from cifar_cnn.cli.options import JsonFlag, settings_options
from cifar_cnn.cli.output import print_json

STDIN = "-"


@settings_options("model", "precision", "threads", "device", model=OWN, precision=OWN)
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help='Files, folders, patterns ("photos/*.png"), or - for stdin.'
        ),
    ],
    checkpoint: Annotated[
        Path, typer.Option(metavar="FILE", help="model.pt, best.pt or last.pt of a run.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 3,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Classes of images of any size, most probable first.

    With --top 1 each image is one line.
    """
    from cifar_cnn.inference.predict import predict as predict_images
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.prediction_tables import show_predictions

    sources: list[str | BinaryIO] = [
        BytesIO(sys.stdin.buffer.read()) if image == STDIN else image for image in images
    ]
    predictions = predict_images(sources, checkpoint, top=top, overrides=overrides)
    show_predictions(people_console(json=json), predictions)
    if json:
        print_json(predictions.as_dict())
