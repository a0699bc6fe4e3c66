"""`cifar-cnn runs`: the runs in a folder, one of them, and several beside one another."""

from pathlib import Path
from typing import Annotated

import typer

from cifar_cnn.cli.help import Command, Group
from cifar_cnn.cli.options import JsonFlag, OutputDir, complete_run
from cifar_cnn.cli.output import print_json
from cifar_cnn.errors import RequestError
from cifar_cnn.storage.naming import RUNS, find_run
from cifar_cnn.training.run_files import check_result

app = typer.Typer(
    cls=Group, invoke_without_command=True, suggest_commands=False, rich_markup_mode=None
)


@app.callback()
def runs(
    ctx: typer.Context,
    output_dir: OutputDir = RUNS,
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Column of the list: name, model, recipe, epochs, parameters, accuracy, dataset, "
            "seconds or state; numbers from the largest.",
        ),
    ] = "name",
    json: JsonFlag = False,
) -> None:
    """The runs in a folder: network, recipe, epochs, accuracy, state.

    Examples:
        cifar-cnn runs
        cifar-cnn runs --sort epochs
    """
    if ctx.invoked_subcommand:  # which takes what is said before its name, too
        if sort != "name":
            raise RequestError(
                f"--sort orders the list of the runs: leave it out of {ctx.invoked_subcommand}"
            )
        ctx.default_map = {ctx.invoked_subcommand: {"output_dir": output_dir, "json": json}}
        return
    from cifar_cnn.report.console import people_console, say, warn
    from cifar_cnn.report.runs import show_runs, sort_runs
    from cifar_cnn.training.record import find_runs

    found, refused = find_runs(output_dir)
    found = sort_runs(found, sort)
    console = people_console(json=json)
    if found:
        show_runs(console, found)
    else:
        say(console, f"no runs in {output_dir}")
    for line in refused:
        warn(console, f"left out: {line}")
    if json:
        print_json([run.entry for run in found])


@app.command("show", cls=Command)
def show(
    name: Annotated[
        str,
        typer.Argument(help="Name of the run, or its path.", autocompletion=complete_run),
    ],
    output_dir: OutputDir = RUNS,
    json: JsonFlag = False,
) -> None:
    """What is known of one run.

    Examples:
        cifar-cnn runs show first
        cifar-cnn runs show runs/first --json
    """
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.runs import show_run
    from cifar_cnn.training.record import read_run

    run = read_run(find_run(name, output_dir))
    show_run(people_console(json=json), run)
    if json:
        print_json(run)


@app.command("compare", cls=Command)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Two runs or more, by name or path.",
            autocompletion=complete_run,
            show_default=False,
        ),
    ],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw their learning curves.")
    ] = None,
    output_dir: OutputDir = RUNS,
    json: JsonFlag = False,
) -> None:
    """Runs beside one another: the settings that differ, figures, curves.

    Runs that differ only in their seed are one line: mean ± sample deviation.

    Examples:
        cifar-cnn runs compare first second
        cifar-cnn runs compare first second --plot curves.png
    """
    from cifar_cnn.report.comparison import compare_runs, show_comparison
    from cifar_cnn.report.console import people_console, say
    from cifar_cnn.storage.files import write_result

    if plot is not None:
        check_result("--plot", plot, ".png")
    comparison = compare_runs([find_run(name, output_dir) for name in runs])
    if plot is not None:
        from cifar_cnn.report.curves import draw_runs  # and matplotlib

        write_result(plot, draw_runs(comparison))
    console = people_console(json=json)
    show_comparison(console, comparison)
    if plot is not None:
        say(console, f"saved {plot}")
    if json:
        print_json(comparison.model_copy(update={"plot": plot}))
