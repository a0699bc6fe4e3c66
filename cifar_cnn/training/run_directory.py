"""Who may write the folder of a run, and when; and how its files are written."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from filelock import Timeout

from cifar_cnn.errors import RunError
from cifar_cnn.settings import Settings
from cifar_cnn.storage.archive import is_whole
from cifar_cnn.storage.checkpoint import Checkpoint, pack
from cifar_cnn.storage.files import SOURCE, acquire, file_lock, leftovers
from cifar_cnn.storage.naming import LAST, LOCK, PREVIOUS, SETTINGS
from cifar_cnn.training.history import EpochRow, to_csv
from cifar_cnn.training.run_files import (
    FILES,
    LOG,
    METRICS,
    Replace,
    cannot_write,
    check_free,
    check_resumable,
    content_of,
    log_text,
    remove_events,
    write_file,
)

LOOKED_AT = 1.0
"""Seconds to wait for a lock: `cifar-cnn runs` takes it for an instant to see if a run goes on."""


class RunDirectory:
    """Writes a run's files, each whole or not at all, and keeps other processes from doing so.

    Use it as a context; the lock is the kernel's, so it ends with the process however that ends.
    Until `begin` nothing in the folder is changed, and leaving it before removes it again if it
    was not there. Only the process of a run that `writes` does anything.
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
        self._lock = file_lock(path / LOCK)
        if not writes:
            return
        self._begun = False
        self._made = [each for each in path.parents if not each.exists()]
        try:
            if numbered:
                self.path = path = _make_next(path)
                self._lock = file_lock(path / LOCK)
                self._made.insert(0, path)
            self._begun = (path / LOCK).exists()
            self._check()
            if not path.exists():
                self._made.insert(0, path)
            path.mkdir(parents=True, exist_ok=True)
            if not acquire(self._lock, LOOKED_AT):
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
            raise cannot_write(path, error) from error
        except BaseException:
            self._leave()
            raise

    def begin(self) -> None:
        """Remove what an earlier run left, if it is replaced, and what was left half written."""
        if not self._writes:
            return
        self._begun = True
        try:
            for each in leftovers(self.path, FILES):
                each.unlink(missing_ok=True)
            if self._replace:
                for name in FILES:
                    (self.path / name).unlink(missing_ok=True)
                remove_events(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._leave()

    def _check(self) -> None:
        if self._resume:
            check_resumable(self.path)
        else:
            check_free(self.path, replace=self._replace)

    def _leave(self) -> None:
        """Release the lock; if the run never began, remove the folders made for it."""
        with suppress(OSError):  # it matters less than what ended the run
            if not self._begun:
                (self.path / LOCK).unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):
            for folder in () if self._begun else self._made:
                folder.rmdir()

    def write_start(self, settings: Settings, source: bytes | None = None) -> None:
        """Write settings.toml, and a copy of the file of the user's own network."""
        contents = {SETTINGS: settings.to_toml().encode(), SOURCE: source}
        for name, content in contents.items():
            if content is not None:
                self._write(name, content)

    def save_last(self, checkpoint: Checkpoint) -> None:
        """Write last.pt; the one before it becomes previous.pt. At no instant is last.pt absent.

        A damaged last.pt does not take the place of a good previous.pt.
        """
        content = pack(checkpoint)
        before = content_of(self.path / LAST)
        if is_whole(before):
            self._write(PREVIOUS, before)
        self._write(LAST, content)

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Write best.pt or model.pt, and return its path."""
        self._write(name, pack(checkpoint))
        return self.path / name

    def write_history(self, rows: Sequence[EpochRow], *, finished: bool = False) -> None:
        """Write metrics.csv and training.log anew, so that they fit the checkpoint before them.

        When finished, the log is the run's last file.
        """
        self._write(METRICS, to_csv(rows).encode())
        self._write(LOG, log_text(rows, finished=finished))

    def _write(self, name: str, content: bytes) -> None:
        if self._writes:
            write_file(self.path / name, content)


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
