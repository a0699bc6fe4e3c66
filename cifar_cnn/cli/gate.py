"""Commands whose exit status builds and graders rest on: the network's code cannot give it."""

import os
import signal
import sys
from collections.abc import Callable

from cifar_cnn.errors import RequestError

GATES = {"summarize", "summary", "receptive-field"}


def is_gate(words: list[str]) -> bool:
    """Whether the command line asks for a verdict, on a system whose processes can fork."""
    command = next((word for word in words if not word.startswith("-")), "")
    return command in GATES and hasattr(os, "fork")


def run_gate(program: Callable[[], None], fail: Callable[[RequestError], int]) -> None:
    """Run the program in a process of its own, and exit with the status that it says at its end.

    However else that process ends, as by `posix._exit`, `execv` or C's `exit` in the network's
    code, there has been no answer.

    Args:
        program: the command, which ends in SystemExit.
        fail: says the error in the program's way and returns its exit status.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _answer(program, theirs)
    os.close(theirs)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    _, ended = os.waitpid(child, 0)
    os.set_blocking(ours, False)  # what the network's code started may still hold the other end
    try:
        answer = os.read(ours, 1)
    except BlockingIOError:
        answer = b""
    if answer:
        sys.exit(answer[0])
    if os.WIFSIGNALED(ended):
        signal.signal(os.WTERMSIG(ended), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(ended))
    sys.exit(fail(RequestError("the network's own code ended the program before an answer")))


def _answer(program: Callable[[], None], pipe: int) -> None:
    status = 1
    try:
        program()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
        raise
    finally:
        os.write(pipe, bytes([status]))
