"""A lock between processes, which ends with the process that holds it, however that ends."""

import errno
from pathlib import Path

from filelock import FileLock, Timeout

NOT_OFFERED = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system answers that knows no locks."""


class Lock:
    """A lock by a file.

    Args:
        path: of the file, made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, fallback_to_soft=False)

    def acquire(self, seconds: float) -> bool:
        """Take it, waiting so long for another process; say whether the file system knows locks.

        Raises:
            Timeout: another process holds it.
            OSError: the file cannot be written.
        """
        try:
            self._lock.acquire(timeout=seconds)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in NOT_OFFERED:
                raise
            return False
        return True

    def release(self) -> None:
        """Give it back, if it was taken."""
        self._lock.release()


def is_held(path: Path) -> bool:
    """Say whether a process holds the lock by this file."""
    lock = Lock(path)
    try:
        if not path.exists():
            return False
        lock.acquire(seconds=0)
    except Timeout:
        return True
    except OSError:  # in a folder that may only be read nothing is going on
        return False
    lock.release()
    return False
