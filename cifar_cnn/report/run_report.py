"""A run as pictures, as report.html, and as Markdown for GitHub: what is handed in."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, select_autoescape

from cifar_cnn.analysis.results import Summary
from cifar_cnn.data.dataset import Progress
from cifar_cnn.errors import UserError, counted
from cifar_cnn.inference.examine import Examination
from cifar_cnn.report.analysis_tables import budget_table, layer_table, parameter_table
from cifar_cnn.report.report_parts import Parts, collect_parts
from cifar_cnn.report.runs import setting_text
from cifar_cnn.report.table import Column, Table, escape_markdown, numbers, texts
from cifar_cnn.results import IfGiven, Result
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.settings import Settings
from cifar_cnn.storage.files import write_atomically
from cifar_cnn.training.events import Event, RunEnded
from cifar_cnn.training.history import SPLIT_NAMES
from cifar_cnn.training.record import RunRecord, read_run
from cifar_cnn.training.run_files import REPORT, check_result, write_file

SAID = ("dataset", "epochs", "seed", "recipe", "batch_size", "optimizer", "lr", "scheduler")
WHERE_GIVEN = ("model_arg", "limit_train", "limit_eval", "val_size", "test_size")
"""Settings that the hand-in says of every run, and those that it says where they are given."""
NAMED = (Column("", whole=True), Column(""))
"""Columns of a table of facts."""

TEMPLATES = Environment(
    loader=PackageLoader("cifar_cnn.report"),
    autoescape=select_autoescape(["html.j2"]),
    trim_blocks=True,
)
TEMPLATES.filters |= {"counted": counted, "md": escape_markdown}


class RunReport(Result):
    """What was written: the page, the pictures, and what had to be left out and why."""

    report: Path
    pictures: tuple[Path, ...]
    notes: tuple[str, ...]
    markdown: IfGiven[Path] = None


def report_at_end(event: Event) -> None:
    """Listener that writes a finished run's report, which may run its network's code as it did."""
    if isinstance(event, RunEnded) and event.finished:
        record = read_run(event.directory).model_copy(update={"state": "finished"})
        named = record.settings.model_dump(include={"model", "model_arg"})
        _write_page(record, collect_parts(record, (), named, None, reference=False))


@global_state_kept()
def write_report(
    run: Path | str,
    *,
    compare: Sequence[Path | str] = (),
    reference: bool = False,
    markdown: Path | str | None = None,
    exist_ok: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Write a run's pictures and its report.html into its directory.

    What is missing (no checkpoint yet, images gone, a network that the analysis cannot follow)
    is left out, and said.

    Args:
        run: the run directory.
        compare: other run directories, for a picture of the learning curves side by side.
        reference: compare with the figures of the reference program's log too.
        markdown: a file, `.md`, for the same as Markdown, with its pictures in a folder beside it.
        exist_ok: replace the Markdown file and its pictures if they exist.
        overrides: settings in place of the run's: model, data_dir, device …
        progress: told how the decoding of image files, or a download, goes.

    Raises:
        RunError: a run directory cannot be used, or the report cannot be written.
        UserError: the Markdown cannot be written, or exists without `exist_ok`.
    """
    file = None if markdown is None else Path(markdown)
    record = read_run(run)
    others = [read_run(each) for each in compare]
    if file is not None:
        _check_markdown(file, exist_ok=exist_ok)
    parts = collect_parts(record, others, overrides or {}, progress, reference=reference)
    written = _write_page(record, parts)
    if file is None:
        return written
    _write_markdown(file, record, parts)
    return written.model_copy(update={"markdown": file})


def _write_page(record: RunRecord, parts: Parts) -> RunReport:
    page = TEMPLATES.get_template("report.html.j2").render(_context(record, parts))
    path = record.run / REPORT
    for picture in parts.pictures.values():
        write_file(record.run / picture.file, picture.content)
    write_file(path, page.encode())
    pictures = tuple(record.run / picture.file for picture in parts.pictures.values())
    return RunReport(report=path, pictures=pictures, notes=tuple(parts.notes))


