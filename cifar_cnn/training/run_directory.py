"""Keep other processes from the directory of a run, and write its files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from cifar_cnn.errors import RunError
from cifar_cnn.storage.archive import is_whole
from cifar_cnn.storage.files import acquire, file_lock, leftovers
from cifar_cnn.storage.naming import LAST, LOCK, PREVIOUS
from cifar_cnn.training.history import EpochRow, to_csv, to_log
from cifar_cnn.training.run_files import (
    FILES,
    LOG,
    METRICS,
    Replace,
    check_directory,
    content_of,
    explaining_errors,
    remove_events,
    write_file,
)

WITHOUT_LOCKS = "is on a file system without locks: start no second run of this name"
LOCK_TIMEOUT = 1.0
"""Seconds to wait for a lock: `cifar-cnn runs` takes it for an instant to see if a run goes on."""


class RunDirectory:
    """Writes the files of a run, each whole or not at all; only in the process that `writes`."""

    def __init__(self, path: Path, *, writes: bool = True, replaces: bool = False) -> None:
        self.path = path
        self.writes = writes
        self.replaces = replaces
        self.has_begun = False
        self.notes: list[str] = []

    def begin(self, rows: Sequence[EpochRow], files: dict[str, bytes]) -> None:
        """Remove what a replaced run or a killed process left; write what a run starts with."""
        if not self.writes:
            return
        self.has_begun = True
        with explaining_errors(self.path):
            for each in leftovers(self.path, FILES):
                each.unlink(missing_ok=True)
            if self.replaces:
                for name in FILES:
                    (self.path / name).unlink(missing_ok=True)
                remove_events(self.path)
        self.write_history(rows)
        for name, content in files.items():
            self.write(name, content)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file and return its path."""
        if self.writes:
            write_file(self.path / name, content)
        return self.path / name

    def write_last(self, content: bytes) -> None:
        """Write last.pt; the one before it becomes previous.pt. At no instant is last.pt absent.

        A damaged last.pt does not take the place of a good previous.pt.
        """
        before = content_of(self.path / LAST)
        if is_whole(before):
            self.write(PREVIOUS, before)
        self.write(LAST, content)

    def write_history(self, rows: Sequence[EpochRow], *, finished: bool = False) -> None:
        """Write metrics.csv and training.log anew, so that they fit the checkpoint before them.

        When finished, the log is the run's last file.
        """
        self.write(METRICS, to_csv(rows).encode())
        self.write(LOG, to_log(rows, finished=finished).encode())


@contextmanager
def open_run_directory(
    path: Path,
    *,
    writes: bool = True,
    replace: Replace = False,
    resume: bool = False,
    numbered: bool = False,
) -> Iterator[RunDirectory]:
    """Keep other processes from a run's directory, and check it.

    The lock is the kernel's, so it ends with the process however that ends. Until the run begins,
    nothing in the folder changes but the lock, and a new folder is removed again. A folder that is
    no run is refused before the lock is made in it.
    """
    if not writes:
        yield RunDirectory(path, writes=False)
        return
    if not numbered:
        check_directory(path, replace=replace or resume)
    new_folders = [each for each in path.parents if not each.exists()]
    with explaining_errors(path):
        if numbered:
            path = _make_next(path)
        if numbered or not path.exists():
            new_folders.insert(0, path)
        path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path, replaces=bool(replace) and not resume)
    lock, was_locked = file_lock(path / LOCK), (path / LOCK).exists()
    try:
        with explaining_errors(path):
            try:
                if not acquire(lock, LOCK_TIMEOUT):
                    directory.notes.append(f"{path} {WITHOUT_LOCKS}")
            except Timeout as error:
                was_locked = True
                raise RunError(
                    f"run directory {path} is in use by another process: wait for its end, or "
                    "choose another --name"
                ) from error
        check_directory(path, replace=replace or resume)  # another process may have written it
        yield directory
    finally:
        with suppress(OSError):  # it matters less than what ended the run
            if not (directory.has_begun or was_locked):
                (path / LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            for folder in () if directory.has_begun else new_folders:
                folder.rmdir()


def _make_next(path: Path) -> Path:
    """Make a folder that was not there: `path`, or with a number after its name."""
    number, candidate = 1, path
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
        else:
            return candidate
