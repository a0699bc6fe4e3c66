"""`cifar-cnn train`: train a network into a run directory, or try its settings."""

import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.cli.help import show_everything
from cifar_cnn.cli.options import OutputDir, PngFile, command, complete_run
from cifar_cnn.cli.process import StopSignals, stop_signals
from cifar_cnn.errors import RequestError, counted
from cifar_cnn.report.console import say, warn
from cifar_cnn.settings import Settings, merge_settings, resolve_settings
from cifar_cnn.storage.naming import LAST, RUNS
from cifar_cnn.training import is_launched, is_main_process
from cifar_cnn.training.run_files import REPORT

if TYPE_CHECKING:
    from cifar_cnn.training.history import Event, RunResult
    from cifar_cnn.training.plan import Plan
    from cifar_cnn.training.trial import DryRun, RangeTest


@command(**dict.fromkeys(Settings.model_fields, ""))
def train(  # noqa: PLR0917 - typer reads the flags from it
    ctx: typer.Context,
    config: Path | None = None,
    output_dir: OutputDir = RUNS,
    name: str | None = None,
    exist_ok: bool = False,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN|auto", autocompletion=complete_run)
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report")] = True,
    tensorboard: bool = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
    dry_run: bool = False,
    find_lr: bool = False,
    plot: PngFile = None,
    print_config: bool = False,
    max_time: Annotated[float | None, typer.Option(metavar="MINUTES", min=0)] = None,
    help_all: Annotated[
        bool, typer.Option("--help-all", is_eager=True, callback=show_everything)
    ] = False,
    *,
    console: Console,
    overrides: dict[str, Any],
) -> tuple[Any, int] | None:
    """Train a network; the run directory gets its metrics, log, curves and checkpoints.

    Options:
        config: TOML file of settings; flags beat it, it beats the recipe.
        name: Name of the run (default: date, time and recipe).
        exist_ok: Start an existing run again: replace its files.
        resume: Go on from a run or its last.pt; auto: from this run's own, if any.
        report: Write report.html and its pictures at the end.
        tensorboard: Write TensorBoard event files too.
        quiet: Show errors and what a stopped run saved, only.
        dry_run: Build everything, try one batch, write nothing.
        find_lr: Try rising learning rates, suggest one; no run is made.
        plot: Picture for --find-lr.
        print_config: Print the settings as TOML and exit.
        max_time: Save and stop after so many minutes (exit code 0).
        help_all: Show all flags and exit.

    Examples:
        cifar-cnn train --dataset synthetic --epochs 2 --name first
        cifar-cnn train --model compact --recipe best --epochs 100
        cifar-cnn train --resume runs/first --epochs 4
    """
    values = merge_settings(overrides, config)
    if print_config:
        if ctx.params["json"]:
            raise RequestError("--print-config prints TOML: leave --json out")
        typer.echo(resolve_settings(values).to_toml(), nl=False)
        return None
    others = {"--resume": resume, "--dry-run": dry_run, "--max-time": max_time}
    _check_find_lr(plot, others, find_lr=find_lr)
    deadline = time.monotonic() + 60 * (math.inf if max_time is None else max_time)
    when = "" if find_lr else " before the first step"
    try:
        with stop_signals(f"stopped{when}; nothing was changed") as signals:
            from cifar_cnn.training.plan import plan_run

            plan = plan_run(
                values,
                output_dir=output_dir,
                name=None if find_lr else name,
                resume=resume,
                exist_ok=exist_ok,
            )
            for note in plan.notes:
                _show_note(console, note)
            result: Any
            if find_lr:
                result = _find_lr(plan.settings, console, plot)
            elif dry_run:
                result = _dry_run(plan.settings, console)
            else:
                options = {"report": report, "tensorboard": tensorboard}
                result = _train(plan, console, signals, deadline, quiet=quiet, **options)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich has seen it
            typer.echo(
                "cifar-cnn: stopped, as standard output was closed: --resume with the run's "
                "directory goes on from its last epoch, --quiet needs no output",
                err=True,
            )
        raise
    is_run = not (find_lr or dry_run)
    is_stopped = is_run and signals.number and result.model_file is None
    return result, signals.exit_status if is_stopped else 0


