"""What a person sees while image files are decoded, or an archive downloaded: a bar or a line."""

import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TaskID

from cifar_cnn.errors import counted
from cifar_cnn.report.console import file_size, progress_bar, say

MANY = 100
PATIENCE = 1.0
"""Seconds after which fewer images than MANY are worth a word, too."""


class LoadingProgress:
    """Shows how loading goes: a bar with the time left on a terminal, one plain line elsewhere.

    Leaving its context takes the bar off the screen, also where loading ends by an error.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.begun, self.shown = 0.0, False

    def __call__(self, what: str, where: Path, done: int, total: int) -> None:
        """Show that so many images in a folder are decoded, or bytes of a file downloaded."""
        if done == 0:
            self.begun, self.shown = time.monotonic(), False
        long = total >= MANY or time.monotonic() - self.begun > PATIENCE
        if long and not self.shown:
            self._show(what, where, total)
        if self.bar:
            self.bar.update(self.task, completed=done)
        if done == total:
            self.close()

    def _show(self, what: str, where: Path, total: int) -> None:
        self.shown, downloads = True, what == "downloading"
        if not self.console.is_interactive or downloads:
            of = f"{file_size(total)} to" if downloads else f"{counted(total, 'image')} in"
            say(self.console, f"{what} {of} {where}")
        if self.console.is_interactive:
            amount = DownloadColumn() if downloads else None
            self.bar = progress_bar(self.console, "loading" if downloads else what, amount=amount)
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

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
