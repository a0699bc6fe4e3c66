"""Many networks, a line each: a table for people, CSV, and JUnit's XML for CI."""

import csv
import io
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.text import Text

from cifar_cnn.analysis.many import Answer
from cifar_cnn.analysis.results import ReceptiveField, Requirement, Verdict
from cifar_cnn.errors import counted, printable
from cifar_cnn.report.console import NARROW, known, plain_table, say, times

COLUMNS = ("model", "verdict", "parameters", "mult_adds", "rf_features", "rf_output")


def row(answer: Answer) -> dict[str, Any]:
    """Return what one line says: the verdict, the figures, each requirement, what is wrong."""
    if answer.document is None:
        wrong = printable(answer.error)
        return {"model": printable(answer.model), "verdict": "error", "wrong": wrong}
    document = answer.document
    line: dict[str, Any] = {
        "model": printable(answer.model),
        "verdict": "met" if answer.passed else "broken",
    }
    fields: Verdict | ReceptiveField | None = None
    requirements: Sequence[Requirement] = ()
    if isinstance(document, ReceptiveField):
        fields = document
    else:
        line |= {name: getattr(document.totals, name) for name in ("parameters", "mult_adds")}
        if document.budget:
            fields, requirements = document.budget, document.budget.requirements
    if fields and fields.features and fields.final:
        line["rf_features"] = times(fields.features.receptive_field)
        line["rf_output"] = times(fields.final.receptive_field)
    line |= {item.name: "yes" if item.passed else "no" for item in requirements}
    missed = [item for item in requirements if not item.passed]
    reasons = [f"{item.name}: {known(item.actual)}" for item in missed]
    if isinstance(document, ReceptiveField) and not answer.passed:
        reasons = [f"field at the output is not above {document.minimum}"]
    return line | {"wrong": "; ".join(reasons)}


def show_networks(console: Console, answers: Sequence[Answer]) -> None:
    """Print a line for each network, what is wrong with it, and how many have which verdict."""
    rows = [row(answer) for answer in answers]
    narrow = console.width < NARROW
    columns = [name for name in COLUMNS if any(name in line for line in rows)]
    if narrow:
        columns = ["model", "verdict"]
    headings = [name.replace("rf_", "field,\n").replace("_", "-") for name in columns]
    table = plain_table(headings, ("model", "verdict"))
    for line in rows:
        table.add_row(*(Text(_cell(line.get(name, ""))) for name in columns))
    console.print(table)
    for line in rows:
        if line["wrong"]:
            said = f"{line['model']}: {line['wrong']}"
            say(console, said, wrap=True)
    verdicts = [line["verdict"] for line in rows]
    counts = [f"{verdicts.count(each)} {each}" for each in ("met", "broken", "error")]
    console.print(f"{counted(len(rows), 'network')}: {', '.join(counts)}")


def as_csv(answers: Sequence[Answer]) -> bytes:
    """Return the lines as CSV: figures, a column for each requirement, what is wrong."""
    rows = [row(answer) for answer in answers]
    names = dict.fromkeys([*COLUMNS, *(name for line in rows for name in line if name != "wrong")])
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, "wrong"], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_junit(answers: Sequence[Answer], command: str) -> bytes:
    """Return the verdicts as JUnit's XML: a network is a test that passes, fails or errs."""
    rows = [row(answer) for answer in answers]
    verdicts = [line["verdict"] for line in rows]
    suite = ET.Element(
        "testsuite",
        name=f"cifar-cnn {command}",
        tests=str(len(rows)),
        failures=str(verdicts.count("broken")),
        errors=str(verdicts.count("error")),
    )
    for line in rows:
        case = ET.SubElement(suite, "testcase", classname=command, name=line["model"])
        if line["verdict"] != "met":
            tag = "failure" if line["verdict"] == "broken" else "error"
            ET.SubElement(case, tag, message=line["wrong"])
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
