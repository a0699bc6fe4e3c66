"""`cifar-cnn receptive-field`: the receptive field of every layer."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.cli import networks as several
from cifar_cnn.cli.options import AssumePointwise, JsonFlag, MinRf, settings_options
from cifar_cnn.cli.output import print_json
from cifar_cnn.errors import SettingsError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.run_files import check_result

if TYPE_CHECKING:
    from cifar_cnn.storage.network import Network


@settings_options(
    "model_arg",
    "input_size",
    "dataset",
    "data_dir",
    "seed",
    model_arg="none, or the checkpoint's own",
    input_size="32x32, or the checkpoint's own",
    dataset="the checkpoint's own, else synthetic",
    data_dir="data, or the checkpoint's own",
)
def receptive_field(  # noqa: PLR0917 - typer reads the flags from it
    networks: several.Networks = None,
    model: several.Models = None,
    min_rf: MinRf = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Prove every layer's field by setting pixels to NaN."),
    ] = False,
    effective: Annotated[
        bool,
        typer.Option("--effective", help="Show which pixels really move the last map's center."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights for --effective (default: fresh ones, drawn from --seed)."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Test images for --effective.")] = 64,
    target: Annotated[
        Literal["features", "logits"],
        typer.Option(help="Unit for --effective: of the last map, or the output."),
    ] = "features",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Picture for --effective.")
    ] = None,
    assume_pointwise: AssumePointwise = None,
    time_limit: several.TimeLimit = 60,
    csv: several.CsvFile = None,
    junit: several.JunitFile = None,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Receptive field, jump and padding of every layer.

    Several networks get a line each; their code runs in processes of their own.
    Exit status 1 when the field at the output is not above --min-rf, or --verify does not agree.

    Examples:
        cifar-cnn receptive-field --verify
        cifar-cnn receptive-field student.py --input-size 64x48
        cifar-cnn receptive-field --effective --plot field.png
    """
    from cifar_cnn.analysis.many import field_of
    from cifar_cnn.analysis.proof import verify as prove
    from cifar_cnn.analysis.receptive_field import receptive_field as compute
    from cifar_cnn.analysis.results import EffectiveField
    from cifar_cnn.report import analysis_tables as tables
    from cifar_cnn.report.console import people_console, progress_console, say
    from cifar_cnn.storage.files import write_result

    _check_effective(checkpoint, plot, effective=effective)
    models, overrides = several.asked(networks or [], model or [], overrides)
    budget = read_budget({} if min_rf is None else {"min_rf": min_rf})
    vouched = assume_pointwise or ()
    if len(models) > 1 or csv or junit:
        if verify or effective:
            raise SettingsError("--verify and --effective are for one network: give one")
        job = partial(
            field_of,
            overrides=overrides,
            minimum=budget.min_rf,
            assume_pointwise=vouched,
        )
        several.answer_many(job, models, "receptive-field", time_limit, csv, junit, json=json)
        return
    network, checkpoint = _network(models[0], checkpoint, overrides)
    settings = network.settings
    result = compute(network, settings.input_size, minimum=budget.min_rf, assume_pointwise=vouched)
    found: EffectiveField | None = None
    console = people_console(json=json)
    if effective:  # before anything is shown, as its images may not be there
        from cifar_cnn.api import effective_field
        from cifar_cnn.report.loading import LoadingProgress

        with LoadingProgress(console) as loading:
            found = effective_field(
                checkpoint,
                overrides | {"model_arg": settings.model_arg},  # said, where the checkpoint's own
                samples=samples,
                target=target,
                assume_pointwise=vouched,
                loading=loading,
            )
    if network.title:
        say(console, network.title)
    from_file = min_rf is None and "min_rf" in budget.model_fields_set
    tables.show_receptive_field(console, result, budget.file if from_file else None)
    passed = result.passed
    if verify:
        with tables.proof_progress(progress_console(json=json)) as progress:
            proof = prove(
                network,
                settings.input_size,
                assume_pointwise=vouched,
                progress=progress,
            )
        tables.show_verification(console, proof)
        result = result.model_copy(update={"verification": proof})
        passed = passed and proof.agreed
    if found:
        from cifar_cnn.report.effective_picture import draw_effective

        weights = (
            f"weights of {checkpoint}" if checkpoint else f"fresh weights, seed {settings.seed}"
        )
        tables.show_effective(console, found, weights)
        result = result.model_copy(update={"effective": found})
        if plot is not None:
            write_result(plot, draw_effective(found))
    if json:
        print_json(result)
    if not passed:
        raise typer.Exit(1)


def _check_effective(checkpoint: Path | None, plot: Path | None, *, effective: bool) -> None:
    if not effective and (checkpoint is not None or plot is not None):
        raise SettingsError("--checkpoint and --plot are for the effective field: add --effective")
    if plot is not None:
        check_result("--plot", plot, ".png")


def _network(
    name: str, checkpoint: Path | None, overrides: dict[str, Any]
) -> tuple["Network", Path | None]:
    """Return the network, and the file of its weights where there is one."""
    from cifar_cnn.storage.network import Network, is_file_of_weights, open_network

    if checkpoint is None:
        network = open_network(name, overrides)
        return network, network.file
    if is_file_of_weights(name):
        raise SettingsError(f"--checkpoint and {name} are both files of weights: give one")
    network = open_network(checkpoint, overrides)
    settings = network.settings if network.checkpoint else resolve_settings(overrides)
    return Network(settings), checkpoint
