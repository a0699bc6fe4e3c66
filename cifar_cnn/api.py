"""Functions that combine several packages: training, and pictures of what a network sees."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cifar_cnn.analysis.effective import effective_receptive_field
from cifar_cnn.analysis.results import EffectiveField, Target
from cifar_cnn.data.dataset import Progress, measure, normalize
from cifar_cnn.data.load import load_test, load_trained_on
from cifar_cnn.errors import DataError, RunError, UserError
from cifar_cnn.inference.predict import FP32, classify_readable
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models.guard import guarded
from cifar_cnn.report.curves import TensorBoardEvents, draw_at_end
from cifar_cnn.report.mosaics import MAX_EXPLAINED, Explanation
from cifar_cnn.report.run_report import report_at_end, write_environment
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.settings import Settings, resolve_settings
from cifar_cnn.storage.checkpoint import Checkpoint
from cifar_cnn.storage.network import open_network
from cifar_cnn.training.distributed import Processes, join, own_device
from cifar_cnn.training.history import Listener, RunResult
from cifar_cnn.training.plan import Plan
from cifar_cnn.training.run import Run
from cifar_cnn.training.run_directory import open_run_directory
from cifar_cnn.training.run_files import Replace
from cifar_cnn.training.trial import RangeTest, range_test, train_once


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
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train a network and fill a run directory; under torchrun, together with its processes.

    Return the stored result if the `checkpoint` is of a finished run.

    Args:
        settings: what to train, on what and how; `resolve_settings` makes them.
        directory: of the run; it must not exist unless `replace` or `checkpoint` is given.
        replace: remove the files of an earlier run and start again; `unsaved`: only if that run has
            saved nothing.
        numbered: if `directory` exists, add the next free number to its name.
        checkpoint: a `last.pt` to go on from; its settings must be `settings` (see `plan_run`).
        report: write report.html and its pictures at the end of a finished run.
        tensorboard: write event files below the run directory.
        listeners: called with each event of the run; in several processes, each calls its own.
        progress: called while images are decoded or downloaded.
        should_stop: called after each step; if it returns True, the run is saved and ends early.

    Raises:
        UserError: in one of its kinds; the message says what is wrong and what to do.
    """
    finished = Plan(settings, Path(directory), checkpoint).finished
    if finished is not None:
        return finished
    files: list[Listener] = [write_environment, draw_at_end]
    if tensorboard:
        files.append(TensorBoardEvents())
    if report:
        files.append(report_at_end)
    with join(settings.device) as processes:
        processes.wait()  # all have looked at the directory before one takes it
        with open_run_directory(
            Path(directory),
            writes=processes.rank == 0,
            replace=replace,
            resume=checkpoint is not None,
            numbered=numbered,
        ) as run_directory:
            run = Run(
                settings,
                processes,
                listeners=[*listeners, *files] if processes.rank == 0 else listeners,
                progress=progress,
                checkpoint=checkpoint,
                should_stop=should_stop,
            )
            processes.wait()  # all have what they need before one changes anything
            result = run.fit(run_directory)
            processes.wait()  # none ends before all is saved
        return result


@global_state_kept()
def dry_run(
    settings: Settings,
    say: Callable[[str], None] = lambda _note: None,
    *,
    progress: Progress | None = None,
) -> float:
    """Build everything, run one batch forward and backward, write nothing; return its loss.

    Args:
        settings: of the run.
        say: called with each note for the user, one line each.
        progress: called while images are decoded or downloaded.

    Raises:
        UserError: what `train` would raise before its first step, or at a loss that is not finite.
    """
    loss = train_once(_make_run(settings, say, progress).trainer)
    if not math.isfinite(loss):
        raise RunError(f"the loss of the first batch is {loss}: training would stop there")
    return loss


@global_state_kept()
def find_lr(
    settings: Settings,
    say: Callable[[str], None] = lambda _note: None,
    *,
    progress: Progress | None = None,
) -> RangeTest:
    """Do a learning rate range test with a run's settings; write nothing.

    Args:
        settings: of the run; all but the learning rate and its schedule are kept.
        say: as for `dry_run`.
        progress: as for `dry_run`, and called after each step.

    Raises:
        RunError: the loss never falls, or is not finite from the start.
        UserError: what `train` would raise before its first step.
    """
    return range_test(_make_run(settings, say, progress).trainer, progress)


def _make_run(settings: Settings, say: Callable[[str], None], progress: Progress | None) -> Run:
    """Make a run that writes nothing, and report its notes."""
    run = Run(settings, Processes(own_device(settings.device)), progress=progress)
    for note in run.notes:
        say(note)
    return run


@global_state_kept()
def effective_field(
    checkpoint: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    samples: int = 64,
    target: Target = "features",
    assume_pointwise: Collection[str] = (),
    progress: Progress | None = None,
) -> EffectiveField:
    """Compute the effective receptive field on test images, of a checkpoint or of fresh weights.

    Args:
        checkpoint: a file of weights; without one, weights are drawn from the settings' seed.
        overrides: settings by name, before the checkpoint's own; the images are `synthetic` where
            neither says which.
        samples: test images at most.
        target: the central unit of the last map, or each image's largest logit.
        assume_pointwise: as for `receptive_field`.
        progress: called while images are decoded or downloaded.

    Raises:
        UserError: the checkpoint does not fit the network, or the images are unusable.
    """
    values = dict(overrides or {})
    network = open_network(Path(checkpoint) if checkpoint else None, values)
    settings = network.settings
    if network.checkpoint is None:
        settings = resolve_settings({"dataset": "synthetic"} | values)
    data = load_test(settings, samples, progress)
    network = dataclasses.replace(network, classes=network.classes or data.classes)
    torch.manual_seed(settings.seed)
    model, normalization = network.model, network.normalization
    if network.file is None and settings.normalization == "dataset":
        normalization = measure(load_trained_on(settings, progress)[0].images)
    images = normalize(data.images, normalization)
    with guarded("the effective receptive field cannot be computed", UserError, model):
        return effective_receptive_field(
            model, images, target=target, assume_pointwise=assume_pointwise
        )


@global_state_kept()
def explain(
    images: Iterable[Path | str | BinaryIO],
    checkpoint: Path | str,
    overrides: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a PNG of the first 16 images and of what their most probable class comes from.

    Args:
        images: as for `predict`.
        checkpoint: `model.pt`, `best.pt` or `last.pt`.
        overrides: settings in place of the checkpoint's: model, device …

    Raises:
        UserError: the checkpoint or an image is unusable, or the network has no map to look at.
    """
    network = open_trained(checkpoint, FP32 | dict(overrides or {}))
    explanation = Explanation(network)
    answers = [*islice(classify_readable(network, images, top=1), MAX_EXPLAINED)]
    if not answers:
        raise DataError("there is no image to explain")
    return explanation.draw(answers)
