"""SIGINT and SIGTERM as a request to stop after the step under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


class Interrupted(BaseException):
    """A signal came while there was nothing to save. Like KeyboardInterrupt, no error."""


@dataclass
class StopSignals:
    """The first signal, and whether the training will ask for it.

    Until it does, as in the decoding of images, the signal raises Interrupted.
    """

    received: list[int] = field(default_factory=list)
    training: bool = False

    @property
    def exit_status(self) -> int:
        """The exit code that shells use for a process ended by the signal."""
        return 128 + self.received[0]


@contextmanager
def stop_signals(*, launched: bool, also: tuple[signal.Signals, ...] = ()) -> Iterator[StopSignals]:
    """Handle the first signal as StopSignals says; a second one ends the process at once.

    Under a launcher later ones are ignored: it passes each on, and sends SIGKILL in the end.
    Signals in `also` are handled too, unless they are ignored, as by nohup.
    """
    signals = StopSignals()
    heeded = (each for each in also if signal.getsignal(each) != signal.SIG_IGN)
    handled = (signal.SIGINT, signal.SIGTERM, *heeded)

    def remember(number: int, _frame: FrameType | None) -> None:
        signals.received.append(number)
        for each in handled:
            signal.signal(each, signal.SIG_IGN if launched else signal.SIG_DFL)
        if not signals.training:
            raise Interrupted

    before = [signal.signal(each, remember) for each in handled]
    try:
        yield signals
    finally:
        for each, handler in zip(handled, before, strict=True):
            signal.signal(each, handler)
