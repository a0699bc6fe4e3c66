"""SIGINT and SIGTERM as a request to stop after the step under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect the first signal in the list this yields; a second one ends the process at once."""
    received: list[int] = []
    handled = (signal.SIGINT, signal.SIGTERM)

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in handled:
            signal.signal(each, signal.SIG_DFL)

    before = [signal.signal(each, remember) for each in handled]
    try:
        yield received
    finally:
        for each, handler in zip(handled, before, strict=True):
            signal.signal(each, handler)
