"""What a person sees while a run goes on: a table that grows and a live progress bar."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from cifar_cnn.errors import counted
from cifar_cnn.report.console import say, warn
from cifar_cnn.training.events import EpochEnded, Event, RunEnded, RunStarted, StepEnded
from cifar_cnn.training.history import EpochRow


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
LIVE_WIDTH = 39
"""Columns of the live part: where a window becomes narrower, no line that is to go is broken."""


class ConsoleProgress:
    """Listener that shows a run: live on a terminal, one plain line an epoch elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None
        self.columns: Sequence[Column] = ()
        self.split = ""
        self.started = time.perf_counter()
        self.step: StepEnded | None = None
        self.best: EpochRow | None = None
        self.total_steps = self.steps_per_epoch = self.first_step = 0

    def __call__(self, event: Event) -> None:
        """Show the event."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, StepEnded):
            self.step = event
        elif isinstance(event, EpochEnded):
            self._show_row(event.history[-1])
            self._show_notes(event.notes)
        elif isinstance(event, RunEnded):
            self.close()

    def close(self) -> None:
        """Take the live part off the screen; also where a run ends by an error."""
        if self.live:
            self.live.stop()
            self.live = None

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
        self.steps_per_epoch = event.steps_per_epoch
        self.total_steps = settings.epochs * event.steps_per_epoch
        self.first_step = event.step
        self.started = time.perf_counter()
        if self.console.is_interactive and not self.console.quiet:
            self.split = event.eval_split
            self._show_headings()
            self.live = Live(
                get_renderable=self._render,
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self.live.start()
        for row in event.history:
            self._show_row(row)

    def _show_notes(self, notes: Sequence[str]) -> None:
        for note in notes:
            warn(self.console, f"note: {note}")

    def _show_row(self, row: EpochRow) -> None:
        if self.best is None or row.eval_accuracy > self.best.eval_accuracy:
            self.best = row
        if self.live:
            self._show_headings()
            self.console.print(Text("".join(column.cell(row) for column in self.columns)))
            return
        say(
            self.console,
            f"epoch {row.epoch}: train loss {row.train_loss:.4f}, train accuracy "
            f"{row.train_accuracy:.2%}, {row.eval_split} loss {row.eval_loss:.4f}, "
            f"{row.eval_split} accuracy {row.eval_accuracy:.2%}, lr {row.lr:.3g}, "
            f"{row.images_per_second:.0f} images/s",
        )

    def _show_headings(self) -> None:
        """Print them where none are there yet, or none of the columns that fit the screen now."""
        fitting = WIDE if self.console.width >= 76 else NARROW
        if self.columns is not fitting:
            self.columns = fitting
            headings = (c.heading.format(split=self.split).rjust(c.width) for c in fitting)
            self.console.print(Text("".join(headings), style="bold"))

    def _render(self) -> RenderableType:
        if self.step is None:
            return Text("starting")
        step = self.step
        done = step.epoch * self.steps_per_epoch + step.batch + 1
        elapsed = time.perf_counter() - self.started
        left = elapsed / max(done - self.first_step, 1) * (self.total_steps - done)
        lines = [
            f"epoch {step.epoch} loss {step.loss:.4f} accuracy {step.accuracy:.2%}",
            f"step {step.batch + 1} of {self.steps_per_epoch} lr {step.lr:.3g} "
            f"{step.images_per_second:.0f} images/s",
            f"{timedelta(seconds=round(left))} left of the run",
        ]
        if self.best:
            best = self.best
            lines[-1] += ","
            lines.append(f"best {best.eval_split} {best.eval_accuracy:.2%} (epoch {best.epoch})")
        width = min(LIVE_WIDTH, self.console.width)
        bar = ProgressBar(total=self.total_steps, completed=done, width=width)
        texts = [Text(line) for line in lines]
        for text in texts:
            text.truncate(width, overflow="ellipsis")
        return Group(*texts, bar)  # the bar does not end its line


def _where_it_goes_on(event: RunStarted) -> str:
    """Say which epoch and step of a resumed run is the next."""
    epoch = len(event.history)  # the evaluation of a finished epoch may still be to do
    step = min(event.step - epoch * event.steps_per_epoch + 1, event.steps_per_epoch)
    return f"goes on from epoch {epoch}, step {step} of {event.steps_per_epoch}"
