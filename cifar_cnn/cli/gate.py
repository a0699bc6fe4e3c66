"""Commands whose exit status builds and graders rest on: the network's code cannot give it."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from cifar_cnn.errors import ModelError, UserError

PIPE_BYTES = 1 << 20
"""More than a pipe holds."""
GATES = {"summarize", "summary", "receptive-field"}


def is_gate(words: list[str]) -> bool:
    """Whether the command line asks for a verdict, on a system whose processes can fork."""
    command = next((word for word in words if not word.startswith("-")), "")
    return command in GATES and hasattr(os, "fork")


def run_gate(program: Callable[[], None], fail: Callable[[UserError], int]) -> None:
    """Run the program in a process of its own, and exit with the status that it says at its end.

    However else that process ends, as by `posix._exit`, `execv` or C's `exit` in the network's
    code, there has been no answer; and what that code writes to every file that is open is none.

    Args:
        program: the command, which ends in SystemExit.
        fail: says the error in the program's way and returns its exit status.
    """
    ours, theirs = os.pipe()
    for end in (ours, theirs):  # one may be full, or still held by what the code left behind
        os.set_blocking(end, False)
    password = os.urandom(16)
    child = os.fork()
    if child == 0:
        os.close(ours)
        _answer(program, theirs, password)
    os.close(theirs)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    passed_on = (signal.SIGTERM, signal.SIGHUP)
    for number in passed_on:
        signal.signal(number, lambda received, _: os.kill(child, received))
    _, ended = os.waitpid(child, 0)
    said = b""
    with contextlib.suppress(BlockingIOError):
        said = os.read(ours, PIPE_BYTES)
    _, found, status = said.rpartition(password)
    if found and status:
        sys.exit(status[0])
    how = ""
    if os.WIFSIGNALED(ended):
        by = os.WTERMSIG(ended)
        if by in {*passed_on, signal.SIGINT}:
            signal.signal(by, signal.SIG_DFL)
            os.kill(os.getpid(), by)
        how = f" (signal {by}, {signal.strsignal(by)})"
    sys.exit(fail(ModelError(f"the network's own code ended the program before an answer{how}")))


def _answer(program: Callable[[], None], pipe: int, password: bytes) -> None:
    status = 1
    try:
        program()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
        raise
    finally:
        os.write(pipe, password + bytes([status]))
