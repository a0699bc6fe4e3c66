"""Consoles for people: standard output, or standard error for progress."""

import sys
from collections.abc import Iterable

from rich.console import Console

from cifar_cnn.errors import counted

NARROW = 60
"""Columns below which a table shows only what matters most."""


def people_console(*, json: bool = False) -> Console:
    """Return the console for people: standard output; a quiet one beside a JSON document."""
    return _console(quiet=json, stderr=False)


def progress_console(*, json: bool = False) -> Console:
    """Return the console for progress bars: standard error; a quiet one beside a JSON document."""
    return _console(quiet=json, stderr=True)


def _console(*, quiet: bool, stderr: bool) -> Console:
    """Return a console that shows names as they are, and nothing live outside a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    interactive = None if stream.isatty() else False  # FORCE_COLOR makes a file a terminal
    return Console(
        stderr=stderr, quiet=quiet, force_interactive=interactive, highlight=False, emoji=False
    )


def say(console: Console, *lines: str, wrap: bool = False) -> None:
    """Print lines as they are; with `wrap` a terminal breaks long ones at words."""
    for line in lines:
        console.print(line, soft_wrap=not (wrap and console.is_interactive), markup=False)


def warn(console: Console, line: str) -> None:
    """Print a warning about a result; with a JSON document, to standard error."""
    say(progress_console() if console.quiet else console, line)


def known(actual: int | None) -> str:
    """Return a measured number with commas, or "not known"."""
    return "not known" if actual is None else f"{actual:,}"


def times(sizes: Iterable[object]) -> str:
    """Return numbers as sides: `3×32×32`."""
    return "×".join(str(size) for size in sizes)


def file_size(size: int) -> str:
    """Return a number of bytes as `1 byte`, `512 bytes`, `12 kB` or `0.82 MB`."""
    if size < 1000:
        return counted(size, "byte")
    return f"{size / 1e3:,.0f} kB" if size < 99_500 else f"{size / 1e6:,.2f} MB"
