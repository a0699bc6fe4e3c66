"""What `--help` shows: usage, purpose, flags, and the examples of the command's docstring."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup

from cifar_cnn.report.console import NARROW, people_console
from cifar_cnn.settings import FLAGS

WIDEST = 100
COLUMN = 30  # of the text about a flag, unless the screen is narrow
VALUES = {"int": "N", "int range": "N", "float": "FLOAT", "path": "PATH", "str": "TEXT"}


class _Help:
    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(ctx))


class Command(_Help, TyperCommand):
    """A command with the help of this module."""


class Group(_Help, TyperGroup):
    """Commands under one name, with the help of this module."""


def show_everything(ctx: typer.Context, is_wanted: bool) -> None:
    """Print the help with all flags and end the program: what `--help-all` does."""
    if is_wanted:
        typer.echo(help_text(ctx, everything=True), nl=False)
        raise typer.Exit


def help_text(ctx: Any, *, everything: bool = False) -> str:
    """Return the help of a command, with the flags that few people use only if `everything`."""
    console = people_console()
    with console.capture() as capture:
        for line in _lines(ctx, min(console.width, WIDEST), everything=everything):
            text = Text(line)
            text.highlight_regex(r"^\S.*:$", "bold")
            text.highlight_regex(r"(?<![\w-])--?[a-z][a-z-]*", "cyan")
            console.print(text, soft_wrap=True)
    return capture.get()


def purpose_and_examples(command: Any) -> tuple[list[str], list[str]]:
    """Return the paragraphs of the command's docstring, and the lines below its `Examples:`."""
    purpose, _, examples = (command.help or "").partition("\n\nExamples:\n")
    return purpose.split("\n\n"), [line.strip() for line in examples.splitlines()]


def _lines(ctx: Any, width: int, *, everything: bool) -> Iterator[str]:
    command = ctx.command
    purpose, examples = purpose_and_examples(command)
    params = [option for option in command.get_params(ctx) if not option.hidden]
    arguments = {_argument(a): a.help or "" for a in params if isinstance(a, TyperArgument)}
    options = [each for each in params if not isinstance(each, TyperArgument)]
    usage = [ctx.command_path, "[OPTIONS]", *arguments]
    subcommands = getattr(command, "commands", {})
    if subcommands:
        usage.append("[COMMAND]" if ctx.parent else "COMMAND")
    yield from _wrapped(f"Usage: {' '.join(usage)}", width, indent=0, further=4)
    for paragraph in purpose:
        yield ""
        yield from _wrapped(paragraph, width, indent=0)
    yield from _section("Arguments", arguments.items(), width)
    for heading, members in _panels(options, everything=everything).items():
        yield from _section(heading, [(_flag(each, ctx), _about(each)) for each in members], width)
    summaries = [(name, purpose_and_examples(each)[0][0]) for name, each in subcommands.items()]
    yield from _section("Commands", summaries, width)
    yield from ("", "Examples:")
    for example in examples:
        yield from _command_line(example, width)


def _panels(options: Sequence[Any], *, everything: bool) -> dict[str, list[Any]]:
    """Return the options under their headings."""
    by_name = {option.name: option for option in options}
    if "help_all" in by_name and not everything:
        ranked = sorted((flag.rank, name) for name, flag in FLAGS.items() if flag.rank)
        own = ("name", "resume", "json", "help_all", "help")
        return {"Options": [by_name[name] for name in (*(name for _, name in ranked), *own)]}
    panels: dict[str, list[Any]] = {"Options": []}
    for option in options:
        panels.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(option)
    return panels


def _section(heading: str, rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield a heading and, for each row, its name with the text beside it, or below it."""
    beside = width >= NARROW
    for number, (name, text) in enumerate(rows):
        if number == 0:
            yield from ("", f"{heading}:")
        names = _wrapped(name, width, indent=2, further=4)
        about = _wrapped(text, width, indent=COLUMN if beside else 6)
        if beside and len(names[-1]) <= COLUMN - 2 and about:
            about[0] = names.pop().ljust(COLUMN) + about[0].lstrip()
        yield from (*names, *about)


class _Words(textwrap.TextWrapper):
    wordsep_re = re.compile(r"(\s+|(?<=\w\|)(?=\w))")  # spaces and choices, not hyphens


def _wrapped(text: str, width: int, *, indent: int, further: int | None = None) -> list[str]:
    indents = " " * indent, " " * (indent if further is None else further)
    return _Words(width, *indents, break_long_words=False).wrap(text)


def _command_line(line: str, width: int) -> list[str]:
    """Return a line for the shell; a broken one goes on after a backslash."""
    if len(line) <= width - 2:
        return [f"  {line}"]
    *first, last = _wrapped(line, width - 2, indent=2, further=6)
    return [*(f"{part} \\" for part in first), last]


def _argument(argument: Any) -> str:
    word = (argument.metavar or argument.name.upper()).removesuffix("...")
    word = word if argument.required else f"[{word}]"
    return f"{word}..." if argument.nargs != 1 else word


def _flag(option: Any, ctx: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        names += f" / {option.secondary_opts[0]}"
    if option.is_flag:
        return names
    kind = option.display_type(ctx).strip("<>")
    return f"{names} {option.metavar or VALUES.get(kind, kind)}"


def _about(option: Any) -> str:
    text, default = option.help.rstrip("."), option.default
    if option.is_flag:
        default = "yes" if option.secondary_opts and default else None
    if option.required:
        text += " (required)"
    elif option.show_default and default is not None:
        text += f" (default: {default})"
    return f"{text}."
