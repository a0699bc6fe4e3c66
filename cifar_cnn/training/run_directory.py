"""The folder of a run: what is in it, and who may write it when. Names alone need no torch."""

import itertools
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from filelock import Timeout

from cifar_cnn.errors import RunError
from cifar_cnn.settings import Settings
from cifar_cnn.storage.files import leftovers, remove_leftovers, write_atomically
from cifar_cnn.storage.lock import Lock
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
PICTURE_OF = {
    "curves": CURVES,
    "comparison": "comparison.png",
    "confusion": "confusion.png",
    "classes": "classes.png",
    "reliability": "reliability.png",
    "mistakes": "mistakes.png",
    "batch": "batch.png",
    "filters": "filters.png",
    "field": "receptive-field.png",
}
PICTURES = tuple(PICTURE_OF.values())
CHECKPOINTS = (LAST, PREVIOUS, BEST, MODEL)
FILES = (SETTINGS, ENVIRONMENT, METRICS, LOG, *CHECKPOINTS, REPORT, *PICTURES)

EVENTS = "tensorboard"
"""A folder, of TensorBoard's event files."""

RETRY_AFTER = 1.0
"""Seconds between a failed write and the second try."""
LOOKED_AT = 1.0
"""Seconds to wait for a lock: `cifar-cnn runs` takes it for an instant to see if a run goes on."""

Replace = bool | Literal["unsaved"]
"""Which earlier run a new one may take the place of: any, none, or one that has saved nothing."""


def check_free(path: Path, *, replace: Replace = False) -> None:
    """Keep an earlier run from being overwritten, and whatever else is in a folder from harm.

    Raises:
        RunError: there is something at `path` that may not be replaced.
    """
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
    """Keep a resumed run from writing among files that are not of a run.

    Raises:
        RunError: there is something else than a run at `path`.
    """
    if _names(path):
        _check_is_run(path)


def _names(path: Path) -> set[str]:
    """Return what is in a folder, but for a lock and unfinished writes of a run; none if absent."""
    try:
        ours = {LOCK, *(each.name for each in leftovers(path, FILES))}
        return {each.name for each in path.iterdir()} - ours
    except FileNotFoundError:
        return set()
    except OSError as error:
        if path.is_file():
            raise RunError(f"{path} is a file, no folder: choose another --name") from error
        raise _cannot_write(path, error) from error


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
    """Say whether these are a run's settings; None where there are none that can be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).keys() >= {"recipe", "batch_size"}
    except (FileNotFoundError, ValueError):
        return None


def _are_metrics(file: Path) -> bool | None:
    """Say whether this is a run's table; None where there is none that can be read."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    return content.startswith(b"epoch,step,lr,train_loss,") if content else None


def _is_sealed(file: Path) -> bool:
    """Say whether the file ends with a digest, right or wrong, as this program writes it."""
    from cifar_cnn.storage.archive import has_seal

    try:
        return has_seal(file.read_bytes())
    except FileNotFoundError:
        return False


def _has_saved(path: Path, names: set[str]) -> bool:
    """Say whether a run has got further than its start: has an epoch, a network or a picture."""
    if names & {*FILES} - {SETTINGS, ENVIRONMENT, METRICS, LOG}:
        return True
    return _content(path / METRICS).count(b"\n") > 1 or bool(_content(path / LOG))


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
    kernel's, so it ends with the process however that ends. Until `begin` nothing in the folder is
    changed, and leaving it before takes it away again if it was not there.

    Args:
        path: of the folder, made if it is not there.
        replace: which earlier run in it may be replaced.
        resume: whether an earlier run in it goes on.
        numbered: whether the first name of `path`, `path-2`, `path-3` … that is free is taken.
        writes: whether this process is the one of the run that writes; another's does nothing.

    Raises:
        RunError: the folder cannot be written, is another's, or another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        *,
        replace: Replace = False,
        resume: bool = False,
        numbered: bool = False,
        writes: bool = True,
    ) -> None:
        self.path = path
        self.notes: tuple[str, ...] = ()
        self._writes = writes
        self._replace, self._resume = replace, resume
        self._lock = Lock(path / LOCK)
        if not writes:
            return
        self._begun = False
        self._made = [each for each in path.parents if not each.exists()]
        try:
            if numbered:
                self.path = path = _make_next(path)
                self._lock = Lock(path / LOCK)
                self._made.insert(0, path)
            self._begun = (path / LOCK).exists()
            self._check()
            if not path.exists():
                self._made.insert(0, path)
            path.mkdir(parents=True, exist_ok=True)
            if not self._lock.acquire(LOOKED_AT):
                self.notes = (
                    f"{path} is on a file system without locks: start no second run of this name",
                )
            self._check()
        except Timeout as error:
            raise RunError(
                f"run directory {path} is in use by another process: wait for its end, or choose "
                "another --name"
            ) from error
        except OSError as error:
            self._leave()
            raise _cannot_write(path, error) from error
        except BaseException:
            self._leave()
            raise

    def begin(self) -> None:
        """Take away what an earlier run left, if it is replaced, and what was left half written.

        Raises:
            RunError: that cannot be taken away.
        """
        if not self._writes:
            return
        self._begun = True
        try:
            remove_leftovers(self.path, FILES)
            if self._replace:
                for name in FILES:
                    (self.path / name).unlink(missing_ok=True)
                remove_events(self.path)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writes:
            self._leave()

    def _check(self) -> None:
        if self._resume:
            check_resumable(self.path)
        else:
            check_free(self.path, replace=self._replace)

    def _leave(self) -> None:
        """Release the lock; take away what was made for nothing."""
        with suppress(OSError):  # it matters less than what ended the run
            if not self._begun:
                self._lock.path.unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):
            for folder in () if self._begun else self._made:
                folder.rmdir()

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
        before = _content(self.path / LAST)
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


def is_finished(path: Path, rows: Sequence[EpochRow]) -> bool:
    """Say whether the run directory was completed after these epochs: its log says so, last."""
    return (path / MODEL).exists() and _content(path / LOG) == _log(rows, finished=True)


def remove_events(path: Path) -> None:
    """Take away the event files that a run wrote for TensorBoard, and their folder if it is empty.

    Raises:
        OSError: they cannot be taken away.
    """
    folder = path / EVENTS
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink()
    if folder.is_dir() and not [*folder.iterdir()]:
        folder.rmdir()


def _make_next(path: Path) -> Path:
    """Make a folder that was not there: `path`, or with a number after its name."""
    numbers = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], numbers) if _is_made(each))


def _is_made(path: Path) -> bool:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _content(file: Path) -> bytes:
    """Return what is in a file; nothing if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _log(rows: Sequence[EpochRow], *, finished: bool) -> bytes:
    return to_log(rows, saved_as=MODEL if finished else None).encode()


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written: {error.strerror}")
