"""Training as one function: the run of `training`, with the pictures of `report`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cifar_cnn.report.curves import CurvesPicture
from cifar_cnn.report.environment import EnvironmentFile
from cifar_cnn.report.run_report import ReportFiles
from cifar_cnn.report.tensorboard import TensorBoardEvents
from cifar_cnn.runtime import global_state_kept, resolve_device
from cifar_cnn.settings import Settings
from cifar_cnn.storage.checkpoint import Checkpoint
from cifar_cnn.training.distributed import join, own_device
from cifar_cnn.training.events import Listener
from cifar_cnn.training.history import RunResult
from cifar_cnn.training.run import Run
from cifar_cnn.training.run_directory import Replace, RunDirectory


@global_state_kept()
def train(
    settings: Settings,
    directory: Path | str,
    *,
    replace: Replace = False,
    numbered: bool = False,
    checkpoint: Checkpoint | None = None,
    report: bool = True,
    tensorboard: bool = False,
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train a network and fill a run directory; under torchrun, together with its processes.

    Args:
        settings: what to train, on what and how; `resolve_settings` makes them.
        directory: of the run; a new one unless `replace` or `checkpoint` is given.
        replace: start again where there is a run: its files go; `unsaved`: where it has saved
            nothing yet.
        numbered: where `directory` is taken, add the next free number to its name.
        checkpoint: a `last.pt` to go on from; its settings must be `settings` (see `plan_run`).
        report: write report.html and its pictures at the end of a finished run.
        tensorboard: write event files below the run directory.
        listeners: called with each event of the run (of several processes, each calls its own).
        should_stop: asked after each step; when it says so, the run is saved and ends early.

    Raises:
        UserError: in one of its kinds; the message says what is wrong and what to do.
    """
    files: list[Listener] = [EnvironmentFile(), CurvesPicture()]
    if tensorboard:
        files.append(TensorBoardEvents())
    if report:
        files.append(ReportFiles(settings.model))
    with join(own_device(resolve_device(settings.device))) as processes:
        processes.wait()  # all have looked at the directory before one takes it
        told = [*listeners, *files] if processes.is_main else listeners
        resume = checkpoint is not None
        with RunDirectory(
            Path(directory),
            replace=replace,
            resume=resume,
            numbered=numbered,
            writes=processes.is_main,
        ) as run_directory:
            run = Run(settings, processes=processes, listeners=told, should_stop=should_stop)
            run.notes += run_directory.notes
            if checkpoint is not None:
                run.resume(checkpoint)
            processes.wait()  # all have what they need before one changes anything
            run_directory.begin()
            result = run.fit(run_directory)
            processes.wait()  # none ends before all is saved
        return result


@global_state_kept()
def dry_run(settings: Settings) -> float:
    """Build everything, run one batch forward and backward, write nothing; return its loss.

    Raises:
        UserError: what `train` would raise before its first step.
    """
    return Run(settings).trainer.try_step()
