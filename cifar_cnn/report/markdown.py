"""A run as Markdown for GitHub, with its pictures beside it: what is handed in."""

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from cifar_cnn.errors import UserError, counted, printable
from cifar_cnn.report.analysis_tables import LAYER_HEADINGS, layer_cells
from cifar_cnn.report.console import known, times
from cifar_cnn.report.report_parts import ReportParts
from cifar_cnn.storage.files import write_atomically
from cifar_cnn.training.history import SPLIT_NAMES
from cifar_cnn.training.run_files import check_result

Cells = Sequence[object]

SAID = ("dataset", "epochs", "seed", "recipe", "batch_size", "optimizer", "lr", "scheduler")
WHERE_GIVEN = ("model_arg", "limit_train", "limit_eval", "val_size", "test_size")
"""Settings that are said of every run, and those that are said where they are given."""


def check_markdown(file: Path) -> None:
    """Refuse a file that cannot be written, or that is not as an earlier report left it.

    Raises:
        RequestError: its name has another ending than .md.
        UserError: there is no such folder, or something of the user's stands in the way.
    """
    check_result("--markdown", file, ".md")
    folder, ours = _pictures_of(file), False
    try:
        if file.exists():
            seal, _, rest = file.read_bytes().partition(b"\n")
            ours = seal == _seal(rest)
            if not ours:
                raise UserError(
                    f"{file} exists and is not as cifar-cnn wrote it: give another name, or move "
                    "it away"
                )
        if folder.exists() and not (folder.is_dir() and (ours or not [*folder.iterdir()])):
            raise UserError(
                f"{folder}, where the pictures of {file.name} go, exists: give another name, or "
                "move it away"
            )
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error


def write_markdown(file: Path, parts: ReportParts) -> None:
    """Write the file, and its pictures into the folder beside it; see `check_markdown`.

    Raises:
        UserError: something cannot be written.
    """
    folder = _pictures_of(file)
    text = "\n".join(_lines(parts, quote(folder.name))).encode()
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        for picture in parts.pictures.values():
            write_atomically(folder / picture.file, picture.content)
        write_atomically(file, _seal(text) + b"\n" + text)
    except OSError as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{file} cannot be written: {error.strerror}") from error


def escaped(value: object) -> str:
    """Return text as Markdown that shows it as it is, in a table's cell too.

    An underscore within a word needs nothing and stays readable in the source.
    """
    special = r"([\\`*\[\]<>#!|~$&]|(?<![^\W_])_|_(?![^\W_]))"
    return re.sub(special, r"\\\1", printable(str(value)))


def _pictures_of(file: Path) -> Path:
    return file.with_name(f"{file.stem}_files")


def _seal(text: bytes) -> bytes:
    """Return a first line that GitHub does not show, and that no edited text has."""
    return f"<!-- cifar-cnn report {hashlib.sha256(text).hexdigest()} -->".encode()


def _lines(parts: ReportParts, folder: str) -> Iterator[str]:
    run, settings = parts.record, parts.record.settings
    yield f"# {escaped(run.name)}"
    yield ""
    yield (
        f"{escaped(settings.model)}, recipe {settings.recipe}, on {settings.dataset}: {run.state} "
        f"after {run.epochs} of {counted(settings.epochs, 'epoch')}"
    )
    yield ""
    for note in parts.notes:
        yield from (f"Left out: {escaped(note)}", "")
    yield from _result(parts)
    yield from _parameters(parts)
    yield from _field(parts, folder)
    for title, keys in (
        ("Learning curves", ("curves", "comparison")),
        ("Confusion", ("confusion", "classes")),
        ("Calibration", ("reliability",)),
        ("Misclassified images", ("mistakes",)),
    ):
        yield from _pictures(parts, folder, title, keys)
    mistakes = [
        (_in_data(each.file, parts), each.true, each.predicted, f"{each.probability:.1%}")
        for each in (parts.examination.mistakes if parts.examination else ())
    ]
    if mistakes:
        yield from _table(("file", "true", "predicted", "probability"), mistakes, numbers=(3,))
    elif parts.examination:
        yield from ("## Misclassified images", "", "There is none.", "")
    yield from _pictures(parts, folder, "Grad-CAM", ("grad_cam",))
    yield from _pictures(parts, folder, "Training images and first filters", ("batch", "filters"))


