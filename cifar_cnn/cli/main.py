"""The program `cifar-cnn`: its commands, their aliases, and how an error ends it.

Nothing here or in a command's module imports torch at the top, so that help answers at once.
"""

import importlib.metadata
import re
import sys
from contextlib import nullcontext
from itertools import pairwise
from typing import Annotated, Any

import typer

from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.cli.catalog import models, settings
from cifar_cnn.cli.design import design
from cifar_cnn.cli.evaluate import evaluate
from cifar_cnn.cli.export import export
from cifar_cnn.cli.help import Command, Group
from cifar_cnn.cli.options import command
from cifar_cnn.cli.predict import predict
from cifar_cnn.cli.process import (
    StoppedError,
    documents_only,
    drop_output,
    print_json,
    settle,
    takes_output,
)
from cifar_cnn.cli.receptive_field import receptive_field
from cifar_cnn.cli.report import report
from cifar_cnn.cli.runs import app as runs
from cifar_cnn.cli.summarize import summarize
from cifar_cnn.cli.train import train
from cifar_cnn.errors import RequestError, UserError, nearest, plain_words, printable, system_line
from cifar_cnn.results import Failure
from cifar_cnn.training import is_launched, is_main_process, rank

ALIASES = {"eval": "evaluate", "summary": "summarize"}
DEBUG, JSON = "--debug", "--json"
HELP = ("-h", "--help")


class Commands(Group):
    """The commands under both spellings; a user's mistake ends in one line on standard error."""

    def main(self, args: Any = None, *options: Any, **more: Any) -> Any:
        """Run the program; print an error as one line, with `--json` as a document too."""
        words = list(sys.argv[1:] if args is None else args)
        json = JSON in words and not {*HELP, "--help-all"} & {*words}
        with documents_only() if json else nullcontext():
            try:
                _refuse_empty(words)
                status = super().main(words, *options, **more | {"standalone_mode": False})
                sys.stdout.flush()
            except (UserError, typer.TyperException, OSError) as error:
                if DEBUG in words and not isinstance(error, (typer.TyperException, StoppedError)):
                    raise
                status = _fail(error, json=json)
        sys.exit(status if isinstance(status, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` anywhere on the line, and leave the rest to Typer."""
        return super().parse_args(ctx, [arg for arg in args if arg != DEBUG])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace an alias by the command's own name, so that both print the same."""
        name, command, rest = super().resolve_command(
            ctx, [ALIASES.get(args[0], args[0]), *args[1:]]
        )
        takes_one = command and any(
            option.name == "model" and not option.multiple for option in command.params
        )
        if takes_one and sum(word.partition("=")[0] == "--model" for word in rest) > 1:
            raise RequestError("--model is given twice, and one network is wanted: give it once")
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a SystemExit from the user's own code is an error."""
        try:
            return super().invoke(ctx)
        except SystemExit as stop:
            if isinstance(stop.__context__, BrokenPipeError):  # rich has seen it
                raise
            raise RequestError(f"the network's own code ended the program: {stop!r}") from stop


def _refuse_empty(words: list[str]) -> None:
    """Refuse empty arguments: they usually come from an unset shell variable."""
    for before, word in pairwise(["cifar-cnn", *words]):
        empty = re.fullmatch(r"(--[^=]+)=|", word)
        if empty:
            raise RequestError(
                f"the word after {empty[1] or before} is empty (a variable that is not set?): fill "
                "it in, or leave it out"
            )


def _fail(error: UserError | typer.TyperException | OSError, *, json: bool) -> int:
    """Print the error in one line, and as a JSON document; return the exit code."""
    if isinstance(error, UserError):
        message, status = str(error), error.exit_status
    elif isinstance(error, typer.TyperException):
        message, status = _misuse(error), getattr(error, "exit_code", RequestError.exit_status)
    elif error.filename is None and not takes_output():
        drop_output()
        message, status, json = str(error), UserError.exit_status, False
        if isinstance(error, BrokenPipeError):
            return status
    else:  # a disk has failed, a name is too long, a folder may not be read
        message, status = system_line(error), UserError.exit_status
    message = printable(message)
    who = f"cifar-cnn: process {rank()}" if is_launched() else "cifar-cnn"
    sys.stderr.write(f"{who}: {message}\n")
    if json and is_main_process():
        try:
            print_json(Failure(error=message, exit_status=status))
        except OSError:  # nobody reads it, or the disk is full: the line is on standard error
            drop_output()
    return status


def _misuse(error: typer.TyperException) -> str:
    """Return the parser's message, with the nearest valid name and where to find all others."""
    context: Any = getattr(error, "ctx", None)
    unknown = re.match(r"No such (?:option: (--\S+)|command '(.+)'\.)", error.message)
    message = plain_words(error.message if unknown else error.format_message()).rstrip(".")
    end = ";"
    if unknown and context:
        flag, command = unknown.groups()
        commands = [*getattr(context.command, "commands", {}), *([] if context.parent else ALIASES)]
        flags = [
            name for each in context.command.params for name in each.opts + each.secondary_opts
        ]
        name = nearest(flag or command, flags if flag else commands)
        end = f". Did you mean {name if flag else repr(name)}?" if name else end
    more = f"see {context.command_path} --help" if context else "see --help"
    return f"{message}{end} {more}"


app = typer.Typer(
    cls=Commands,
    suggest_commands=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": [*HELP]},
)
for function in (design, train, evaluate, summarize, receptive_field, predict, export, report):
    app.command(function.__name__.replace("_", "-"), cls=Command)(function)
app.add_typer(runs, name="runs")
app.command("models", cls=Command)(models)
app.command("settings", cls=Command)(settings)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"cifar-cnn {importlib.metadata.version('cifar-cnn')}")
        raise typer.Exit


@app.callback()
@command()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
    debug: bool = False,
) -> None:
    """Train, evaluate and check small CIFAR-10 networks under a hard budget.

    Options:
        version: Print the version.
        debug: Show the traceback of an error (anywhere on the line).

    Examples:
        cifar-cnn summary --model compact
        cifar-cnn train --dataset synthetic --epochs 2 --name first
        cifar-cnn predict photo.png --checkpoint runs/first/model.pt
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(RequestError.exit_status)


def main() -> None:
    """Run the program; the console script and `python -m cifar_cnn` start here."""
    keep_freed_memory()
    settle()
    app(prog_name="cifar-cnn")
