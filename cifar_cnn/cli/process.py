"""The program's process: standard streams, JSON documents, and signals that stop it."""

import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from io import TextIOWrapper
from types import FrameType
from typing import Any, TextIO

from pydantic_core import to_jsonable_python

from cifar_cnn.errors import UserError, format_warning
from cifar_cnn.training import is_launched

_DOCUMENTS: ContextVar[TextIO | None] = ContextVar("documents", default=None)


def settle() -> None:
    """Cope with closed streams, a notebook's matplotlib backend, and a terminal of width 0."""
    _open_closed_streams()
    warnings.formatwarning = format_warning
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; a notebook's backend may not be here
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip() in {"0", "00"}:
            del os.environ[name]  # some terminals mean by it that they do not know
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a bar or a tick must not end the program
            stream.reconfigure(encoding="utf-8" if os.name == "nt" else None, errors="replace")


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed; without an output, end the program."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr.write(
            "cifar-cnn: standard output is closed: there is nowhere to answer; "
            "to throw the answer away, say > /dev/null\n"
        )
        sys.exit(UserError.exit_status)


def print_json(document: Any) -> None:
    """Print results as JSON: NaN is null, and file names that are not valid UTF-8 are escaped."""
    stream = _DOCUMENTS.get() or sys.stdout
    plain = json.dumps(to_jsonable_python(document))
    values = json.loads(plain, parse_constant=lambda _: None)  # of NaN and infinity
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    stream.write(re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text) + "\n")
    stream.flush()


@contextmanager
def documents_only() -> Iterator[None]:
    """Keep standard output for `print_json`: what else is printed goes to standard error."""
    documents: TextIO = sys.stdout
    if isinstance(documents, TextIOWrapper) and documents is sys.__stdout__:
        # C code and other processes print there too, up to the end
        encoding, errors = documents.encoding, documents.errors
        documents = os.fdopen(os.dup(1), "w", encoding=encoding, errors=errors)
        os.dup2(2, 1)
    token = _DOCUMENTS.set(documents)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _DOCUMENTS.reset(token)


def takes_output() -> bool:
    """Return whether standard output still accepts writes.

    Writes an empty line: after a failed write the buffer may be empty, and a flush succeeds.
    """
    stream = _DOCUMENTS.get() or sys.stdout
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return False
    return True


def drop_output() -> None:
    """Discard buffered output: the disk is full, or nobody reads the pipe."""
    stream = _DOCUMENTS.get() or sys.stdout
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class StoppedError(UserError):
    """A signal came while there was nothing to save."""


class _Interrupted(BaseException):
    """Like KeyboardInterrupt, no error: nothing but `stop_signals` catches it."""


@dataclass
class StopSignals:
    """The number of the first signal, 0 before it, and whether the training looks for it."""

    number: int = 0
    is_training: bool = False

    @property
    def exit_status(self) -> int:
        """The exit code that shells use for a process ended by the signal."""
        return 128 + self.number


@contextmanager
def stop_signals(message: str, *also: signal.Signals) -> Iterator[StopSignals]:
    """Record the first signal; unless the training looks for it, raise a StoppedError.

    A second signal ends the process at once. Under a launcher later ones are ignored: it passes
    each on, and sends SIGKILL in the end. Signals in `also` are handled too, unless they are
    ignored, as by nohup.
    """
    signals = StopSignals()
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [each for each in also if signal.getsignal(each) != signal.SIG_IGN]

    def remember(number: int, _frame: FrameType | None) -> None:
        signals.number = number
        for each in numbers:
            signal.signal(each, signal.SIG_IGN if is_launched() else signal.SIG_DFL)
        if not signals.is_training:
            raise _Interrupted

    before = [signal.signal(each, remember) for each in numbers]
    try:
        yield signals
    except _Interrupted:
        stopped = StoppedError(message)
        stopped.exit_status = signals.exit_status
        raise stopped from None
    finally:
        for each, handler in zip(numbers, before, strict=True):
            signal.signal(each, handler)
