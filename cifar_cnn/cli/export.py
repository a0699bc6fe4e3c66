"""`cifar-cnn export`: a trained network for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cnn.cli.options import OWN, JsonFlag, OutputDir, complete_run, settings_options
from cifar_cnn.cli.output import print_json
from cifar_cnn.storage.naming import RUNS, find_checkpoint

if TYPE_CHECKING:
    from cifar_cnn.inference.export import TensorFormat


@settings_options(model=OWN, model_arg=OWN)
def export(
    file: Annotated[
        Path,
        typer.Argument(
            help="Run (its model.pt), or its best.pt or last.pt.", autocompletion=complete_run
        ),
    ],
    format: Annotated[  # noqa: A002 - the flag's name
        str, typer.Option(metavar="onnx|torch-export|safetensors", help="What to write.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="File to write (default: beside the checkpoint, with its own ending)."),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take uint8 RGB images and give probabilities: normalization and softmax inside.",
        ),
    ] = False,
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators, 18 to 23 (default: 20).")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Replace the output where there is one.")
    ] = False,
    output_dir: OutputDir = RUNS,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Write a network for other programs, in fp32, checked against PyTorch on 100 images.

    Exit code 1, and no file, if the exported network gives other answers.

    Examples:
        cifar-cnn export runs/first/model.pt --format onnx
        cifar-cnn export runs/first/model.pt --format safetensors --exist-ok
    """
    from cifar_cnn.inference import export as exporting
    from cifar_cnn.report.console import format_size, people_console, say

    done = exporting.export(
        find_checkpoint(file, output_dir),
        format,
        output,
        with_preprocessing=with_preprocessing,
        opset=opset,
        exist_ok=exist_ok,
        overrides=overrides,
    )
    console = people_console(json=json)
    say(
        console,
        f"saved {done.file}: {done.format}, {format_size(done.size)}",
        f"input: {_described(done.inputs, 'normalized float32')}",
        f"output: {_described(done.outputs, 'float32')}",
        f"largest difference from PyTorch on {exporting.CHECKED} images: {done.max_difference:.2g}",
        f"latency: {done.milliseconds:.2f} ms (one image, median of {exporting.TIMED})",
        "arithmetic: fp32, as predict's unless --precision says otherwise",
    )
    if json:
        print_json(done)


def _described(tensor: "TensorFormat", without_range: str) -> str:
    shape, ends = ", ".join(map(str, tensor.shape)), tensor.range
    values = f"{tensor.dtype} RGB {ends[0]}–{ends[1]}" if ends else without_range
    return f"{tensor.name} ({shape}), {values}"
