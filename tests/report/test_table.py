"""One table, rendered to four formats."""

import io
import itertools

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from rich.text import Text

from cifar_cnn.report.console import Column, Table, escape_markdown, numbers, texts

TABLE = Table(
    [Column(""), *texts("name"), *numbers("size", form=",d"), *texts("where", least=60)],
    [(True, "[b]<i>", 1234, "x"), (False, Text("_c_", "bold"), None, "y")],
)


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (80, ["   name     size  where", "✓  [b]<i>  1,234  x    ", "✗  _c_         –  y    "]),
        (40, ["   name     size", "✓  [b]<i>  1,234", "✗  _c_         –"]),
    ],
)
def test_a_console_shows_the_columns_that_it_has_room_for(width, lines):
    console = Console(file=io.StringIO(), width=width)
    console.print(TABLE.on(console))
    assert console.file.getvalue().splitlines() == lines
    assert TABLE.width(console) == len(lines[0])


def test_markdown_shows_each_cell_as_it_is():
    assert TABLE.markdown().splitlines() == [
        "|  | name | size | where |",
        "| --- | --- | ---: | --- |",
        r"| ✓ | \[b\]\<i\> | 1,234 | x |",
        r"| ✗ | \_c\_ | – | y |",
    ]


def test_html_escapes_and_says_what_a_page_aligns_hides_and_colors():
    page = TABLE.html()
    assert "<td>[b]&lt;i&gt;</td>" in page
    assert '<td class="right">1,234</td>' in page
    assert '<td class="rest">x</td>' in page
    assert '<td class="no">✗</td>' in page
    assert "<th" not in Table(texts("", ""), [("a", "b")]).html()


@pytest.mark.parametrize(
    "text", ["a|b", "__init__", "_x_", "x_1", "*", "a\\b", "![x](y)", "<br>", "&amp;", "`", "~~a~~"]
)
def test_no_text_is_taken_for_markdown(text):
    table = f"| h |\n| --- |\n| {escape_markdown(text)} |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [after for each, after in itertools.pairwise(tokens) if each.type == "td_open"]
    shown = ["".join(part.content for part in each.children) for each in cells]
    kinds = {part.type for each in cells for part in each.children}
    assert (shown, kinds <= {"text", "text_special"}) == ([text], True)
