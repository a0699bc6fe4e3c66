"""Consoles for people, and how they show values and tables."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text

from cifar_cnn.errors import counted, printable

NARROW = 60
"""Columns below which a table shows only what matters most."""
MARK_STYLES: Final = {"✓": "green", "✗": "red"}


def people_console(*, json: bool = False, stderr: bool = False) -> Console:
    """Return the console for people: standard output; a quiet one beside a JSON document.

    It shows names as they are, and nothing live outside a terminal.
    """
    stream = sys.stderr if stderr else sys.stdout
    interactive = None if stream.isatty() else False  # FORCE_COLOR makes a file a terminal
    return Console(
        stderr=stderr, quiet=json, force_interactive=interactive, highlight=False, emoji=False
    )


def progress_console(*, json: bool = False) -> Console:
    """Return the console for progress bars: standard error; a quiet one beside a JSON document."""
    return people_console(json=json, stderr=True)


def say(console: Console, *lines: str, wrap: bool = False) -> None:
    """Print lines as they are; with `wrap` a terminal breaks long ones at words."""
    for line in lines:
        console.print(line, soft_wrap=not (wrap and console.is_interactive), markup=False)


def warn(console: Console, line: str) -> None:
    """Print a warning about a result; with a JSON document, to standard error."""
    say(progress_console() if console.quiet else console, line)


def format_count(number: int | None) -> str:
    """Return a measured number with commas, or "not known"."""
    return "not known" if number is None else f"{number:,}"


def format_amount(name: str, number: int | None) -> str:
    """Return a number of the budget item of this name; bytes as `128 KiB` or `82.6 KiB`."""
    if number is None or name not in {"max-flash", "max-ram"}:
        return format_count(number)
    return f"{number / 1024:,.1f}".removesuffix(".0") + " KiB"


def format_sides(sides: Iterable[object]) -> str:
    """Return sides as `3×32×32`."""
    return "×".join(map(str, sides))


def format_size(size: int) -> str:
    """Return a number of bytes as `1 byte`, `512 bytes`, `12 kB` or `0.82 MB`."""
    if size < 1000:
        return counted(size, "byte")
    return f"{size / 1e3:,.0f} kB" if size < 99_500 else f"{size / 1e6:,.2f} MB"


def format_setting(value: object) -> str:
    """Return a setting's value as people read it: a size as 32x48, none as a dash."""
    if isinstance(value, tuple):
        separator = ", " if any(isinstance(each, str) for each in value) else "x"
        return separator.join(map(str, value)) or "–"
    return "–" if value is None else str(value)


@dataclass(frozen=True)
class Column:
    """A column: its heading, the value of a row, and how that is shown.

    `value` is a function of the row or the name of an attribute, by default the heading; `form` the
    format of numbers, such as `,d`. A `whole` column is never broken into lines. A console of fewer
    than `least` columns leaves the column out, and so does a telephone.
    """

    heading: str
    value: str | Callable[[Any], object] = ""
    form: str = ""
    right: bool = False
    whole: bool = False
    least: int = 0

    def cell(self, row: object) -> str | Text:
        """Return a row's value as people read it: a mark for a truth value, a dash for None."""
        get = self.value or self.heading
        value = get(row) if callable(get) else getattr(row, get)
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "✓" if value else "✗"
        return value if isinstance(value, str | Text) else format(value, self.form)


@dataclass(frozen=True)
class Table:
    """Rows of any kind; a column's value is text (plain or rich's), a number, a bool, or None."""

    columns: Sequence[Column]
    rows: Sequence[Any]

    def show(self, console: Console) -> None:
        """Print the columns that a console has room for."""
        console.print(self.to_rich(console))

    def to_rich(self, console: Console) -> ConsoleTable:
        """Return a table without lines, of the columns that a console has room for."""
        columns = [column for column in self.columns if console.width >= column.least]
        table = ConsoleTable(box=None, pad_edge=False, show_header=self.has_headings)
        for column in columns:
            table.add_column(
                Text(column.heading),
                justify="right" if column.right else "left",
                no_wrap=column.whole,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(_rich_text(column.cell(row)) for column in columns))
        return table

    def measure(self, console: Console) -> int:
        """Return how many columns of a console the table takes where there is room for all."""
        options = console.options.update_width(10_000)
        return console.measure(self.to_rich(console), options=options).maximum

    def to_markdown(self) -> str:
        """Return the table as GitHub's Markdown, which shows each cell as it is."""
        headings = [escape_markdown(column.heading) for column in self.columns]
        sides = ["---:" if column.right else "---" for column in self.columns]
        rows = ([escape_markdown(cell) for cell in cells] for cells in self.text_rows())
        return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, sides, *rows))

    def text_rows(self) -> list[list[str]]:
        """Return each row's cells as plain text."""
        return [[printable(str(each.cell(row))) for each in self.columns] for row in self.rows]

    @property
    def has_headings(self) -> bool:
        """Whether a column has a heading."""
        return any(column.heading for column in self.columns)


def escape_markdown(value: object) -> str:
    """Return text as Markdown that shows it as it is, in a table's cell too.

    An underscore within a word needs nothing and stays readable in the source.
    """
    special = r"([\\`*\[\]<>#!|~$&]|(?<![^\W_])_|_(?![^\W_]))"
    return re.sub(special, r"\\\1", printable(str(value)))


def _rich_text(cell: str | Text) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text("\n".join(map(printable, cell.split("\n"))), style=MARK_STYLES.get(cell, ""))
