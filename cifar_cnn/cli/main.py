"""The program `cifar-cnn`: its commands, their aliases, and how an error ends it.

Nothing here or in a command's module imports torch at the top, so that help answers at once.
"""

import importlib.metadata
import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cifar_cnn.cli import (
    evaluate,
    export,
    predict,
    receptive_field,
    report,
    runs,
    settings,
    summarize,
    train,
)
from cifar_cnn.cli.allocator import keep_freed_memory
from cifar_cnn.errors import UserError, printable
from cifar_cnn.training.launch import is_launched, rank

ALIASES = {"eval": "evaluate", "summary": "summarize"}
DEBUG = "--debug"


class Commands(TyperGroup):
    """The commands under both spellings; a user's mistake ends in one line on standard error."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` anywhere on the line, and leave the rest to Typer."""
        ctx.obj = DEBUG in args
        return super().parse_args(ctx, [arg for arg in args if arg != DEBUG])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace an alias by the command's own name, so that both print the same."""
        return super().resolve_command(ctx, [ALIASES.get(args[0], args[0]), *args[1:]])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; print an error as one line and exit with its status."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except typer.TyperException as error:
            _suggest_option(error)
            raise
        except UserError as error:
            if ctx.obj:
                raise
            sys.stderr.write(f"{_who()}: {printable(str(error))}\n")
            raise typer.Exit(error.exit_status) from error
        except OSError as error:  # standard output is full or closed, a disk has failed
            if ctx.obj:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drop what is left
            if not isinstance(error, BrokenPipeError):
                sys.stderr.write(f"{_who()}: {printable(str(error))}\n")
            raise typer.Exit(UserError.exit_status) from error
        return result


def _who() -> str:
    """Return the program's name, with the process's number where there are several."""
    return f"cifar-cnn: process {rank()}" if is_launched() else "cifar-cnn"


def _suggest_option(error: typer.TyperException) -> None:
    """Put "did you mean" for the parser's "possible options"; other errors stay as they are."""
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        error.message = f"{error.message}. Did you mean {possibilities[0]}?"
        error.possibilities = None  # type: ignore[attr-defined]


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("summarize")(summarize.summarize)
app.command("receptive-field")(receptive_field.receptive_field)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("report")(report.report)
app.add_typer(runs.app, name="runs")
app.command("settings")(settings.settings)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cifar-cnn {importlib.metadata.version('cifar-cnn')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Train, evaluate and check small CIFAR-10 networks under a hard budget."""


def main() -> None:
    """Run the program; the console script and `python -m cifar_cnn` start here."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a bar or a tick must not end the program
            stream.reconfigure(encoding="utf-8" if os.name == "nt" else None, errors="replace")
    app(prog_name="cifar-cnn")
