"""`cifar-cnn receptive-field`: the receptive field of every layer."""

import math
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.results import ReceptiveField
from cifar_cnn.cli.networks import Models, Networks, analyze_each, analyze_one, find_networks
from cifar_cnn.cli.options import CsvFile, Names, PngFile, XmlFile, command
from cifar_cnn.errors import SettingsError
from cifar_cnn.report.console import people_console, progress_console, say
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.files import write_result
from cifar_cnn.storage.naming import is_file_of_weights

if TYPE_CHECKING:
    from cifar_cnn.analysis.isolation import Answer


@command(
    model_arg="none, or the checkpoint's own",
    input_size="32x32, or the checkpoint's own",
    dataset="the checkpoint's own, else synthetic",
    data_dir="data, or the checkpoint's own",
    seed="",
)
def receptive_field(  # noqa: PLR0917 - typer reads the flags from it
    networks: Networks = None,
    model: Models = None,
    min_rf: Annotated[int | None, typer.Option(min=0)] = None,
    verify: bool = False,
    effective: bool = False,
    checkpoint: Path | None = None,
    samples: Annotated[int, typer.Option(min=1)] = 64,
    target: Literal["features", "logits"] = "features",
    plot: PngFile = None,
    assume_pointwise: Names = None,
    time_limit: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS")] = None,
    csv: CsvFile = None,
    junit: XmlFile = None,
    *,
    console: Console,
    overrides: dict[str, Any],
) -> tuple[Any, int]:
    """Receptive field, jump and padding of every layer.

    Several networks get a line each; a user's code runs in a process of its own.
    Exit code 1 if the field at the output is not above --min-rf, or --verify finds a difference.

    Options:
        min_rf: Receptive field at the output must be above this, in pixels (default: 44).
        verify: Prove every layer's field by setting pixels to NaN.
        effective: Show which pixels really move the last map's center.
        checkpoint: Weights for --effective (default: fresh ones, drawn from --seed).
        samples: Test images for --effective.
        target: Unit for --effective: of the last map, or the output.
        plot: Save the effective receptive field as a PNG.
        assume_pointwise: Vouch for an operation the tool does not know: each output position reads
            only the same input position (repeatable).
        time_limit: Time that the code of each network may take (default: 60; no limit with --verify
            or --effective).
        csv: Write a line a network.
        junit: Write a test a network, for CI to show.

    Examples:
        cifar-cnn receptive-field --verify
        cifar-cnn receptive-field student.py --input-size 64x48
        cifar-cnn receptive-field --effective --plot field.png
    """
    if not effective and (checkpoint is not None or plot is not None):
        raise SettingsError("--checkpoint and --plot are for the effective field: add --effective")
    models, overrides = find_networks(networks, model, overrides)
    is_one = len(models) == 1 and not csv and not junit
    if not is_one and (verify or effective):
        raise SettingsError("--verify and --effective are for one network: give one")
    if checkpoint and is_file_of_weights(models[0]):
        raise SettingsError(f"--checkpoint and {models[0]} are both files of weights: give one")
    budget = read_budget({"min_rf": min_rf})
    limits = budget.file if min_rf is None and "min_rf" in budget.model_fields_set else None
    job = partial(
        _analyze_one,
        checkpoint=checkpoint,
        overrides=overrides,
        of_several=len(models) > 1,
        minimum=budget.min_rf,
        trust={"assume_pointwise": assume_pointwise or ()},
        verify=verify,
        effective={"samples": samples, "target": target} if effective else None,
        plot=plot is not None,
        is_quiet=console.quiet,
    )
    if time_limit is None:
        time_limit = math.inf if verify or effective else 60
    if not is_one:
        return analyze_each(job, models, "receptive-field", time_limit, csv, junit, console, limits)
    answer = analyze_one(job, models[0], time_limit, checkpoint)

    from cifar_cnn.report import analysis_tables as tables

    result = answer.document
    if answer.title:
        say(console, answer.title)
    assert isinstance(result, ReceptiveField)
    tables.show_receptive_field(console, result, limits)
    if result.verification:
        tables.show_verification(console, result.verification)
    if result.effective:
        seed = resolve_settings(overrides).seed
        file = result.checkpoint
        weights = f"weights of {file}" if file else f"fresh weights, seed {seed}"
        tables.show_effective(console, result.effective, weights, result.input_size[1:])
    if plot is not None:
        write_result(plot, answer.picture)
    return result, int(not answer.passed)


def _analyze_one(
    name: str,
    *,
    checkpoint: Path | None,
    overrides: dict[str, Any],
    of_several: bool,
    minimum: int,
    trust: dict[str, Any],
    verify: bool,
    effective: dict[str, Any] | None,
    plot: bool,
    is_quiet: bool,
) -> "Answer":
    """Compute the receptive fields of one network, with the proof and the effective field."""
    from cifar_cnn.analysis.isolation import Answer
    from cifar_cnn.analysis.proof import verify as prove
    from cifar_cnn.analysis.receptive_field import receptive_field as compute
    from cifar_cnn.report.progress import Display
    from cifar_cnn.storage.network import open_network

    network = open_network(checkpoint or name, overrides, of_several=of_several)
    size = network.settings.input_size
    result, picture = compute(network, size, minimum=minimum, **trust), b""
    if effective is not None:
        from cifar_cnn.api import effective_field
        from cifar_cnn.report.charts import draw_effective

        # given again, as a warning has named the checkpoint's own arguments once
        values = overrides | {"model_arg": network.settings.model_arg}
        with Display(people_console(json=is_quiet)) as progress:
            field = effective_field(network.file, values, **effective, **trust, progress=progress)
        result = result.model_copy(update={"effective": field})
        picture = b64encode(draw_effective(field)) if plot else b""
    if verify:
        with Display(progress_console(json=is_quiet)) as progress:
            proof = prove(network, size, **trust, progress=progress)
        result = result.model_copy(update={"verification": proof})
    return Answer(model=name, title=network.title, document=result, picture=picture)
