"""`cifar-cnn runs`: the runs in a folder, one of them, and several beside one another."""

from typing import Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.cli.help import Command, Group
from cifar_cnn.cli.options import OutputDir, PngFile, RunArgument, command, complete_run
from cifar_cnn.errors import RequestError
from cifar_cnn.report.console import say, warn
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
    *,
    console: Console,
) -> tuple[Any, int] | None:
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
        options = {"output_dir": output_dir, "json": ctx.params["json"]}
        ctx.default_map = {ctx.invoked_subcommand: options}
        return None
    from cifar_cnn.report.runs import show_runs, sort_runs
    from cifar_cnn.training.record import find_runs

    known, refusals = find_runs(output_dir)
    known = sort_runs(known, sort)
    if known:
        show_runs(console, known)
    else:
        say(console, f"no runs in {output_dir}")
    for line in refusals:
        warn(console, f"left out: {line}")
    return [run.entry for run in known], 0


@app.command("show", cls=Command)
@command()
def show(name: RunArgument, output_dir: OutputDir = RUNS, *, console: Console) -> tuple[Any, int]:
    """What is known of one run.

    Options:
        name: Name of the run, or its path.

    Examples:
        cifar-cnn runs show first
        cifar-cnn runs show runs/first --json
    """
    from cifar_cnn.report.runs import show_run
    from cifar_cnn.training.record import read_run

    run = read_run(find_run(name, output_dir))
    show_run(console, run)
    return run, 0


@app.command("compare", cls=Command)
@command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run)],
    plot: PngFile = None,
    output_dir: OutputDir = RUNS,
    *,
    console: Console,
) -> tuple[Any, int]:
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
    from cifar_cnn.storage.files import write_result

    comparison = compare_runs([find_run(name, output_dir) for name in runs])
    if plot is not None:
        from cifar_cnn.report.curves import draw_runs  # and matplotlib

        write_result(plot, draw_runs(comparison))
    show_comparison(console, comparison)
    if plot is not None:
        say(console, f"saved {plot}")
    return comparison.model_copy(update={"plot": plot}), 0