def _in_data(file: str, parts: ReportParts) -> str:
    """Return the path below the data folder: the page is for others, who have no such folder."""
    root = parts.examination.network.settings.data_dir if parts.examination else Path()
    inside = Path(file).is_relative_to(root)
    return Path(file).relative_to(root).as_posix() if inside else file


def _result(parts: ReportParts) -> Iterator[str]:
    run, found, best = parts.record, parts.examination, parts.record.best
    rows: list[Cells] = []
    if found:
        measured, split = found.evaluation, SPLIT_NAMES[found.split]
        said = f"{measured.accuracy:.2%} ({measured.correct}/{measured.samples})"
        rows.append((f"{split} accuracy", said))
        rows.append((f"{split} loss", f"{measured.loss:.4f} nats per image"))
    if best and not (found and found.split == best.eval_split):
        split = SPLIT_NAMES[best.eval_split]
        rows.append((f"{split} accuracy", f"{best.eval_accuracy:.2%} by the run's log"))
    if best:
        rows.append(("weights", f"of epoch {best.epoch}"))
    rows += [(name, getattr(run.settings, name)) for name in SAID]
    given = run.settings.model_dump(mode="json", include={*WHERE_GIVEN})
    rows += [(name, _listed(given[name])) for name in WHERE_GIVEN if given[name]]
    if run.history:
        rows.append(("training", f"{run.seconds:,.0f} s"))
    environment = run.environment
    if environment:
        rows.append(("ran on", environment["device_name"] or environment["processor"]))
        rows.append(("torch", environment["torch"]))
    yield from ("## Result", "", *_table(("what", "value"), rows))


def _listed(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) else value


def _parameters(parts: ReportParts) -> Iterator[str]:
    summary = parts.summary
    if summary is None:
        return
    if summary.budget:
        requirements = (
            (
                "✓" if each.passed else "✗",
                *(each.name, f"{each.limit:,}", known(each.actual), each.detail),
            )
            for each in summary.budget.requirements
        )
        yield from (f"## Budget: {'met' if summary.budget.passed else 'broken'}", "")
        headings = ("", "requirement", "limit", "actual", "where")
        yield from _table(headings, requirements, numbers=(2, 3))
    totals = summary.totals
    rows: list[Cells] = [
        (
            *(row.name, row.type, times(row.output_size)),
            *(f"{row.parameters:,}", f"{row.mult_adds:,}"),
        )
        for row in summary.layers
    ]
    rows.append(("total", "", "", f"{totals.parameters:,}", f"{totals.mult_adds:,}"))
    yield from ("## Parameters", "")
    headings = ("layer", "type", "output", "parameters", "mult-adds")
    yield from _table(headings, rows, numbers=(3, 4))


def _field(parts: ReportParts, folder: str) -> Iterator[str]:
    if parts.field is None:
        return
    yield from _pictures(parts, folder, "Receptive field", ("field",))
    final = parts.field.final
    seen = "covers" if final.covers_input else "does not cover"
    field = times(final.receptive_field)
    yield from (f"At the output: {field} pixels, which {seen} the image.", "")
    for warning in parts.field.warnings:
        yield from (f"Warning: {escaped(warning)}", "")
    rows = (layer_cells(layer) for layer in parts.field.layers)
    yield from _table(LAYER_HEADINGS, rows, numbers=range(1, len(LAYER_HEADINGS)))


def _pictures(parts: ReportParts, folder: str, title: str, keys: Sequence[str]) -> Iterator[str]:
    shown = [parts.pictures[key] for key in keys if key in parts.pictures]
    if shown:
        yield from (f"## {title}", "")
    for picture in shown:
        says = escaped(picture.shows)
        yield from (f"![{says}]({folder}/{picture.file})", "", f"*{says}*", "")


def _table(
    headings: Sequence[str], rows: Iterator[Cells] | Sequence[Cells], numbers: Sequence[int] = ()
) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    sides = ["---:" if column in numbers else "---" for column in range(len(headings))]
    yield f"| {' | '.join(sides)} |"
    for cells in rows:
        yield f"| {' | '.join(map(escaped, cells))} |"
    yield ""
