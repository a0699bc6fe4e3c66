"""Where in the network's own code something happens."""

import os
import sys
from pathlib import Path
from types import FrameType, TracebackType

import torch

TORCH = f"{Path(torch.__file__).parent}{os.sep}"
ANALYSIS = f"{Path(__file__).parent}{os.sep}"


def user_line() -> str:
    """Return file:line of the innermost code at work that is the network's own."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    left = False
    while frame is not None:
        file = frame.f_code.co_filename
        is_ours = file.startswith(ANALYSIS)
        if is_ours and left:  # back where the run was started
            break
        if not is_ours and not file.startswith(TORCH):
            return f"{Path(file).name}:{frame.f_lineno}"
        left = left or not is_ours
        frame = frame.f_back
    return "torch's own code"


def raised_at(traceback: TracebackType | None) -> str:
    """Return file:line of the deepest code in the traceback that is the network's own."""
    line = "torch's own code"
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith((TORCH, ANALYSIS)):
            line = f"{Path(file).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line
