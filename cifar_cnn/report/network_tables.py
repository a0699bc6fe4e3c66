"""Several networks, a line each: as a table, CSV and JUnit's XML; and the built-in networks."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console

from cifar_cnn.analysis.isolation import Answer
from cifar_cnn.analysis.results import Features, Final, ReceptiveField, Requirement, Verdict
from cifar_cnn.errors import counted, printable
from cifar_cnn.report.console import NARROW, Column, Table, format_amount, format_sides, say
from cifar_cnn.results import Result, Share

FIGURES = ("parameters", "mult_adds", "rf_features", "rf_output")
LAST_COLUMNS = ("limits_file", "wrong")
Row = dict[str, Any]
"""A network's line of the CSV file, by column."""


def row_of(answer: Answer, file: str | None = None) -> Row:
    """Return figures, requirements and what is wrong; `file` set the limit of receptive fields."""
    document, figures = answer.document, dict[str, Any].fromkeys(FIGURES, "")
    requirements: Sequence[Requirement] = ()
    fields: Verdict | ReceptiveField | None = None
    if isinstance(document, ReceptiveField):
        fields, requirements = document, [_min_rf(document)]
    elif document is not None:
        figures |= {name: getattr(document.totals, name) for name in FIGURES[:2]}
        if document.budget is not None:
            fields, requirements = document.budget, document.budget.requirements
            file = document.budget.file
    if fields and fields.features and fields.final:
        sides = fields.features.receptive_field, fields.final.receptive_field
        figures |= {name: format_sides(each) for name, each in zip(FIGURES[2:], sides, strict=True)}
    verdict = "met" if answer.passed else "broken" if document else "error"
    row: Row = {"model": printable(answer.model), "verdict": verdict, **figures}
    for item in requirements:
        row[item.name] = "yes" if item.passed else "no"
        values = (("limit", item.limit), ("actual", item.actual), ("where", item.detail))
        row |= {f"{item.name} {what}": value for what, value in values}
    missed = [
        f"{item.name}: {format_amount(item.name, item.actual)} "
        f"(limit {format_amount(item.name, item.limit)}), {item.detail}"
        for item in requirements
        if not item.passed
    ]
    wrong = printable("; ".join(missed) or answer.error)
    return row | {"limits_file": file if requirements else None, "wrong": wrong}


def _min_rf(document: ReceptiveField) -> Requirement:
    sides = document.final.receptive_field
    return Requirement(
        name="min-rf",
        limit=document.minimum,
        actual=min(sides),
        passed=document.passed,
        detail=f"{format_sides(sides)} at the output; must be above the limit",
    )


def show_networks(console: Console, rows: Sequence[Row]) -> None:
    """Print a line for each network, what is wrong with it, and how many have which verdict."""
    names = [name for name in FIGURES if any(row[name] for row in rows)]
    columns = [Column(name, itemgetter(name)) for name in ("model", "verdict")]
    for name in names:
        heading = name.replace("rf_", "field,\n").replace("_", "-")
        columns.append(Column(heading, itemgetter(name), ",d", right=True, least=NARROW))
    Table(columns, rows).show(console)
    say(console, *(f"{row['model']}: {row['wrong']}" for row in rows if row["wrong"]), wrap=True)
    verdicts = Counter(row["verdict"] for row in rows)
    counts = ", ".join(f"{verdicts[name]} {name}" for name in ("met", "broken", "error"))
    console.print(f"{counted(len(rows), 'network')}: {counts}")


def to_csv(rows: Sequence[Row]) -> bytes:
    """Return the rows as CSV; the file of the limits and what is wrong are its last columns."""
    names = dict.fromkeys(name for row in rows for name in row if name not in LAST_COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *LAST_COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def to_junit(rows: Sequence[Row], command: str) -> bytes:
    """Return JUnit's XML: a network is a test that passes, fails or errs, its row the output."""
    verdicts = Counter(row["verdict"] for row in rows)
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root,
        "testsuite",
        name=f"cifar-cnn {command}",
        tests=str(len(rows)),
        failures=str(verdicts["broken"]),
        errors=str(verdicts["error"]),
    )
    for row in rows:
        case = ET.SubElement(suite, "testcase", classname=command, name=row["model"])
        if row["verdict"] != "met":
            tag = "failure" if row["verdict"] == "broken" else "error"
            ET.SubElement(case, tag, message=row["wrong"])
        lines = (f"{name}: {value}" for name, value in row.items() if value not in (None, ""))
        ET.SubElement(case, "system-out").text = "\n".join(map(printable, lines))
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


class Reached(Result):
    """Mean test accuracy on CIFAR-10, as JPEG, of n runs after their last epoch."""

    epochs: int
    accuracy: Share
    n: int


class BuiltIn(Result):
    """A built-in network: its size and field for 32×32 images, its recipe and accuracy."""

    model: str
    parameters: int
    mult_adds: int
    features: Features
    final: Final
    recipe: str
    reached: tuple[Reached, ...]


def built_in_networks() -> list[BuiltIn]:
    """Return what is known of each built-in network."""
    from cifar_cnn.analysis.receptive_field import receptive_field  # and torch
    from cifar_cnn.analysis.summary import summarize
    from cifar_cnn.models import BUILT_IN

    networks = []
    for name, network in BUILT_IN.items():
        totals, field = summarize(name).totals, receptive_field(name)
        networks.append(
            BuiltIn(
                model=name,
                parameters=totals.parameters,
                mult_adds=totals.mult_adds,
                features=field.features,
                final=field.final,
                recipe=network.recipe,
                reached=tuple(Reached(epochs=e, accuracy=a, n=n) for e, a, n in network.reached),
            )
        )
    return networks


def show_models(console: Console, networks: list[BuiltIn]) -> None:
    """Print a table of them, or on a narrow screen a paragraph each."""
    columns = [
        Column("model"),
        Column("parameters", form=",d", right=True),
        Column("mult-adds", lambda network: f"{network.mult_adds / 1e6:.2f} M", right=True),
        Column("field", _format_fields, right=True),
        Column("recipe"),
        Column("reached on CIFAR-10", _format_results),
    ]
    if console.width >= NARROW:
        Table(columns, networks).show(console)
    else:
        headings = [f"  {column.heading.removesuffix(' on CIFAR-10')}" for column in columns]
        for network in networks:
            name, *cells = (column.cell(network) for column in columns)
            console.print(name)
            facts = [*zip(headings[1:], cells, strict=True)]
            Table([Column("", itemgetter(0)), Column("", itemgetter(1))], facts).show(console)
    console.print("Accuracy on the test images, as JPEG: means of n runs after the last epoch.")
    family = (
        "compact has any size (--model-arg width=0.5): cifar-cnn design finds the one you need."
    )
    say(console, family, wrap=True)


def _format_fields(network: BuiltIn) -> str:
    fields = network.features.receptive_field, network.final.receptive_field
    return "{} map\n{} output".format(*map(format_sides, fields))


def _format_results(network: BuiltIn) -> str:
    return "\n".join(
        f"{each.accuracy:.2%}, {counted(each.epochs, 'epoch')}, n = {each.n}"
        for each in network.reached
    )
