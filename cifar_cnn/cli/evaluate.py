"""`cifar-cnn evaluate`: how good a checkpoint is."""

from typing import Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.cli.options import OWN, BareNormalization, CsvFile, OutputDir, RunArgument, command
from cifar_cnn.storage.naming import RUNS, find_checkpoint


@command(
    model=f"{OWN}; baseline for a bare state dict",
    model_arg=OWN,
    dataset=OWN,
    data_dir=OWN,
    limit_train=OWN,
    limit_eval="",
    input_size=OWN,
    precision=OWN,
    threads="",
    device="",
)
def evaluate(
    file: RunArgument,
    split: Annotated[str | None, typer.Option(metavar="train|val|test")] = None,
    tta: bool = False,
    predictions: CsvFile = None,
    normalization: BareNormalization = None,
    output_dir: OutputDir = RUNS,
    *,
    console: Console,
    overrides: dict[str, Any],
) -> tuple[Any, int]:
    """Loss, accuracy, confusion and calibration of a checkpoint. Alias: eval.

    Options:
        file: Run (its model.pt), or model.pt, best.pt, last.pt, an ONNX file or a state dict.
        split: Split to evaluate; val is the validation split of the training run (default: test,
            or val/ if a folder has no test/).
        tta: Average each image's answer with its mirror image's.
        predictions: Write file, true, predicted, probability and correct of each image.

    Examples:
        cifar-cnn eval runs/first/model.pt
        cifar-cnn eval runs/first/model.pt --tta --predictions all.csv
    """
    from cifar_cnn.inference.evaluate import evaluate as evaluate_checkpoint
    from cifar_cnn.inference.evaluate import write_predictions
    from cifar_cnn.report.evaluation_tables import show_evaluation
    from cifar_cnn.report.progress import Display

    with Display(console) as progress:
        result = evaluate_checkpoint(
            find_checkpoint(file, output_dir),
            split=split,
            tta=tta,
            overrides=overrides,
            normalization=normalization,
            progress=progress,
        )
    if predictions is not None:
        write_predictions(result.images, predictions)
    show_evaluation(console, result)
    return result, 0