def _pictures_of(file: Path) -> Path:
    return file.with_name(f"{file.stem}_files")


def _check_markdown(file: Path, *, exist_ok: bool) -> None:
    """Refuse a file that cannot be written, and without `exist_ok` one that exists."""
    check_result("--markdown", file, ".md")
    folder = _pictures_of(file)
    try:
        is_free = folder.is_dir() and (exist_ok or not any(folder.iterdir()))
        if file.exists() and not exist_ok:
            raise UserError(f"{file} exists: give another name, or --exist-ok to replace it")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    if folder.exists() and not is_free:
        raise UserError(
            f"{folder}, the folder for the pictures of {file.name}, exists: give another name, or "
            "move it away"
        )


def _write_markdown(file: Path, record: RunRecord, parts: Parts) -> None:
    folder = _pictures_of(file)
    context = _context(record, parts) | {"folder": quote(folder.name)}
    text = TEMPLATES.get_template("report.md.j2").render(context)
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        for picture in parts.pictures.values():
            write_atomically(folder / picture.file, picture.content)
        write_atomically(file, text.encode())
    except OSError as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{file} cannot be written: {error.strerror}") from error


def _context(record: RunRecord, parts: Parts) -> dict[str, Any]:
    """Return what the templates of the page and of the hand-in show."""
    summary, field, found, settings = parts.summary, parts.field, parts.examination, record.settings
    budget = summary.budget if summary else None
    environment = [(n, str(v)) for n, v in record.environment.items() if v is not None]
    return {
        "run": record,
        "about": f"{settings.model}, recipe {settings.recipe}, on {settings.dataset}: "
        f"{record.state} after {record.epochs} of {counted(settings.epochs, 'epoch')}",
        "notes": parts.notes,
        "pictures": parts.pictures,
        "examination": found,
        "split": SPLIT_NAMES[found.split] if found else "",
        "summary": summary,
        "field": field,
        "budget": budget,
        "budget_table": budget_table(budget) if budget else None,
        "parameters": _parameters(summary) if summary else None,
        "layers": layer_table(field) if field else None,
        "mistakes": _mistakes(found) if found else None,
        "result": Table(texts("what", "value"), _result(record, found)),
        "settings": Table(
            NAMED, [(name, setting_text(getattr(settings, name))) for name in Settings.model_fields]
        ),
        "environment": Table(NAMED, environment) if environment else None,
    }


def _parameters(summary: Summary) -> Table:
    table = parameter_table(summary)
    total = ("total", "", "", summary.totals.parameters, summary.totals.mult_adds)
    return Table(table.columns, [*table.rows, total])


def _mistakes(found: Examination) -> Table | None:
    """Return the wrong answers, their files by the path below the data folder."""
    if not found.mistakes:
        return None
    root = found.network.settings.data_dir
    rows = [
        (
            Path(each.file).relative_to(root).as_posix()
            if Path(each.file).is_relative_to(root)
            else each.file,
            *(each.true, each.predicted, each.probability),
        )
        for each in found.mistakes
    ]
    return Table([*texts("file", "true", "predicted"), *numbers("probability", form=".1%")], rows)


def _result(record: RunRecord, found: Examination | None) -> list[tuple[str, str]]:
    """Return what the hand-in says first: accuracy, how it was reached, and where."""
    best, settings, environment = record.best, record.settings, record.environment
    rows = []
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
    given = [name for name in WHERE_GIVEN if getattr(settings, name)]
    rows += [(name, setting_text(getattr(settings, name))) for name in (*SAID, *given)]
    if record.history:
        rows.append(("training", f"{record.seconds:,.0f} s"))
    if device := environment.get("device_name") or environment.get("processor"):
        rows.append(("ran on", device))
    if "torch" in environment:
        rows.append(("torch", environment["torch"]))
    return rows
