"""Turn exceptions from other people's code into one-line errors."""

import inspect
import os
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar_cnn.errors import RunError, UserError, one_line

_PYTHON, *_PACKAGES = (
    f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib", "platlib")
)
_PLACE = re.compile(r'File "(.+?)", line (\d+)')
_NOT_THEIRS = (
    "<",  # Python's own frozen modules
    f"{Path(torch.__file__).parent}{os.sep}",
    f"{Path(__file__).parents[1]}{os.sep}",
)


@contextmanager
def guarded(
    what: str,
    kind: type[UserError] = RunError,
    model: nn.Module | None = None,
    warned: Sequence[warnings.WarningMessage] = (),
) -> Iterator[None]:
    """Turn an exception from other people's code into one line: what failed, why, and where.

    A UserError passes through. If the traceback has no line of theirs, the line is the one that
    autograd's anomaly mode names in the warnings, else that of the `forward` of `model`.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        text, name = one_line(error), type(error).__name__
        reason = text if text == name else f"{name}: {text}"
        forward: Any = getattr(type(model), "forward", None)  # a scripted network's has no code
        code = getattr(inspect.unwrap(forward), "__code__", None)
        where = (
            place_of(traceback.extract_tb(error.__traceback__))
            or _innermost(place for each in warned for place in _PLACE.findall(str(each.message)))
            or _innermost([(code.co_filename, code.co_firstlineno)] if code else [])
        )
        raise kind(f"{what}: {reason}{where}") from error


def place_of(frames: Iterable[traceback.FrameSummary]) -> str:
    """Return file:line of their innermost frame, in brackets after a space."""
    return _innermost((frame.filename, frame.lineno) for frame in frames)


def _innermost(places: Iterable[tuple[str, object]]) -> str:
    """Return the last place in the user's files, else in an installed package; "" if none."""
    in_package = theirs = ""
    for file, line in places:
        place = f" ({Path(file).name}:{line})"
        if file.startswith((*_PACKAGES,)) and not file.startswith(_NOT_THEIRS):
            in_package = place
        elif not file.startswith((_PYTHON, *_NOT_THEIRS)):
            theirs = place
    return theirs or in_package
