"""`cifar-cnn receptive-field`: the receptive field of every layer."""

from typing import Annotated, Any

import typer

from cifar_cnn.cli.options import AssumePointwise, JsonFlag, MinRf, settings_options
from cifar_cnn.cli.output import print_json


@settings_options("model", "input_size")
def receptive_field(
    min_rf: MinRf = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Prove every layer's field by the gradient of single units."),
    ] = False,
    assume_pointwise: AssumePointwise = None,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Receptive field, jump and padding of every layer.

    Exit status 1 when the field at the output is not above --min-rf, or --verify does not agree.
    """
    from cifar_cnn.analysis.budget import read_budget
    from cifar_cnn.analysis.receptive_field import receptive_field as field_of
    from cifar_cnn.analysis.verify import verify as prove
    from cifar_cnn.report.analysis_tables import show_receptive_field, show_verification
    from cifar_cnn.report.console import people_console
    from cifar_cnn.settings import resolve_settings

    settings = resolve_settings(overrides)
    result = field_of(
        settings.model,
        settings.input_size,
        minimum=read_budget({} if min_rf is None else {"min_rf": min_rf}).min_rf,
        assume_pointwise=assume_pointwise or (),
    )
    console = people_console(json=json)
    show_receptive_field(console, result)
    document = result.as_dict()
    agreed = True
    if verify:
        proof = prove(settings.model, settings.input_size, assume_pointwise=assume_pointwise or ())
        show_verification(console, proof)
        document["verification"] = proof.as_dict()
        agreed = proof.agreed
    if json:
        print_json(document)
    if not (result.passed and agreed):
        raise typer.Exit(1)
