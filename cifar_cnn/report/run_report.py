"""A run on paper: where it ran, as pictures, as report.html, and as Markdown to hand in."""

import importlib.metadata
import json
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from jinja2 import Environment, PackageLoader, select_autoescape

from cifar_cnn.data.dataset import Progress
from cifar_cnn.errors import UserError, counted
from cifar_cnn.inference.evaluate import JudgedImage
from cifar_cnn.report.analysis_tables import budget_table, layer_table, parameter_table
from cifar_cnn.report.console import Column, Table, escape_markdown, format_setting
from cifar_cnn.report.contents import Contents, collect_contents
from cifar_cnn.results import IfGiven, Result
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.storage.files import write_atomically
from cifar_cnn.training.history import SPLIT_NAMES, Event, RunEnded, RunStarted
from cifar_cnn.training.record import read_run
from cifar_cnn.training.run_files import ENVIRONMENT, REPORT, check_result, write_file


class RunReport(Result):
    """What was written: the page, the pictures, and what had to be left out and why."""

    report: Path
    pictures: tuple[Path, ...]
    notes: tuple[str, ...]
    markdown: IfGiven[Path] = None


def write_environment(event: Event) -> None:
    """Listener that writes environment.json when a run starts, or goes on."""
    if not isinstance(event, RunStarted):
        return
    device = event.device
    document = {
        "cifar_cnn": importlib.metadata.version("cifar-cnn"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "parameters": event.parameters,
    }
    content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_file(event.directory / ENVIRONMENT, content.encode())


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is empty
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def report_at_end(event: Event) -> None:
    """Listener that writes a finished run's report, which may run its network's code as it did."""
    if isinstance(event, RunEnded) and event.finished:
        record = read_run(event.directory).model_copy(update={"state": "finished"})
        network = record.settings.model_dump(include={"model", "model_arg"})
        _write_page(collect_contents(record, (), network, None, reference=False))


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
    is left out, with a note.

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
    contents = collect_contents(record, others, overrides or {}, progress, reference=reference)
    written = _write_page(contents)
    if file is None:
        return written
    _write_markdown(file, contents)
    return written.model_copy(update={"markdown": file})


def _write_page(contents: Contents) -> RunReport:
    directory, pictures = contents.run.run, contents.pictures.values()
    page = TEMPLATES.get_template("report.html.j2").render(vars(contents))
    for picture in pictures:
        write_file(directory / picture.file, picture.content)
    write_file(directory / REPORT, page.encode())
    return RunReport(
        report=directory / REPORT,
        pictures=tuple(directory / picture.file for picture in pictures),
        notes=tuple(contents.notes),
    )


def _picture_folder(file: Path) -> Path:
    return file.with_name(f"{file.stem}_files")


def _check_markdown(file: Path, *, exist_ok: bool) -> None:
    """Refuse a file that cannot be written, and without `exist_ok` one that exists."""
    check_result("--markdown", file, ".md")
    folder = _picture_folder(file)
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


def _write_markdown(file: Path, contents: Contents) -> None:
    folder = _picture_folder(file)
    template = TEMPLATES.get_template("report.md.j2")
    text = template.render(vars(contents), folder=quote(folder.name))
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        for picture in contents.pictures.values():
            write_atomically(folder / picture.file, picture.content)
        write_atomically(file, text.encode())
    except OSError as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{file} cannot be written: {error.strerror}") from error


def _mistake_table(mistakes: Sequence[JudgedImage]) -> Table:
    columns = [Column("file"), Column("true"), Column("predicted")]
    columns.append(Column("probability", form=".1%", right=True))
    return Table(columns, mistakes)


TEMPLATES = Environment(
    loader=PackageLoader("cifar_cnn.report"),
    autoescape=select_autoescape(["html.j2"]),
    trim_blocks=True,
)
TEMPLATES.globals["split_names"] = SPLIT_NAMES
TEMPLATES.filters |= {
    "counted": counted,
    "md": escape_markdown,
    "setting": format_setting,
    "budget_table": budget_table,
    "layer_table": layer_table,
    "parameter_table": parameter_table,
    "mistake_table": _mistake_table,
}
