"""Values as people read them, and tables on a console, in Markdown and in HTML."""

import io
import itertools
from operator import itemgetter

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from rich.text import Text

from cifar_cnn.errors import counted
from cifar_cnn.report.console import Column, Table, escape_markdown, format_size
from cifar_cnn.report.run_report import TEMPLATES

TABLE = Table(
    [
        Column("", itemgetter(0)),
        Column("name", itemgetter(1)),
        Column("size", itemgetter(2), ",d", right=True),
        Column("where", itemgetter(3), least=60),
    ],
    [(True, "[b]<i>", 1234, "x"), (False, Text("_c_", "bold"), None, "y")],
)
SIZES = {
    0: "0 bytes",
    1: "1 byte",
    999: "999 bytes",
    1000: "1 kB",
    12_345: "12 kB",
    99_499: "99 kB",
    99_500: "0.10 MB",
    1_234_567: "1.23 MB",
}
COUNTS = {
    (0, "epoch"): "0 epochs",
    (1, "class"): "1 class",
    (2, "class"): "2 classes",
    (3, "process"): "3 processes",
    (2, "batch"): "2 batches",
    (10_000, "test image"): "10,000 test images",
}


def test_sizes_have_a_fitting_unit_and_one_of_a_thing_has_no_s():
    assert {size: format_size(size) for size in SIZES} == SIZES
    assert {each: counted(*each) for each in COUNTS} == COUNTS


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (80, ["   name     size  where", "✓  [b]<i>  1,234  x    ", "✗  _c_         –  y    "]),
        (40, ["   name     size", "✓  [b]<i>  1,234", "✗  _c_         –"]),
    ],
)
def test_a_console_shows_the_columns_that_it_has_room_for(width, lines):
    console = Console(file=io.StringIO(), width=width)
    TABLE.show(console)
    assert console.file.getvalue().splitlines() == lines
    assert TABLE.measure(console) == len(lines[0])


def test_markdown_shows_each_cell_as_it_is():
    assert TABLE.to_markdown().splitlines() == [
        "|  | name | size | where |",
        "| --- | --- | ---: | --- |",
        r"| ✓ | \[b\]\<i\> | 1,234 | x |",
        r"| ✗ | \_c\_ | – | y |",
    ]


def test_html_is_escaped_and_has_classes_for_what_a_page_aligns_hides_and_colors():
    show_table = TEMPLATES.get_template("table.html.j2").module.show_table
    page = show_table(TABLE)
    assert "<td>[b]&lt;i&gt;</td>" in page
    assert '<td class="right">1,234</td>' in page
    assert '<td class="rest">x</td>' in page
    assert '<td class="no">✗</td>' in page
    assert "<th" not in show_table(Table([Column("", str)], "ab"))


@pytest.mark.parametrize(
    "text", ["a|b", "__init__", "_x_", "x_1", "*", "a\\b", "![x](y)", "<br>", "&amp;", "`", "~~a~~"]
)
def test_no_text_is_taken_for_markdown(text):
    table = f"| h |\n| --- |\n| {escape_markdown(text)} |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [after for each, after in itertools.pairwise(tokens) if each.type == "td_open"]
    contents = ["".join(part.content for part in each.children) for each in cells]
    kinds = {part.type for each in cells for part in each.children}
    assert (contents, kinds <= {"text", "text_special"}) == ([text], True)