def _check_find_lr(plot: Path | None, others: Mapping[str, Any], *, find_lr: bool) -> None:
    """Raise an error for flags and launchers that contradict --find-lr."""
    if not find_lr:
        if plot is not None:
            raise RequestError("--plot is for --find-lr: add it")
        return
    for flag, value in others.items():
        if value is not None and value is not False:
            raise RequestError(f"--find-lr makes no run: leave {flag} out")
    if is_launched():
        raise RequestError("--find-lr is for one process: start it without torchrun")


def _show_note(console: Console, note: str) -> None:
    """Print a note once, however many processes there are."""
    if is_main_process():
        warn(console, f"note: {note}")


def _dry_run(settings: Settings, console: Console) -> "DryRun":
    from cifar_cnn import api
    from cifar_cnn.report.progress import Display
    from cifar_cnn.training.trial import DryRun

    with Display(console) as progress:
        loss = api.dry_run(settings, lambda note: _show_note(console, note), progress=progress)
    console.print(f"one batch ran forward and backward, loss {loss:.4f}; nothing was written")
    return DryRun(model=settings.model, loss=loss)


def _find_lr(settings: Settings, console: Console, plot: Path | None) -> "RangeTest":
    from cifar_cnn import api
    from cifar_cnn.report.curves import draw_range
    from cifar_cnn.report.progress import Display
    from cifar_cnn.storage.files import write_result

    with Display(console) as progress:
        result = api.find_lr(settings, lambda note: _show_note(console, note), progress=progress)
    where = "midway between the two, for a peak" if result.is_peak else "where it falls fastest"
    diverging = result.diverging_lr
    say(
        console,
        f"loss falls fastest at learning rate {result.steepest_lr:.2g}",
        f"loss is lowest at {result.lowest_lr:.2g}",
        f"suggestion, {where}: --lr {result.suggested_lr:g} (now {settings.lr:g})",
        f"loss does not diverge up to {result.curve[-1].lr:.2g}"
        if diverging is None
        else f"loss diverges from {diverging:.2g}",
    )
    if plot is not None:
        write_result(plot, draw_range(result))
        say(console, f"saved {plot}")
    return result.model_copy(update={"plot": plot})


def _train(
    plan: "Plan",
    console: Console,
    signals: StopSignals,
    deadline: float,
    *,
    quiet: bool,
    **options: bool,
) -> "RunResult":
    """Run what the plan leaves to do, and report how it ended."""
    from cifar_cnn import api
    from cifar_cnn.report.progress import RunDisplay

    if finished := plan.finished:
        if not quiet:
            say(console, f"{plan.directory} is already finished")
        return finished

    def can_save(_event: "Event") -> None:
        signals.is_training = True

    with RunDisplay(console) as display:
        result = api.train(
            plan.settings,
            plan.directory,
            replace=plan.replace,
            numbered=plan.numbered,
            checkpoint=plan.checkpoint,
            progress=None if quiet else display,
            listeners=[can_save] if quiet or not is_main_process() else [can_save, display.listen],
            should_stop=lambda: bool(signals.number) or time.monotonic() > deadline,
            **options,
        )
    if result.model_file is None:
        if is_main_process():
            end = f"stopped after {counted(result.epochs, 'epoch')}, step {result.steps}"
            go_on = _resume_command(plan, result.run)
            warn(console, f"{end}; saved {result.run / LAST}; go on with: {go_on}")
    elif not quiet:
        page = f" and {result.run / REPORT}" if options["report"] else ""
        say(console, f"saved {result.model_file}{page}")
    return result


def _resume_command(plan: "Plan", run: Path) -> str:
    from cifar_cnn.models.registry import is_built_in

    words = ["cifar-cnn", "train", "--resume", str(run)]
    if not is_built_in(plan.settings.model):  # its code runs only when it is named again
        words += ["--model", plan.settings.model]
    return shlex.join(words)
