"""`cifar-cnn receptive-field`: the receptive field of every layer."""

from typing import Any

import typer

from cifar_cnn.cli.options import AssumePointwise, JsonFlag, MinRf, settings_options
from cifar_cnn.cli.output import print_json


@settings_options("model", "input_size")
def receptive_field(
    min_rf: MinRf = None,
    assume_pointwise: AssumePointwise = None,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Receptive field, jump and padding of every layer.

    Exit status 1 when the field at the output is not above --min-rf.
    """
    from cifar_cnn.analysis.budget import read_budget
    from cifar_cnn.analysis.receptive_field import receptive_field as field_of
    from cifar_cnn.report.analysis_tables import show_receptive_field
    from cifar_cnn.report.console import people_console
    from cifar_cnn.settings import resolve_settings

    settings = resolve_settings(overrides)
    result = field_of(
        settings.model,
        settings.input_size,
        minimum=read_budget({} if min_rf is None else {"min_rf": min_rf}).min_rf,
        assume_pointwise=assume_pointwise or (),
    )
    show_receptive_field(people_console(json=json), result)
    if json:
        print_json(result.as_dict())
    if not result.passed:
        raise typer.Exit(1)
