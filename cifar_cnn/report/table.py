"""One kind of table, rendered to the console, Markdown, CSV and HTML."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text

from cifar_cnn.errors import printable

MARKS: Final = {"✓": ("green", "yes"), "✗": ("red", "no")}
"""How a truth value is shown: its style on a console, its class in HTML."""


@dataclass(frozen=True)
class Column:
    """A column: its heading, how its values are shown, and where.

    `form` is the format of numbers, such as `,d`. A `whole` column is never broken into lines.
    A console of fewer than `least` columns leaves the column out, and so does a telephone.
    """

    heading: str
    form: str = ""
    right: bool = False
    whole: bool = False
    least: int = 0

    def text(self, value: object) -> str:
        """Return a value as people read it: a mark for a truth value, a dash for None."""
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "✓" if value else "✗"
        return str(value) if isinstance(value, str | Text) else format(value, self.form)


def texts(*headings: str, least: int = 0) -> list[Column]:
    """Return columns of text."""
    return [Column(heading, least=least) for heading in headings]


def numbers(*headings: str, form: str = "", least: int = 0) -> list[Column]:
    """Return right-aligned columns."""
    return [Column(heading, form, right=True, least=least) for heading in headings]


@dataclass(frozen=True)
class Table:
    """Columns and rows; a cell is text (plain or rich's), a number, a truth value, or None."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]

    def on(self, console: Console, title: str | None = None) -> ConsoleTable:
        """Return what a console prints: no lines, and the columns that it has room for."""
        kept = [i for i, each in enumerate(self.columns) if console.width >= each.least]
        shown = ConsoleTable(box=None, pad_edge=False, title=title, show_header=self._is_headed)
        for column in (self.columns[i] for i in kept):
            shown.add_column(
                Text(column.heading),
                justify="right" if column.right else "left",
                no_wrap=column.whole,
                overflow="fold",
            )
        for row in self.rows:
            shown.add_row(*(_rich(row[i], self.columns[i].text(row[i])) for i in kept))
        return shown

    def width(self, console: Console) -> int:
        """Return how many columns of a console the table takes where there is room for all."""
        options = console.options.update_width(10_000)
        return console.measure(self.on(console), options=options).maximum

    def markdown(self) -> str:
        """Return the table as GitHub's Markdown, which shows each cell as it is."""
        headings = [escape_markdown(column.heading) for column in self.columns]
        sides = ["---:" if column.right else "---" for column in self.columns]
        rows = ([escape_markdown(cell) for cell in cells] for cells in self._texts())
        return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, sides, *rows))

    def csv(self) -> bytes:
        """Return the table as CSV: numbers in full, truth values as yes or no."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(column.heading for column in self.columns)
        for row in self.rows:
            writer.writerow(("no", "yes")[v] if isinstance(v, bool) else v for v in row)
        return text.getvalue().encode()

    def html(self) -> str:
        """Return the table as HTML, with classes for what a page aligns, hides and colors."""
        rows = [self._html_row("td", cells) for cells in self._texts()]
        if self._is_headed:
            rows.insert(0, self._html_row("th", [column.heading for column in self.columns]))
        return f"<table>\n{''.join(rows)}</table>"

    def _html_row(self, tag: str, cells: Sequence[str]) -> str:
        said = ""
        for column, cell in zip(self.columns, cells, strict=True):
            classes = [
                *(["right"] if column.right else []),
                *(["whole"] if column.whole else []),
                *(["rest"] if column.least else []),
                *MARKS.get(cell, ())[1:],
            ]
            attribute = f' class="{" ".join(classes)}"' if classes else ""
            said += f"<{tag}{attribute}>{html.escape(cell)}</{tag}>"
        return f"<tr>{said}</tr>\n"

    def _texts(self) -> list[list[str]]:
        return [
            [printable(c.text(value)) for c, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    @property
    def _is_headed(self) -> bool:
        return any(column.heading for column in self.columns)


def escape_markdown(value: object) -> str:
    """Return text as Markdown that shows it as it is, in a table's cell too.

    An underscore within a word needs nothing and stays readable in the source.
    """
    special = r"([\\`*\[\]<>#!|~$&]|(?<![^\W_])_|_(?![^\W_]))"
    return re.sub(special, r"\\\1", printable(str(value)))


def _rich(value: object, text: str) -> Text:
    if isinstance(value, Text):
        return value
    return Text("\n".join(map(printable, text.split("\n"))), style=MARKS.get(text, ("",))[0])
