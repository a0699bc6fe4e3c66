"""The folder of a run: what is in it, and who may write it when. Names alone need no torch."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from cifar_cnn.errors import RunError
from cifar_cnn.settings import Settings
from cifar_cnn.storage.files import remove_leftovers, write_atomically
from cifar_cnn.training.history import EpochRow, to_csv, to_log

if TYPE_CHECKING:
    from cifar_cnn.storage.checkpoint import Checkpoint

SETTINGS = "settings.toml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
LOG = "training.log"
CURVES = "curves.png"
LAST = "last.pt"
PREVIOUS = "previous.pt"
BEST = "best.pt"
MODEL = "model.pt"
REPORT = "report.html"
LOCK = ".lock"
PICTURES = (
    CURVES,
    "comparison.png",
    "confusion.png",
    "classes.png",
    "reliability.png",
    "mistakes.png",
    "batch.png",
    "filters.png",
    "receptive-field.png",
)
FILES = (SETTINGS, ENVIRONMENT, METRICS, LOG, LAST, PREVIOUS, BEST, MODEL, REPORT, *PICTURES)

RETRY_AFTER = 1.0
"""Seconds between a failed write and the second try."""
LOOKED_AT = 1.0
"""Seconds to wait for a lock: `cifar-cnn runs` takes it for an instant to see if a run goes on."""


def refuse_existing(path: Path) -> None:
    """Keep an earlier run from being overwritten.

    Raises:
        RunError: there is something at `path`.
    """
    if path.exists():
        raise RunError(
            f"run directory {path} exists: choose another --name, or --resume auto to go on with "
            "it, or --exist-ok to start it again"
        )


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a run whole or not at all, trying twice: the content stays in memory.

    Raises:
        RunError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError:
        time.sleep(RETRY_AFTER)
        try:
            write_atomically(path, content)
        except OSError as error:
            raise _cannot_write(path, error) from error


class RunDirectory:
    """Writes a run's files, each whole or not at all, and keeps other processes from doing so.

    The table and the log are written anew from the whole history each time, so they cannot
    disagree with the checkpoint they were written after. Use it as a context; the lock is the
    kernel's, so it ends with the process however that ends.

    Args:
        path: of the folder, made if it is not there.
        replace: whether the files of an earlier run in it go.
        writes: whether this process is the one of the run that writes; another's does nothing.

    Raises:
        RunError: the folder cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, *, replace: bool, writes: bool = True) -> None:
        self.path = path
        self._writes = writes
        self._lock = FileLock(path / LOCK, timeout=LOOKED_AT)
        if not writes:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            remove_leftovers(path)
            for name in FILES if replace else ():
                (path / name).unlink(missing_ok=True)
        except Timeout as error:
            raise RunError(
                f"run directory {path} is in use by another process: wait for its end, or choose "
                "another --name"
            ) from error
        except OSError as error:
            self._lock.release()
            raise _cannot_write(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def write_settings(self, settings: Settings) -> None:
        """Write settings.toml, which `--config` accepts."""
        self._write(SETTINGS, settings.to_toml().encode())

    def save_last(self, checkpoint: "Checkpoint") -> None:
        """Write last.pt; the one before it becomes previous.pt. At no instant is last.pt absent.

        A damaged last.pt does not take the place of a good previous.pt.
        """
        from cifar_cnn.storage.archive import is_whole
        from cifar_cnn.storage.checkpoint import pack

        content = pack(checkpoint)
        before = self._read_last()
        if is_whole(before):
            self._write(PREVIOUS, before)
        self._write(LAST, content)

    def save(self, name: str, checkpoint: "Checkpoint") -> Path:
        """Write best.pt or model.pt, and return its path."""
        from cifar_cnn.storage.checkpoint import pack

        self._write(name, pack(checkpoint))
        return self.path / name

    def write_history(self, rows: Sequence[EpochRow], *, finished: bool = False) -> None:
        """Write metrics.csv and training.log; when finished, the log is the run's last file."""
        self._write(METRICS, to_csv(rows).encode())
        self._write(LOG, _log(rows, finished=finished))

    def _write(self, name: str, content: bytes) -> None:
        if self._writes:
            write_file(self.path / name, content)

    def _read_last(self) -> bytes:
        try:
            return (self.path / LAST).read_bytes()
        except OSError:
            return b""


def is_finished(path: Path, rows: Sequence[EpochRow]) -> bool:
    """Say whether the run directory was completed after these epochs: its log says so, last."""
    try:
        return (path / LOG).read_bytes() == _log(rows, finished=True)
    except OSError:
        return False


def _log(rows: Sequence[EpochRow], *, finished: bool) -> bytes:
    return to_log(rows, saved_as=MODEL if finished else None).encode()


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written: {error.strerror}")
