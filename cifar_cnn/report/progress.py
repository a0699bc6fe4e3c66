"""What a person sees while work goes on: live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from cifar_cnn.errors import counted
from cifar_cnn.report.console import file_size, say, warn
from cifar_cnn.training.events import EpochEnded, Event, RunEnded, RunStarted, StepEnded
from cifar_cnn.training.history import EpochRow

MANY, PATIENCE = 100, 1.0
"""Fewer images than MANY are shown only after these seconds."""
LIVE_WIDTH = 39
"""Columns of the live part: where a window becomes narrower, no line that is to go is broken."""


class Display:
    """Shows how counted work goes; called as a `Progress`.

    Leaving its context takes the live part off the screen, also where the work ends by an error.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None
        self._doing, self._done, self._total = "", 0, 0
        self._begun, self._first, self._is_shown = 0.0, 0, False

    def __call__(self, doing: str, where: Path | None, done: int, total: int) -> None:
        """Show that `done` of `total` images in a folder, bytes of a file, steps … are done."""
        if done == 0 or doing != self._doing:
            self._begun, self._first, self._is_shown = time.perf_counter(), done, False
        self._doing, self._done, self._total = doing, done, total
        is_long = total >= MANY or time.perf_counter() - self._begun > PATIENCE
        if not self._is_shown and (where is None or is_long):
            self._is_shown = True
            self._announce(where)
            self._go_live()
        if done == total:
            self.close()

    def close(self) -> None:
        """Take the live part off the screen."""
        if self.live:
            self.live.stop()
            self.live = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _announce(self, where: Path | None) -> None:
        if where and self._doing == "downloading":
            say(self.console, f"downloading {file_size(self._total)} to {where}")
        elif where and not self.console.is_interactive:
            say(self.console, f"{self._doing} {counted(self._total, 'image')} in {where}")

    def _go_live(self) -> None:
        if self.console.is_interactive and not self.console.quiet and not self.live:
            self.live = Live(
                get_renderable=self._render,
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self.live.start()

    def _render(self) -> RenderableType:
        width = min(LIVE_WIDTH, self.console.width)
        texts = [Text(line) for line in self._lines()]
        for text in texts:
            text.truncate(width, overflow="ellipsis")
        bar = ProgressBar(total=self._total, completed=self._done, width=width)
        return Group(*texts, bar)  # the bar does not end its line

    def _lines(self) -> list[str]:
        amount = f"{self._doing} {self._done:,} of {self._total:,}"
        if self._doing == "downloading":
            amount = f"loading {self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB"
        return [f"{amount}, {self._left()} left" if self._done else amount]

    def _left(self) -> timedelta:
        """Return the time that the rest takes at the speed so far."""
        elapsed = time.perf_counter() - self._begun
        left = elapsed / max(self._done - self._first, 1) * (self._total - self._done)
        return timedelta(seconds=round(left))


@dataclass(frozen=True)
class Column:
    """A column of the epoch table: heading, width, and how a row fills it."""

    heading: str
    width: int
    form: str

    def cell(self, row: EpochRow) -> str:
        """Return the row's value, right-aligned."""
        return self.form.format(row=row).rstrip("%").rjust(self.width)


NARROW = (
    Column("epoch", 5, "{row.epoch}"),
    Column("train %", 8, "{row.train_accuracy:.2%}"),
    Column("{split} loss", 10, "{row.eval_loss:.4f}"),
    Column("{split} %", 8, "{row.eval_accuracy:.2%}"),
)
WIDE = (
    Column("epoch", 5, "{row.epoch}"),
    Column("train loss", 11, "{row.train_loss:.4f}"),
    Column("train %", 9, "{row.train_accuracy:.2%}"),
    Column("{split} loss", 11, "{row.eval_loss:.4f}"),
    Column("{split} %", 9, "{row.eval_accuracy:.2%}"),
    Column("lr", 10, "{row.lr:.3g}"),
    Column("images/s", 9, "{row.images_per_second:.0f}"),
    Column("seconds", 8, "{row.seconds:.1f}"),
)
WIDE_FROM = 76
"""Columns of a console that the wide table needs."""


class RunDisplay(Display):
    """Shows a run too: a growing table on a terminal, one plain line an epoch elsewhere."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._columns: Sequence[Column] = ()
        self._run: RunStarted | None = None
        self._step: StepEnded | None = None
        self._best: EpochRow | None = None

    def listen(self, event: Event) -> None:
        """Show an event of a run."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, StepEnded):
            self._step = event
        elif isinstance(event, EpochEnded):
            self._show_row(event.history[-1])
            self._show_notes(event.notes)
        elif isinstance(event, RunEnded):
            self.close()

    def _start(self, event: RunStarted) -> None:
        settings = event.settings
        self._show_notes(event.notes)
        say(
            self.console,
            f"{settings.model}, {settings.recipe} on {settings.dataset}, "
            f"{counted(settings.epochs, 'epoch')} of {counted(event.steps_per_epoch, 'step')}, "
            f"{event.device} {settings.precision} -> {event.directory}",
            wrap=True,
        )
        if event.step:
            self.console.print(_where_it_goes_on(event))
        self._run = event
        self._total, self._first = settings.epochs * event.steps_per_epoch, event.step
        self._begun = time.perf_counter()
        self._go_live()
        if self.live:
            self._show_headings(event)
        for row in event.history:
            self._show_row(row)

    def _show_notes(self, notes: Sequence[str]) -> None:
        for note in notes:
            warn(self.console, f"note: {note}")

    def _show_row(self, row: EpochRow) -> None:
        if self._best is None or row.eval_accuracy > self._best.eval_accuracy:
            self._best = row
        if self._run and self.live:
            self._show_headings(self._run)
            self.console.print(Text("".join(column.cell(row) for column in self._columns)))
            return
        say(
            self.console,
            f"epoch {row.epoch}: train loss {row.train_loss:.4f}, train accuracy "
            f"{row.train_accuracy:.2%}, {row.eval_split} loss {row.eval_loss:.4f}, "
            f"{row.eval_split} accuracy {row.eval_accuracy:.2%}, lr {row.lr:.3g}, "
            f"{row.images_per_second:.0f} images/s",
        )

    def _show_headings(self, run: RunStarted) -> None:
        """Print the headings if they were never printed, or if other columns fit now."""
        fitting = WIDE if self.console.width >= WIDE_FROM else NARROW
        if self._columns is not fitting:
            self._columns = fitting
            headings = (c.heading.format(split=run.eval_split).rjust(c.width) for c in fitting)
            self.console.print(Text("".join(headings), style="bold"))

    def _lines(self) -> list[str]:
        if self._run is None:
            return super()._lines()
        if self._step is None:
            return ["starting"]
        step, best, count = self._step, self._best, self._run.steps_per_epoch
        speed = f"{step.images_per_second:.0f} images/s"
        self._done = step.epoch * count + step.batch + 1
        lines = [
            f"epoch {step.epoch} loss {step.loss:.4f} accuracy {step.accuracy:.2%}",
            f"step {step.batch + 1} of {count} lr {step.lr:.3g} {speed}",
            f"{self._left()} left of the run",
        ]
        if best:
            lines[-1] += ","
            lines.append(f"best {best.eval_split} {best.eval_accuracy:.2%} (epoch {best.epoch})")
        return lines


def _where_it_goes_on(event: RunStarted) -> str:
    """Say which epoch and step of a resumed run is the next."""
    epoch = len(event.history)  # the evaluation of a finished epoch may still be to do
    step = min(event.step - epoch * event.steps_per_epoch + 1, event.steps_per_epoch)
    return f"goes on from epoch {epoch}, step {step} of {event.steps_per_epoch}"
