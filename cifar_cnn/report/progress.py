"""What a person sees while work goes on: live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from cifar_cnn.errors import counted
from cifar_cnn.report.console import format_size, say, warn
from cifar_cnn.training.history import EpochEnded, EpochRow, Event, RunEnded, RunStarted, StepEnded

MANY_IMAGES, PATIENCE = 100, 1.0
"""The work on fewer images is shown only after these seconds."""
LIVE_WIDTH = 39
"""Columns of the live part: where a window becomes narrower, no line that is to go is broken."""
WIDE_TABLE = {
    "epoch": "{row.epoch}",
    " train loss": "{row.train_loss:.4f}",
    "  train %": "{row.train_accuracy:.2%}",
    "{split:>6} loss": "{row.eval_loss:.4f}",
    "{split:>7} %": "{row.eval_accuracy:.2%}",
    "        lr": "{row.lr:.3g}",
    " images/s": "{row.images_per_second:.0f}",
    " seconds": "{row.seconds:.1f}",
}
"""Headings of the epoch table, as wide as their columns, and the values below them."""
NARROW_HEADINGS = ("epoch", "  train %", "{split:>6} loss", "{split:>7} %")
WIDE_FROM = 76
"""Columns of a console that the wide table needs."""


class Display:
    """Shows how counted work goes; called as a `Progress`.

    Leaving its context takes the live part off the screen, also where the work ends by an error.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None
        self._work, self._done, self._total, self._is_shown = "", 0, 0, False
        self._start_time, self._done_at_start = 0.0, 0

    def __call__(self, work: str, place: Path | None, done: int, total: int) -> None:
        """Show that `done` of `total` images in a folder, bytes of a file, steps … are done."""
        if done == 0 or work != self._work:
            self._is_shown = False
            self._start_clock(done)
        self._work, self._done, self._total = work, done, total
        is_long = total >= MANY_IMAGES or time.perf_counter() - self._start_time > PATIENCE
        if not self._is_shown and (place is None or is_long):
            self._is_shown = True
            if place and work == "downloading":
                say(self.console, f"downloading {format_size(total)} to {place}")
            elif place and not self.console.is_interactive:
                say(self.console, f"{work} {counted(total, 'image')} in {place}")
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

    def _start_clock(self, done: int) -> None:
        self._start_time, self._done_at_start = time.perf_counter(), done

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
        amount = f"{self._work} {self._done:,} of {self._total:,}"
        if self._work == "downloading":
            amount = f"loading {self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB"
        return [f"{amount}, {self._time_left()} left" if self._done else amount]

    def _time_left(self) -> timedelta:
        """Return the time that the rest takes at the speed so far."""
        elapsed = time.perf_counter() - self._start_time
        done = max(self._done - self._done_at_start, 1)
        return timedelta(seconds=round(elapsed / done * (self._total - self._done)))


class RunDisplay(Display):
    """Shows a run too: a growing table on a terminal, one plain line an epoch elsewhere."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._table: dict[str, str] = {}
        self._run: RunStarted | None = None
        self._step: StepEnded | None = None
        self._best: EpochRow | None = None

    def listen(self, event: Event) -> None:
        """Show an event of a run."""
        if isinstance(event, RunStarted):
            self._show_notes(event.notes)
            self._start(event)
        elif isinstance(event, StepEnded):
            self._step = event
        elif isinstance(event, EpochEnded):
            self._show_row(event.history[-1])
            self._show_notes(event.notes)
        elif isinstance(event, RunEnded):
            self.close()

    def _show_notes(self, notes: Sequence[str]) -> None:
        for note in notes:
            warn(self.console, f"note: {note}")

    def _start(self, event: RunStarted) -> None:
        settings, steps = event.settings, event.steps_per_epoch
        say(
            self.console,
            f"{settings.model}, {settings.recipe} on {settings.dataset}, "
            f"{counted(settings.epochs, 'epoch')} of {counted(steps, 'step')}, "
            f"{event.device} {settings.precision} -> {event.directory}",
            wrap=True,
        )
        if event.step:
            epoch = len(event.history)  # the evaluation of a finished epoch may still be to do
            step = min(event.step - epoch * steps + 1, steps)
            say(self.console, f"goes on from epoch {epoch}, step {step} of {steps}")
        self._run, self._total = event, settings.epochs * steps
        self._start_clock(event.step)
        self._go_live()
        if self.live:
            self._show_headings(event.eval_split)
        for row in event.history:
            self._show_row(row)

    def _show_row(self, row: EpochRow) -> None:
        if self._best is None or row.eval_accuracy > self._best.eval_accuracy:
            self._best = row
        if self.live:
            self._show_headings(row.eval_split)
            cells = (
                form.format(row=row).rstrip("%").rjust(len(heading))
                for heading, form in self._table.items()
            )
            self.console.print(Text("".join(cells)))
            return
        say(
            self.console,
            f"epoch {row.epoch}: train loss {row.train_loss:.4f}, train accuracy "
            f"{row.train_accuracy:.2%}, {row.eval_split} loss {row.eval_loss:.4f}, "
            f"{row.eval_split} accuracy {row.eval_accuracy:.2%}, lr {row.lr:.3g}, "
            f"{row.images_per_second:.0f} images/s",
        )

    def _show_headings(self, split: str) -> None:
        """Print the headings if they were never printed, or if other columns fit now."""
        headings = WIDE_TABLE if self.console.width >= WIDE_FROM else NARROW_HEADINGS
        table = {heading.format(split=split): WIDE_TABLE[heading] for heading in headings}
        if table != self._table:
            self._table = table
            self.console.print(Text("".join(table), style="bold"))

    def _lines(self) -> list[str]:
        if self._run is None:
            return super()._lines()
        if self._step is None:
            return ["starting"]
        step, best, steps = self._step, self._best, self._run.steps_per_epoch
        self._done = step.epoch * steps + step.batch + 1
        lines = [
            f"epoch {step.epoch} loss {step.loss:.4f} accuracy {step.accuracy:.2%}",
            f"step {step.batch + 1} of {steps} lr {step.lr:.3g} {step.images_per_second:.0f} "
            "images/s",
            f"{self._time_left()} left of the run",
        ]
        if best:
            lines[-1] += ","
            lines.append(f"best {best.eval_split} {best.eval_accuracy:.2%} (epoch {best.epoch})")
        return lines
