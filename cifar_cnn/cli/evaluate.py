"""`cifar-cnn evaluate`: how good a checkpoint is."""

from pathlib import Path
from typing import Annotated, Any

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
from cifar_cnn.storage.naming import RUNS, find_checkpoint
from cifar_cnn.training.run_files import check_result


@settings_options(
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
    file: Annotated[
        Path,
        typer.Argument(
            help="Run (its model.pt), or model.pt, best.pt, last.pt or a state dict.",
            autocompletion=complete_run,
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="train|val|test",
            help="Split to evaluate; val is the validation split of the training run (default: "
            "test, or val/ if a folder has no test/).",
        ),
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average each image's answer with its mirror image's.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Write file, true, predicted, probability and correct of each image.",
        ),
    ] = None,
    normalization: BareNormalization = None,
    output_dir: OutputDir = RUNS,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Loss, accuracy, confusion and calibration of a checkpoint. Alias: eval.

    Examples:
        cifar-cnn eval runs/first/model.pt
        cifar-cnn eval runs/first/model.pt --tta --predictions all.csv
    """
    from cifar_cnn.inference.evaluate import evaluate as evaluate_checkpoint
    from cifar_cnn.inference.evaluate import write_predictions
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.evaluation_tables import show_evaluation
    from cifar_cnn.report.progress import Display

    if predictions is not None:
        check_result("--predictions", predictions, ".csv")
    checkpoint = find_checkpoint(file, output_dir)
    console = people_console(json=json)
    with Display(console) as progress:
        result = evaluate_checkpoint(
            checkpoint,
            split=split,
            tta=tta,
            overrides=overrides,
            normalization=normalization,
            progress=progress,
        )
    if predictions is not None:
        write_predictions(result.images, predictions)
    show_evaluation(console, result)
    if json:
        print_json(result)
