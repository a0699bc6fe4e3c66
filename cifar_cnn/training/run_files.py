"""The names of a run's files, and checks of a run directory. Needs no torch."""

import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cifar_cnn.errors import RequestError, RunError
from cifar_cnn.storage.files import SOURCE, check_folder, leftovers, write_atomically
from cifar_cnn.storage.naming import CHECKPOINTS, LOCK, MODEL, SETTINGS
from cifar_cnn.training.history import EpochRow, to_log

ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
LOG = "training.log"
CURVES = "curves.png"
REPORT = "report.html"
PICTURE_OF = {
    "curves": CURVES,
    "comparison": "comparison.png",
    "confusion": "confusion.png",
    "classes": "classes.png",
    "reliability": "reliability.png",
    "mistakes": "mistakes.png",
    "grad_cam": "grad-cam.png",
    "batch": "batch.png",
    "filters": "filters.png",
    "field": "receptive-field.png",
}
PICTURES = tuple(PICTURE_OF.values())
FILES = (SETTINGS, SOURCE, ENVIRONMENT, METRICS, LOG, *CHECKPOINTS, REPORT, *PICTURES)

EVENTS = "tensorboard"
"""A folder, of TensorBoard's event files."""

KINDS = {".csv": "CSV", ".md": "Markdown", ".png": "a PNG picture", ".xml": "XML"}
"""What is in a file that a flag names, by the suffix that its name has to have."""

RETRY_AFTER = 1.0
"""Seconds between a failed write and the second try."""

Replace = bool | Literal["unsaved"]
"""Which earlier run a new one may take the place of: any, none, or one that has saved nothing."""


def check_result(flag: str, path: Path, suffix: str) -> None:
    """Raise an error before the work starts if `flag` must not write this file.

    A suffix of its own keeps a flag from replacing whatever else a shell's pattern puts behind it.
    """
    if path.suffix.lower() != suffix:
        raise RequestError(f"{flag} writes {KINDS[suffix]}: {path} has to end in {suffix}")
    check_folder(path)
    if path.name in FILES and (path.parent / SETTINGS).exists():
        raise RunError(f"{path} is a run's own file: give {flag} another name")


def check_free(path: Path, *, replace: Replace = False) -> None:
    """Raise a RunError if the folder holds an earlier run, or files that are not of a run."""
    names = _names(path)
    if not names:
        return
    _check_is_run(path)
    if replace == "unsaved" and not _has_saved(path, names):
        return
    if replace == "unsaved":
        raise RunError(
            f"run directory {path} exists and has no checkpoint to go on from: choose another "
            "--name, or --exist-ok to start it again"
        )
    if not replace:
        raise RunError(
            f"run directory {path} exists: choose another --name, or --resume auto to go on with "
            "it, or --exist-ok to start it again"
        )


def check_resumable(path: Path) -> None:
    """Keep a resumed run from writing among files that are not of a run."""
    if _names(path):
        _check_is_run(path)


def _names(path: Path) -> set[str]:
    """Return the names in a folder, except a run's lock and unfinished writes; none if absent."""
    try:
        ours = {LOCK, *(each.name for each in leftovers(path, FILES))}
        return {each.name for each in path.iterdir()} - ours
    except FileNotFoundError:
        return set()
    except OSError as error:
        if path.is_file():
            raise RunError(f"{path} is a file, no folder: choose another --name") from error
        raise cannot_write(path, error) from error


def _check_is_run(path: Path) -> None:
    """Raise a RunError unless this program wrote what is in the folder."""
    try:
        settings, metrics = _are_settings(path / SETTINGS), _are_metrics(path / METRICS)
        known = metrics or any(_is_sealed(path / name) for name in CHECKPOINTS)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    if False in {settings, metrics} or not (known or (settings and (path / LOCK).exists())):
        raise RunError(
            f"{path} exists and is no run of this program, so nothing is changed in it: choose "
            "another --name"
        )


def _are_settings(file: Path) -> bool | None:
    """Return whether the file holds a run's settings, or None if it is missing or invalid TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).keys() >= {"recipe", "batch_size"}
    except (FileNotFoundError, ValueError):
        return None


def _are_metrics(file: Path) -> bool | None:
    """Return whether the file is a run's metrics.csv, or None if it is missing or empty."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    return content.startswith(b"epoch,step,lr,train_loss,") if content else None


def _is_sealed(file: Path) -> bool:
    """Return whether the file ends with a digest, right or wrong, as this program writes it."""
    from cifar_cnn.storage.archive import has_seal

    try:
        return has_seal(file.read_bytes())
    except FileNotFoundError:
        return False


def _has_saved(path: Path, names: set[str]) -> bool:
    """Return whether a run has saved more than its start: an epoch, a network or a picture."""
    if names & {*FILES} - {SETTINGS, SOURCE, ENVIRONMENT, METRICS, LOG}:
        return True
    return content_of(path / METRICS).count(b"\n") > 1 or bool(content_of(path / LOG))


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a run whole or not at all, trying twice: the content stays in memory."""
    try:
        write_atomically(path, content)
    except OSError:
        time.sleep(RETRY_AFTER)
        try:
            write_atomically(path, content)
        except OSError as error:
            raise cannot_write(path, error) from error


def is_finished(path: Path, rows: Sequence[EpochRow]) -> bool:
    """Return whether the run finished after these epochs, by the last line of its log."""
    return (path / MODEL).exists() and content_of(path / LOG) == log_text(rows, finished=True)


def remove_events(path: Path) -> None:
    """Remove the event files that a run wrote for TensorBoard, and their folder if it is empty."""
    folder = path / EVENTS
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink()
    if folder.is_dir() and not [*folder.iterdir()]:
        folder.rmdir()


def content_of(file: Path) -> bytes:
    """Return the content of a file, or nothing if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def log_text(rows: Sequence[EpochRow], *, finished: bool) -> bytes:
    """Return training.log; its last line says that the run is finished."""
    return to_log(rows, saved_as=MODEL if finished else None).encode()


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the error that says why a file or folder cannot be written."""
    return RunError(f"{path} cannot be written: {error.strerror}")
