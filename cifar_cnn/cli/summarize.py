"""`cifar-cnn summarize`: layers, sizes and the budget verdict."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.analysis.results import Summary
from cifar_cnn.cli.networks import Models, Networks, analyze_each, analyze_one, find_networks
from cifar_cnn.cli.options import CsvFile, Names, XmlFile, command
from cifar_cnn.report.console import say

if TYPE_CHECKING:
    from cifar_cnn.analysis.isolation import Answer


@command(model_arg="", input_size="")
def summarize(
    networks: Networks = None,
    model: Models = None,
    no_budget: bool = False,
    assume_pointwise: Names = None,
    time_limit: Annotated[float, typer.Option(min=0.1, metavar="SECONDS")] = 60,
    csv: CsvFile = None,
    junit: XmlFile = None,
    *,
    console: Console,
    overrides: dict[str, Any],
    limits: dict[str, Any],
) -> tuple[Any, int]:
    """Layers, parameters, sizes and the budget verdict of a network. Alias: summary.

    Several networks get a line each; a user's code runs in a process of its own.
    Limits not given come from [tool.cifar-cnn.budget] in a pyproject.toml, looked for from the
    current folder upwards, else from the CIFAR-10 brief.
    Exit code 1 if a requirement fails.

    Options:
        no_budget: Give no verdict on the budget.
        assume_pointwise: Vouch for an operation the tool does not know: each output position reads
            only the same input position (repeatable).
        time_limit: Time that the code of each network may take.
        csv: Write a line a network.
        junit: Write a test a network, for CI to show.

    Examples:
        cifar-cnn summary compact
        cifar-cnn summary student.py --max-params 100000 --require gap
        cifar-cnn summary submissions/*.py --csv grades.csv
    """
    models, overrides = find_networks(networks, model, overrides)
    job = partial(
        _summarize_one,
        overrides=overrides,
        of_several=len(models) > 1,
        budget=None if no_budget else read_budget(limits),
        assume_pointwise=assume_pointwise or (),
    )
    if len(models) > 1 or csv or junit:
        return analyze_each(job, models, "summary", time_limit, csv, junit, console)
    answer = analyze_one(job, models[0], time_limit)

    from cifar_cnn.report.analysis_tables import show_summary

    if answer.title:
        say(console, answer.title)
    assert isinstance(answer.document, Summary)
    show_summary(console, answer.document)
    return answer.document, int(not answer.passed)


def _summarize_one(
    name: str, *, overrides: dict[str, Any], of_several: bool, **options: Any
) -> "Answer":
    """Summarize one network and hold it against the budget, if there is one."""
    from cifar_cnn.analysis.isolation import Answer
    from cifar_cnn.analysis.summary import summarize as compute
    from cifar_cnn.storage.network import open_network

    network = open_network(name, overrides, of_several=of_several)
    summary = compute(network, network.settings.input_size, **options)
    return Answer(model=name, title=network.title, document=summary)
