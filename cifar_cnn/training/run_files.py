"""The names of a run's files, and checks of a run directory. Needs no torch."""

import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from cifar_cnn.errors import RequestError, RunError
from cifar_cnn.storage.files import SOURCE, check_folder, leftovers, write_atomically
from cifar_cnn.storage.naming import CHECKPOINTS, LOCK, MODEL, SETTINGS
from cifar_cnn.training.history import COLUMNS, EpochRow, to_log

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
FILES = (SETTINGS, SOURCE, ENVIRONMENT, LOG, *CHECKPOINTS, REPORT, *PICTURES, METRICS)
"""In the order in which they are removed: the last one shows until then that this is a run."""

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


def check_directory(path: Path, *, replace: Replace = False) -> None:
    """Raise a RunError if the folder holds an earlier run, or files that are not of a run."""
    try:
        names = {each.name for each in path.iterdir()}
        names -= {LOCK, *(each.name for each in leftovers(path, FILES))}
        is_ours = not names or _is_run(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if isinstance(error, NotADirectoryError) and path.is_file():
            raise RunError(f"{path} is a file, no folder: choose another --name") from error
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    if not is_ours:
        raise RunError(
            f"{path} exists and is no run of this program, so nothing is changed in it: choose "
            "another --name"
        )
    if not names or replace is True or (replace == "unsaved" and not _has_saved(path, names)):
        return
    if replace == "unsaved":
        raise RunError(
            f"run directory {path} exists and has no checkpoint to go on from: choose another "
            "--name, or --exist-ok to start it again"
        )
    raise RunError(
        f"run directory {path} exists: choose another --name, or --resume auto to go on with it, "
        "or --exist-ok to start it again"
    )


def _is_run(path: Path) -> bool:
    """Return whether this program wrote the metrics, or a checkpoint, and the settings if any.

    A run of an older version that was killed as it began has settings and a lock.
    """
    from cifar_cnn.storage.archive import has_seal

    def read(name: str) -> bytes:
        with suppress(FileNotFoundError):
            return (path / name).read_bytes()
        return b""

    metrics, settings, has_settings = read(METRICS), read(SETTINGS), False
    if metrics and not metrics.startswith(",".join(COLUMNS[:4]).encode()):
        return False
    with suppress(ValueError):
        has_settings = tomllib.loads(settings.decode()).keys() >= {"recipe", "batch_size"}
        if settings and not has_settings:
            return False
    has_begun = bool(metrics) or (has_settings and (path / LOCK).exists())
    return has_begun or any(has_seal(read(name)) for name in CHECKPOINTS)


def _has_saved(path: Path, names: set[str]) -> bool:
    """Return whether a run has saved more than its start: an epoch, a network or a picture."""
    if names & {*FILES} - {SETTINGS, SOURCE, ENVIRONMENT, METRICS, LOG}:
        return True
    return content_of(path / METRICS).count(b"\n") > 1 or bool(content_of(path / LOG))


def is_finished(path: Path, rows: Sequence[EpochRow] = ()) -> bool:
    """Return whether the run has finished, and its log ends with these epochs.

    The last line of the log is written last.
    """
    end = to_log(rows, finished=True).encode()
    return content_of(path / LOG).endswith(end) and (path / MODEL).exists()


def content_of(file: Path) -> bytes:
    """Return the content of a file, or nothing if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a run whole or not at all, trying twice: the content stays in memory."""
    try:
        write_atomically(path, content)
    except OSError:
        time.sleep(RETRY_AFTER)
        with explaining_errors(path):
            write_atomically(path, content)


def remove_events(path: Path) -> None:
    """Remove the event files that a run wrote for TensorBoard, and their folder if it is empty."""
    folder = path / EVENTS
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink()
    if folder.is_dir() and not [*folder.iterdir()]:
        folder.rmdir()


@contextmanager
def explaining_errors(path: Path) -> Iterator[None]:
    """Turn the system's error about a file or folder into one line."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
