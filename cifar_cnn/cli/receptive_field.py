"""`cifar-cnn receptive-field`: the receptive field of every layer."""

import math
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.results import ReceptiveField
from cifar_cnn.cli import networks as several
from cifar_cnn.cli.options import AssumePointwise, JsonFlag, MinRf, settings_options
from cifar_cnn.cli.output import print_json
from cifar_cnn.errors import SettingsError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.files import write_result
from cifar_cnn.storage.naming import is_file_of_weights
from cifar_cnn.training.run_files import check_result

if TYPE_CHECKING:
    from cifar_cnn.analysis.isolation import Answer


@settings_options(
    model_arg="none, or the checkpoint's own",
    input_size="32x32, or the checkpoint's own",
    dataset="the checkpoint's own, else synthetic",
    data_dir="data, or the checkpoint's own",
    seed="",
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
        Path | None,
        typer.Option(metavar="FILE.png", help="Save the effective receptive field as a PNG."),
    ] = None,
    assume_pointwise: AssumePointwise = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="Time that the code of each network may take (default: 60; no limit with "
            "--verify or --effective).",
            show_default=False,
        ),
    ] = None,
    csv: several.CsvFile = None,
    junit: several.JunitFile = None,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Receptive field, jump and padding of every layer.

    Several networks get a line each; a user's code runs in a process of its own.
    Exit code 1 if the field at the output is not above --min-rf, or --verify finds a difference.

    Examples:
        cifar-cnn receptive-field --verify
        cifar-cnn receptive-field student.py --input-size 64x48
        cifar-cnn receptive-field --effective --plot field.png
    """
    _check_effective(checkpoint, plot, effective=effective)
    models, overrides = several.find_networks(networks or [], model or [], overrides)
    is_one = len(models) == 1 and not csv and not junit
    if not is_one and (verify or effective):
        raise SettingsError("--verify and --effective are for one network: give one")
    if checkpoint and is_file_of_weights(models[0]):
        raise SettingsError(f"--checkpoint and {models[0]} are both files of weights: give one")
    budget = read_budget({} if min_rf is None else {"min_rf": min_rf})
    limits = budget.file if min_rf is None and "min_rf" in budget.model_fields_set else None
    job = partial(
        _field_of,
        overrides=overrides,
        of_several=len(models) > 1,
        minimum=budget.min_rf,
        assume_pointwise=assume_pointwise or (),
        verify=verify,
        effective={"samples": samples, "target": target} if effective else None,
        checkpoint=checkpoint,
        plot=plot is not None,
        json=json,
    )
    if time_limit is None:
        time_limit = math.inf if verify or effective else 60
    if not is_one:
        several.show_each(job, models, "receptive-field", time_limit, csv, junit, limits, json=json)
        return
    answer = several.answer_of(job, models[0], time_limit, checkpoint)
    fresh = f"fresh weights, seed {resolve_settings(overrides).seed}"
    _show(answer, limits, f"weights of {checkpoint}" if checkpoint else fresh, json=json)
    if plot is not None:
        write_result(plot, answer.picture)
    if not answer.passed:
        raise typer.Exit(1)


def _show(answer: "Answer", limits: str | None, weights: str, *, json: bool) -> None:
    """Print what was found, and the document."""
    from cifar_cnn.report import analysis_tables as tables
    from cifar_cnn.report.console import people_console, say

    console, found = people_console(json=json), answer.document
    if answer.title:
        say(console, answer.title)
    assert isinstance(found, ReceptiveField)
    tables.show_receptive_field(console, found, limits)
    if found.verification:
        tables.show_verification(console, found.verification)
    if found.effective:
        weights = f"weights of {found.checkpoint}" if found.checkpoint else weights
        tables.show_effective(console, found.effective, weights, found.input_size[1:])
    if json:
        print_json(found)


def _check_effective(checkpoint: Path | None, plot: Path | None, *, effective: bool) -> None:
    if not effective and (checkpoint is not None or plot is not None):
        raise SettingsError("--checkpoint and --plot are for the effective field: add --effective")
    if plot is not None:
        check_result("--plot", plot, ".png")


def _field_of(
    name: str,
    *,
    overrides: dict[str, Any],
    of_several: bool,
    minimum: int,
    assume_pointwise: Sequence[str],
    verify: bool,
    effective: dict[str, Any] | None,
    checkpoint: Path | None,
    plot: bool,
    json: bool,
) -> "Answer":
    """Compute the receptive fields of one network, with the proof and the effective field."""
    from cifar_cnn.analysis.isolation import Answer
    from cifar_cnn.analysis.proof import verify as prove
    from cifar_cnn.analysis.receptive_field import receptive_field as compute
    from cifar_cnn.report.console import people_console, progress_console
    from cifar_cnn.report.progress import Display
    from cifar_cnn.storage.network import Network, open_network

    network = open_network(checkpoint or name, overrides, of_several=of_several)
    settings, file = network.settings, network.file
    if checkpoint is not None:  # it is for the effective field alone
        network = Network(settings if network.checkpoint else resolve_settings(overrides))
        settings = network.settings
    size = settings.input_size
    found = compute(network, size, minimum=minimum, assume_pointwise=assume_pointwise)
    picture = b""
    if effective is not None:
        from cifar_cnn.api import effective_field
        from cifar_cnn.report.charts import draw_effective

        with Display(people_console(json=json)) as progress:
            field = effective_field(
                file,
                overrides | {"model_arg": settings.model_arg},  # said, where the checkpoint's own
                **effective,
                assume_pointwise=assume_pointwise,
                progress=progress,
            )
        found = found.model_copy(update={"effective": field})
        picture = b64encode(draw_effective(field)) if plot else b""
    if verify:
        with Display(progress_console(json=json)) as progress:
            proof = prove(network, size, assume_pointwise=assume_pointwise, progress=progress)
        found = found.model_copy(update={"verification": proof})
    return Answer(model=name, title=network.title, document=found, picture=picture)
