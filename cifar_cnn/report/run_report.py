"""A run as pictures and as report.html: one file that needs no network and no script."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from cifar_cnn.data.dataset import Loading
from cifar_cnn.errors import counted, printable
from cifar_cnn.report.analysis_tables import LAYER_HEADINGS, NARROW_LAYER_COLUMNS, layer_cells
from cifar_cnn.report.markdown import check_markdown, write_markdown
from cifar_cnn.report.report_parts import ReportParts
from cifar_cnn.results import IfGiven, Result
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.training.events import Event, RunEnded
from cifar_cnn.training.history import SPLIT_NAMES
from cifar_cnn.training.record import RunRecord, read_run
from cifar_cnn.training.run_files import REPORT, write_file

TEMPLATES = Environment(loader=PackageLoader("cifar_cnn.report"), autoescape=True)
TEMPLATES.filters |= {"counted": counted, "printable": printable}


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
        _write(record, ReportParts(record, named), (), reference=False)


@global_state_kept()
def write_report(
    run: Path | str,
    *,
    compare: Sequence[Path | str] = (),
    reference: bool = False,
    markdown: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    loading: Loading | None = None,
) -> RunReport:
    """Write a run's pictures and its report.html into its directory.

    What is missing (no checkpoint yet, images gone, a network that the analysis cannot follow)
    is left out, and said.

    Args:
        run: the run directory.
        compare: other run directories, for a picture of the learning curves side by side.
        reference: compare with the figures of the reference program's log too.
        markdown: a file, `.md`, for the same as Markdown, with its pictures in a folder beside it.
        overrides: settings in place of the run's: model, data_dir, device …
        loading: told how the decoding of image files, or a download, goes.

    Raises:
        RunError: a run directory cannot be used, or the report cannot be written.
        UserError: the Markdown cannot be written, or would take the place of what is not its own.
    """
    file = None if markdown is None else Path(markdown)
    record = read_run(run)
    others = [read_run(each) for each in compare]
    if file is not None:
        check_markdown(file)
    parts = ReportParts(record, {**(overrides or {})}, loading)
    written = _write(record, parts, others, reference=reference)
    if file is None:
        return written
    write_markdown(file, parts)
    return written.model_copy(update={"markdown": file})


def _write(
    record: RunRecord, parts: ReportParts, others: Sequence[RunRecord], *, reference: bool
) -> RunReport:
    parts.curves(others, reference=reference)
    parts.trained()
    parts.network()
    page = TEMPLATES.get_template("report.html.j2").render(
        run=record,
        pictures=parts.pictures,
        notes=parts.notes,
        summary=parts.summary,
        field=parts.field,
        headings=LAYER_HEADINGS,
        narrow=NARROW_LAYER_COLUMNS,
        layers=[layer_cells(layer) for layer in parts.field.layers] if parts.field else [],
        examination=parts.examination,
        split_names=SPLIT_NAMES,
        settings=record.settings.model_dump(mode="json"),
    )
    path = record.run / REPORT
    for picture in parts.pictures.values():
        write_file(record.run / picture.file, picture.content)
    write_file(path, page.encode())
    pictures = tuple(record.run / picture.file for picture in parts.pictures.values())
    return RunReport(report=path, pictures=pictures, notes=tuple(parts.notes))
