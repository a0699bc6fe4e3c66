"""Where in the network's own code something happens."""

import os
import sys
from pathlib import Path
from types import FrameType, TracebackType

import torch
import torchinfo

NOT_THE_NETWORKS = tuple(
    f"{Path(file).parent}{os.sep}" for file in (torch.__file__, torchinfo.__file__, __file__)
)
STARTS = {"run_network", "prove"}
"""Functions of the analysis that run a network: what lies above them is the caller's code."""


def user_line() -> str:
    """Return file:line of the innermost code at work that is the network's own."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and frame.f_code.co_name not in STARTS:
        if not frame.f_code.co_filename.startswith(NOT_THE_NETWORKS):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch's own code"


def raised_at(traceback: TracebackType | None) -> str:
    """Return file:line of the deepest code in the traceback that is the network's own."""
    line = "torch's own code"
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(NOT_THE_NETWORKS):
            line = f"{Path(file).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def is_ours(traceback: TracebackType | None) -> bool:
    """Return whether an error is the analysis's own: raised while it noted an operation."""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_name == "note" and code.co_filename.startswith(NOT_THE_NETWORKS[-1]):
            return True
        traceback = traceback.tb_next
    return False
