"""Files that are written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: a reader, or a crash, sees the old file or the new one.

    A sibling temporary is written and synced, renamed over `path`, and the folder synced. Only a
    process that is killed leaves its temporary; `remove_leftovers` takes it away.

    Raises:
        OSError: the write failed and the temporary is gone. `path` is as it was, or, where syncing
            the folder is what failed, whole and new.
    """
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


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of their writes; nobody else may be writing there."""
    for leftover in folder.glob(".*.part"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
