"""What a person sees while image files are decoded: a bar, or one line."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, TaskID

from cifar_cnn.errors import counted
from cifar_cnn.report.console import progress_bar

MANY = 100
PATIENCE = 1.0
"""Seconds after which fewer images than MANY are worth a word, too."""


class DecodingProgress:
    """Shows how decoding goes: a bar with the time left on a terminal, one plain line elsewhere.

    Leaving its context takes the bar off the screen, also where decoding ends by an error.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.begun, self.shown = 0.0, False

    def __call__(self, folder: Path, done: int, total: int) -> None:
        """Show that so many of the images in a folder are decoded."""
        if done == 0:
            self.begun, self.shown = time.monotonic(), False
        long = total >= MANY or time.monotonic() - self.begun > PATIENCE
        if long and not self.shown:
            self._show(folder, total)
        if self.bar:
            self.bar.update(self.task, completed=done)
        if done == total:
            self.close()

    def _show(self, folder: Path, total: int) -> None:
        self.shown = True
        if not self.console.is_terminal:
            line = f"decoding {counted(total, 'image')} in {folder}"
            self.console.print(line, soft_wrap=True, markup=False)
            return
        self.bar = progress_bar(self.console, "decoding")
        self.bar.start()
        self.task = self.bar.add_task("", total=total)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
