"""Standard streams: usable from the start, and JSON documents for machines."""

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from io import TextIOWrapper
from typing import Any, TextIO

from pydantic_core import to_jsonable_python

from cifar_cnn.errors import UserError, format_warning

_DOCUMENTS: ContextVar[TextIO | None] = ContextVar("documents", default=None)


def settle() -> None:
    """Cope with closed streams, a notebook's matplotlib backend, and a terminal of width 0."""
    _open_closed_streams()
    warnings.formatwarning = format_warning
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; a notebook's backend may not be here
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip() in {"0", "00"}:
            del os.environ[name]  # unknown, as some terminals say it


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
    if (
        isinstance(documents, TextIOWrapper) and documents is sys.__stdout__
    ):  # C code and other processes print there too, up to the end
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
