"""`cifar-cnn train`: train a network into a run directory."""

import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cifar_cnn.cli.dry_run import check_find_lr, show_note, try_settings
from cifar_cnn.cli.help import show_everything
from cifar_cnn.cli.options import JsonFlag, OutputDir, complete_run, settings_options
from cifar_cnn.cli.output import print_json
from cifar_cnn.cli.signals import Interrupted, StopSignals, stop_signals
from cifar_cnn.errors import RequestError, counted
from cifar_cnn.results import Failure
from cifar_cnn.settings import Settings, merge_settings, resolve_settings
from cifar_cnn.storage.naming import RUNS
from cifar_cnn.training import is_launched, is_main_process

if TYPE_CHECKING:
    from rich.console import Console

    from cifar_cnn.training.history import Event, RunResult
    from cifar_cnn.training.plan import Plan

AUTO: Final = "auto"


@settings_options(**dict.fromkeys(Settings.model_fields, ""))
def train(  # noqa: PLR0917 - typer reads the flags from it
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; flags beat it, it beats the recipe.")
    ] = None,
    output_dir: OutputDir = RUNS,
    name: Annotated[
        str | None, typer.Option(help="Name of the run (default: date, time and recipe).")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Start an existing run again: replace its files.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|auto",
            help="Go on from a run or its last.pt; auto: from this run's own, if any.",
            autocompletion=complete_run,
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Write report.html and its pictures at the end."),
    ] = True,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard event files too.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show errors and what a stopped run saved, only.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, try one batch, write nothing.")
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Try rising learning rates, suggest one; no run is made."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Picture for --find-lr.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings as TOML and exit.")
    ] = False,
    max_time: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES", min=0, help="Save and stop after so many minutes (exit code 0)."
        ),
    ] = None,
    help_all: Annotated[
        bool,
        typer.Option(
            "--help-all", is_eager=True, callback=show_everything, help="Show all flags and exit."
        ),
    ] = False,
    *,
    json: JsonFlag = False,
    overrides: dict[str, Any],
) -> None:
    """Train a network; the run directory gets its metrics, log, curves and checkpoints.

    Examples:
        cifar-cnn train --dataset synthetic --epochs 2 --name first
        cifar-cnn train --model compact --recipe best --epochs 100
        cifar-cnn train --resume runs/first --epochs 4
    """
    given = merge_settings(overrides, config)
    if print_config:
        _print_config(given, json=json)
        return
    others = {"--resume": resume, "--dry-run": dry_run, "--max-time": max_time}
    check_find_lr(plot, others, find_lr=find_lr)
    deadline = time.monotonic() + 60 * (math.inf if max_time is None else max_time)
    try:
        with stop_signals(launched=is_launched()) as signals:
            from cifar_cnn.report.console import people_console
            from cifar_cnn.training.history import RunResult
            from cifar_cnn.training.plan import plan_run

            console = people_console(json=json or not is_main_process())
            plan = plan_run(
                given,
                output_dir=output_dir,
                name=None if find_lr else name,
                resume=AUTO if resume == AUTO else Path(resume) if resume else None,
                exist_ok=exist_ok,
            )

            for note in [*plan.notes, *_about_recipe(plan, given)]:
                show_note(console, note)
            if dry_run or find_lr:
                result: Any = try_settings(plan.settings, console, plot, find_lr=find_lr)
            else:
                options = {"report": report, "tensorboard": tensorboard}
                result = _train(plan, console, signals, deadline, quiet=quiet, **options)
    except Interrupted:
        said = f"stopped{'' if find_lr else ' before the first step'}; nothing was changed"
        typer.echo(f"cifar-cnn: {said}", err=True)
        if json and is_main_process():
            print_json(Failure(error=said, exit_status=signals.exit_status))
        raise typer.Exit(signals.exit_status) from None
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich has seen it
            typer.echo(
                "cifar-cnn: stopped, as standard output was closed: --resume with the run's "
                "directory goes on from its last epoch, --quiet needs no output",
                err=True,
            )
        raise
    if json and is_main_process():
        print_json(result)
    if isinstance(result, RunResult) and result.model_file is None and signals.received:
        raise typer.Exit(signals.exit_status)


def _about_recipe(plan: "Plan", given: Mapping[str, Any]) -> list[str]:
    """Return a note on the network if only the recipe of another one is given."""
    from cifar_cnn.models.registry import made_for

    settings, meant = plan.settings, made_for(plan.settings.recipe)
    if plan.checkpoint or "model" in given or meant in {None, settings.model}:
        return []
    return [f"recipe {settings.recipe} is for --model {meant}; {settings.model} is trained with it"]


def _print_config(given: Mapping[str, Any], *, json: bool) -> None:
    if json:
        raise RequestError("--print-config prints TOML: leave --json out")
    typer.echo(resolve_settings(given).to_toml(), nl=False)


def _train(
    plan: "Plan",
    console: "Console",
    signals: StopSignals,
    deadline: float,
    *,
    report: bool,
    tensorboard: bool,
    quiet: bool,
) -> "RunResult":
    """Run what the plan leaves to do, and report how it ended."""
    from cifar_cnn import api
    from cifar_cnn.report.console import say, warn
    from cifar_cnn.report.progress import RunDisplay
    from cifar_cnn.storage.naming import LAST
    from cifar_cnn.training.run_files import REPORT

    if finished := plan.finished:
        if not quiet:
            say(console, f"{plan.directory} is already finished")
        return finished

    def can_save(_event: "Event") -> None:
        signals.training = True

    with RunDisplay(console) as display:
        result = api.train(
            plan.settings,
            plan.directory,
            replace=plan.replace,
            numbered=plan.numbered,
            checkpoint=plan.checkpoint,
            report=report,
            tensorboard=tensorboard,
            progress=None if quiet else display,
            listeners=[can_save] if quiet or not is_main_process() else [can_save, display.listen],
            should_stop=lambda: bool(signals.received) or time.monotonic() > deadline,
        )
    if result.model_file is None:
        done = f"stopped after {counted(result.epochs, 'epoch')}, step {result.steps}"
        if is_main_process():
            go_on = _resume_command(plan, result.run)
            warn(console, f"{done}; saved {result.run / LAST}; go on with: {go_on}")
    elif not quiet:
        beside = f" and {result.run / REPORT}" if report else ""
        say(console, f"saved {result.model_file}{beside}")
    return result


def _resume_command(plan: "Plan", run: Path) -> str:
    from cifar_cnn.models.registry import is_built_in

    words = ["cifar-cnn", "train", "--resume", str(run)]
    if not is_built_in(plan.settings.model):  # whose code runs only when it is named again
        words += ["--model", plan.settings.model]
    return shlex.join(words)
