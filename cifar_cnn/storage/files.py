"""Files that are written whole or not at all, and by one process at a time."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from cifar_cnn.errors import UserError

SOURCE = "network.py"
"""A run's copy of the file that defines the user's own network."""

NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of file systems that cannot sync a folder or have no locks."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: a reader, or a crash, sees the old file or the new one.

    A sibling temporary is written and synced, renamed over `path`, and the folder synced. Only a
    process that is killed leaves its temporary; `leftovers` finds it. If `path` is a symbolic link,
    all this happens where it points. After an OSError `path` is as it was, or whole and new.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first failure is the one to tell
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def check_folder(path: Path) -> None:
    """Raise an error before the work starts if the file cannot be written."""
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: nothing may be written in {path.parent}")


def write_result(path: Path, content: bytes) -> None:
    """Write a file that the user has named, whole or not at all."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def leftovers(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the temporary files that killed processes left when they wrote these files."""
    files = (file for name in names for file in folder.glob(f".{name}.*.part"))
    return [file for file in files if file.suffixes[-2][1:].isdigit()]


def file_lock(path: Path) -> BaseFileLock:
    """Return a lock between processes; it ends with the process that holds it."""
    return FileLock(path, fallback_to_soft=False)


def acquire(lock: BaseFileLock, seconds: float) -> bool:
    """Wait for a lock, or raise Timeout; return False if the file system has no locks."""
    try:
        lock.acquire(timeout=seconds)
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in {*NOT_OFFERED, errno.ENOLCK}:
            raise
        return False
    return True


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock by this file."""
    try:
        if not path.exists():
            return False
        with file_lock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a run writes into its folder, so none holds a read-only one
        return False


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)
