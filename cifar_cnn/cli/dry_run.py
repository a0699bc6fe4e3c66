"""`cifar-cnn train --dry-run` and `--find-lr`: try one step, or a range of learning rates."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_cnn.errors import RequestError
from cifar_cnn.settings import Settings
from cifar_cnn.training import is_launched, is_main_process
from cifar_cnn.training.run_files import check_result

if TYPE_CHECKING:
    from rich.console import Console

    from cifar_cnn.training.trial import DryRun, RangeTest


def check_find_lr(plot: Path | None, others: dict[str, Any], *, find_lr: bool) -> None:
    """Raise an error for flags that contradict --find-lr, or a picture that cannot be written."""
    if not find_lr:
        if plot is not None:
            raise RequestError("--plot is for --find-lr: add it")
        return
    for flag, value in others.items():
        if value is not None and value is not False:
            raise RequestError(f"--find-lr makes no run: leave {flag} out")
    if is_launched():
        raise RequestError("--find-lr is for one process: start it without torchrun")
    if plot is not None:
        check_result("--plot", plot, ".png")


def try_settings(
    settings: Settings, console: "Console", plot: Path | None, *, find_lr: bool
) -> "DryRun | RangeTest":
    """Try one batch, or many at rising learning rates, and return the document about it."""
    return _find_lr(settings, console, plot) if find_lr else _dry_run(settings, console)


def show_note(console: "Console", note: str) -> None:
    """Print a note once, however many processes there are."""
    from cifar_cnn.report.console import warn

    if is_main_process():
        warn(console, f"note: {note}")


def _dry_run(settings: Settings, console: "Console") -> "DryRun":
    from cifar_cnn import api
    from cifar_cnn.report.progress import Display
    from cifar_cnn.training.trial import DryRun

    with Display(console) as progress:
        loss = api.dry_run(settings, lambda note: show_note(console, note), progress=progress)
    console.print(f"one batch ran forward and backward, loss {loss:.4f}; nothing was written")
    return DryRun(model=settings.model, loss=loss)


def _find_lr(settings: Settings, console: "Console", plot: Path | None) -> "RangeTest":
    from cifar_cnn import api
    from cifar_cnn.report.console import say
    from cifar_cnn.report.curves import draw_range
    from cifar_cnn.report.progress import Display
    from cifar_cnn.storage.files import write_result

    with Display(console) as progress:
        result = api.find_lr(settings, lambda note: show_note(console, note), progress=progress)
    diverging = result.diverging_lr
    found = "midway between the two, for a peak" if result.is_peak else "where it falls fastest"
    lines = [
        f"loss falls fastest at learning rate {result.steepest_lr:.2g}",
        f"loss is lowest at {result.lowest_lr:.2g}",
        f"suggestion, {found}: --lr {result.suggested_lr:g} (now {settings.lr:g})",
        f"loss does not diverge up to {result.curve[-1].lr:.2g}"
        if diverging is None
        else f"loss diverges from {diverging:.2g}",
    ]
    if plot is not None:
        write_result(plot, draw_range(result))
        lines.append(f"saved {plot}")
    say(console, *lines)
    return result.model_copy(update={"plot": plot})
