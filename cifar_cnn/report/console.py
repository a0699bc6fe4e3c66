"""Where people-facing text goes."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from cifar_cnn.errors import counted

NARROW = 60
"""Columns below which a table shows only what matters most."""


def people_console(*, json: bool = False) -> Console:
    """Return the console for people: standard output; a quiet one beside a JSON document."""
    return Console(quiet=json, highlight=False)


def progress_console(*, json: bool = False) -> Console:
    """Return the console for progress bars: standard error; a quiet one beside a JSON document."""
    return Console(stderr=True, quiet=json, highlight=False)


def progress_bar(console: Console, doing: str, of: str = "/") -> Progress:
    """Return a bar that says what is `doing`, how much `of` how much; it leaves the screen.

    On a file, and on a quiet console, there is none. It is no wider than a narrow window: one made
    narrower would keep the ends of its lines.
    """
    return Progress(
        TextColumn(f"{doing} {{task.completed}}{of}{{task.total}}"),
        BarColumn(bar_width=5),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=console.quiet or not console.is_terminal,
    )


def warn(console: Console, line: str) -> None:
    """Print what is to be known of an answer; beside a JSON document, on standard error."""
    heard = Console(stderr=True, highlight=False) if console.quiet else console
    heard.print(line, soft_wrap=True, markup=False)


def file_size(size: int) -> str:
    """Return a number of bytes as `1 byte`, `512 bytes`, `12 kB` or `0.82 MB`."""
    if size < 1000:
        return counted(size, "byte")
    return f"{size / 1e3:,.0f} kB" if size < 99_500 else f"{size / 1e6:,.2f} MB"
