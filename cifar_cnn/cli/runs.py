"""`cifar-cnn runs`: the runs in a folder, one of them, and several beside one another."""

from typing import Annotated

import typer

from cifar_cnn.cli.help import Command, Group
from cifar_cnn.cli.options import JsonFlag, OutputDir, PngFile, Run, command, complete_run
from cifar_cnn.cli.process import finish
from cifar_cnn.errors import RequestError
from cifar_cnn.storage.naming import RUNS, find_run

app = typer.Typer(
    cls=Group, invoke_without_command=True, suggest_commands=False, rich_markup_mode=None
)


@app.callback()
@command()
def runs(
    ctx: typer.Context,
    output_dir: OutputDir = RUNS,
    sort: Annotated[str, typer.Option(metavar="COLUMN")] = "name",
    json: JsonFlag = False,
) -> None:
    """The runs in a folder: network, recipe, epochs, accuracy, state.

    Options:
        sort: Column of the list: name, model, recipe, epochs, parameters, accuracy, dataset,
            seconds or state; numbers from the largest.

    Examples:
        cifar-cnn runs
        cifar-cnn runs --sort epochs
    """
    if ctx.invoked_subcommand:  # it takes the options before its name, too
        if sort != "name":
            raise RequestError(
                f"--sort orders the list of the runs: leave it out of {ctx.invoked_subcommand}"
            )
        ctx.default_map = {ctx.invoked_subcommand: {"output_dir": output_dir, "json": json}}
        return
    from cifar_cnn.report.console import people_console, say, warn
    from cifar_cnn.report.runs import show_runs, sort_runs
    from cifar_cnn.training.record import find_runs

    known, refusals = find_runs(output_dir)
    known = sort_runs(known, sort)
    console = people_console(json=json)
    if known:
        show_runs(console, known)
    else:
        say(console, f"no runs in {output_dir}")
    for line in refusals:
        warn(console, f"left out: {line}")
    finish([run.entry for run in known], json=json)


@app.command("show", cls=Command)
@command()
def show(name: Run, output_dir: OutputDir = RUNS, json: JsonFlag = False) -> None:
    """What is known of one run.

    Options:
        name: Name of the run, or its path.

    Examples:
        cifar-cnn runs show first
        cifar-cnn runs show runs/first --json
    """
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.runs import show_run
    from cifar_cnn.training.record import read_run

    run = read_run(find_run(name, output_dir))
    show_run(people_console(json=json), run)
    finish(run, json=json)


@app.command("compare", cls=Command)
@command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run)],
    plot: PngFile = None,
    output_dir: OutputDir = RUNS,
    json: JsonFlag = False,
) -> None:
    """Runs beside one another: the settings that differ, figures, curves.

    Runs that differ only in their seed are one line: mean ± sample deviation.

    Options:
        runs: Two runs or more, by name or path.
        plot: Draw their learning curves.

    Examples:
        cifar-cnn runs compare first second
        cifar-cnn runs compare first second --plot curves.png
    """
    from cifar_cnn.report.comparison import compare_runs, show_comparison
    from cifar_cnn.report.console import people_console, say
    from cifar_cnn.storage.files import write_result

    comparison = compare_runs([find_run(name, output_dir) for name in runs])
    if plot is not None:
        from cifar_cnn.report.curves import draw_runs  # and matplotlib

        write_result(plot, draw_runs(comparison))
    console = people_console(json=json)
    show_comparison(console, comparison)
    if plot is not None:
        say(console, f"saved {plot}")
    finish(comparison.model_copy(update={"plot": plot}), json=json)
