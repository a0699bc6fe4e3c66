"""`cifar-cnn summarize`: layers, sizes and the budget verdict."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cnn.analysis.budget import Budget, read_budget
from cifar_cnn.analysis.results import Summary
from cifar_cnn.cli import networks as several
from cifar_cnn.cli.options import AssumePointwise, JsonFlag, MinRf, settings_options
from cifar_cnn.cli.output import print_json

if TYPE_CHECKING:
    from cifar_cnn.analysis.isolation import Answer


@settings_options(model_arg="", input_size="")
def summarize(  # noqa: PLR0917 - typer reads the flags from it
    networks: several.Networks = None,
    model: several.Models = None,
    max_params: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Parameters must be strictly fewer (default: {Budget().max_params})."
        ),
    ] = None,
    min_rf: MinRf = None,
    min_rf_features: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Receptive field at the last map, before global pooling, must be above this, in "
            "pixels (default: no limit).",
        ),
    ] = None,
    max_mult_adds: Annotated[
        int | None,
        typer.Option(min=1, help="Multiply-adds for one image at most (default: no limit)."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Structure that must be there: depthwise-separable, dilated or gap; repeatable, "
            "replaces the list (default: all three).",
        ),
    ] = None,
    no_budget: Annotated[
        bool, typer.Option("--no-budget", help="Give no verdict on the budget.")
    ] = False,
    assume_pointwise: AssumePointwise = None,
    time_limit: several.TimeLimit = 60,
    csv: several.CsvFile = None,
    junit: several.JunitFile = None,
    json: JsonFlag = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Layers, parameters, sizes and the budget verdict of a network. Alias: summary.

    Several networks get a line each; a user's code runs in a process of its own.
    Limits not given come from [tool.cifar-cnn.budget] in a pyproject.toml, looked for from the
    current folder upwards, else from the CIFAR-10 brief.
    Exit code 1 if a requirement fails.

    Examples:
        cifar-cnn summary compact
        cifar-cnn summary student.py --max-params 100000 --require gap
        cifar-cnn summary submissions/*.py --csv grades.csv
    """
    models, overrides = several.find_networks(networks or [], model or [], overrides)
    limits = {
        "max_params": max_params,
        "min_rf": min_rf,
        "min_rf_features": min_rf_features,
        "max_mult_adds": max_mult_adds,
        "require": require or None,
    }
    given = {name: limit for name, limit in limits.items() if limit is not None}
    job = partial(
        _summary_of,
        overrides=overrides,
        of_several=len(models) > 1,
        budget=None if no_budget else read_budget(given),
        assume_pointwise=assume_pointwise or (),
    )
    if len(models) > 1 or csv or junit:
        several.show_each(job, models, "summary", time_limit, csv, junit, json=json)
        return
    answer = several.answer_of(job, models[0], time_limit)

    from cifar_cnn.report.analysis_tables import show_summary
    from cifar_cnn.report.console import people_console, say

    console = people_console(json=json)
    if answer.title:
        say(console, answer.title)
    assert isinstance(answer.document, Summary)
    show_summary(console, answer.document)
    if json:
        print_json(answer.document)
    if not answer.passed:
        raise typer.Exit(1)


def _summary_of(
    name: str,
    *,
    overrides: dict[str, Any],
    of_several: bool,
    budget: Budget | None,
    assume_pointwise: Sequence[str],
) -> "Answer":
    """Summarize one network and hold it against the budget, if there is one."""
    from cifar_cnn.analysis.isolation import Answer
    from cifar_cnn.analysis.summary import summarize as compute
    from cifar_cnn.storage.network import open_network

    network = open_network(name, overrides, of_several=of_several)
    size = network.settings.input_size
    found = compute(network, size, budget=budget, assume_pointwise=assume_pointwise)
    return Answer(model=name, title=network.title, document=found)
