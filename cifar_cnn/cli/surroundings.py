"""What the program finds when it starts, where that would have it fail later."""

import os
import sys
import warnings
from typing import NoReturn

from cifar_cnn.errors import UserError, format_warning


def settle() -> None:
    """Take no harm from closed streams, a notebook's drawing backend, or a screen of no width."""
    _open_closed_streams()
    warnings.formatwarning = format_warning
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; a notebook's backend may not be here
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip() in {"0", "00"}:
            del os.environ[name]  # unknown, as some terminals say it
    _keep_the_end()


def _keep_the_end() -> None:
    """Have `os._exit` end the program as an error does: the network's code could fake an answer."""
    leave, program = os._exit, os.getpid()

    def end(status: int) -> NoReturn:
        if os.getpid() == program:
            raise SystemExit(status)
        leave(status)

    os._exit = end


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed; without an output, end the program."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr.write(
            "cifar-cnn: standard output is closed: there is nowhere to answer; "
            "to throw the answer away, say > /dev/null\n"
        )
        sys.exit(UserError.exit_status)
