"""What commands print for machines."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from io import TextIOWrapper
from typing import Any, TextIO

from pydantic_core import to_jsonable_python

_DOCUMENTS: ContextVar[TextIO | None] = ContextVar("documents", default=None)


def print_json(document: Any) -> None:
    """Write a result, or others, to standard output as JSON; of names that are no text, escapes."""
    stream = _DOCUMENTS.get() or sys.stdout
    text = json.dumps(to_jsonable_python(document), indent=2, ensure_ascii=False, allow_nan=False)
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
    """Say whether standard output takes an empty line, which one that is full or closed does not.

    What failed before may be gone from its buffer, so that a flush alone does not show it.
    """
    stream = _DOCUMENTS.get() or sys.stdout
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return False
    return True


def drop_output() -> None:
    """Throw away what standard output has not taken: it is full, or nobody reads it."""
    stream = _DOCUMENTS.get() or sys.stdout
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
