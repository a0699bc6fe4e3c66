"""`cifar-cnn export`: a trained network for other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.cli.options import OWN, OutputDir, RunArgument, command
from cifar_cnn.errors import counted
from cifar_cnn.report.console import format_size, say
from cifar_cnn.storage.naming import RUNS, find_checkpoint


@command(model=OWN, model_arg=OWN, data_dir=OWN)
def export(
    file: RunArgument,
    format: Annotated[str, typer.Option(metavar="onnx|torch-export|safetensors")],  # noqa: A002
    output: Path | None = None,
    with_preprocessing: bool = False,
    opset: int | None = None,
    int8: bool = False,
    *,
    calibration_images: int | None = None,
    max_drop: Annotated[float | None, typer.Option(metavar="POINTS")] = None,
    exist_ok: bool = False,
    output_dir: OutputDir = RUNS,
    console: Console,
    overrides: dict[str, Any],
) -> tuple[Any, int]:
    """Write a network for other programs, checked against PyTorch on 100 images.

    Exit code 1, and no file, if the exported network gives other answers, or int8 loses too much.

    Options:
        file: Run (its model.pt), or its best.pt or last.pt.
        format: What to write.
        output: File to write (default: beside the checkpoint, with its own ending).
        with_preprocessing: Take uint8 RGB images and give probabilities: normalization and softmax
            inside.
        opset: Version of ONNX's operators, 18 to 23 (default: 20).
        int8: Quantize the ONNX network to 8 bits, calibrated on training images and compared with
            fp32 on others.
        calibration_images: Training images that set the scales of int8 (default: 500, or half of
            fewer than 1,000).
        max_drop: Percentage points of accuracy that int8 may lose (default: 1).
        exist_ok: Replace the output where there is one.

    Examples:
        cifar-cnn export runs/first/model.pt --format onnx
        cifar-cnn export runs/first/model.pt --format safetensors --exist-ok
    """
    from cifar_cnn.inference import export as exporting
    from cifar_cnn.inference.formats import TIMED

    def describe(tensor: exporting.TensorFormat, otherwise: str) -> str:
        shape, ends = ", ".join(map(str, tensor.shape)), tensor.range
        values = f"{tensor.dtype} RGB {ends[0]}–{ends[1]}" if ends else otherwise
        return f"{tensor.name} ({shape}), {values}"

    result = exporting.export(
        find_checkpoint(file, output_dir),
        format,
        output,
        with_preprocessing=with_preprocessing,
        opset=opset,
        int8=int8,
        calibration_images=calibration_images,
        max_drop=max_drop,
        exist_ok=exist_ok,
        overrides=overrides,
    )
    say(
        console,
        f"saved {result.file}: {result.format}, {format_size(result.size)}",
        f"input: {describe(result.inputs, 'normalized float32')}",
        f"output: {describe(result.outputs, 'float32')}",
        f"largest difference from PyTorch on {exporting.CHECKED} images: "
        f"{result.max_difference:.2g}{' (fp32)' if int8 else ''}",
        f"latency: {result.milliseconds:.2f} ms (one image, median of {TIMED})",
    )
    if result.int8 is None:
        say(console, "arithmetic: fp32, as predict's unless --precision says otherwise")
        return result, 0
    both, seen = result.int8, result.int8.eval_split
    calibrated = f"calibrated on {counted(both.calibration_images, 'training image')}"
    say(
        console,
        f"int8: {calibrated}, compared with fp32 on {both.compared_images:,} others",
        *(
            f"{name}: {format_size(each.size)}, {each.milliseconds:.2f} ms, "
            f"{each.train_accuracy:.2%} of these, {each.eval_accuracy:.2%} of the {seen} images"
            for name, each in (("fp32", both.fp32), ("int8", both.int8))
        ),
    )
    return result, 0
