"""What can be known before a run: whether it fails, and at which learning rates it learns."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.weights import check_registered
from cifar_cnn.data.dataset import Normalization, Progress, Split, normalize
from cifar_cnn.errors import ModelError, RunError, UserError
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import set_training, unchanged, weights_of
from cifar_cnn.models.output import is_probability
from cifar_cnn.results import IfGiven, NotInJson, Result
from cifar_cnn.settings import Settings
from cifar_cnn.storage.archive import load_archive
from cifar_cnn.storage.checkpoint import Checkpoint, pack
from cifar_cnn.training.optimizer import make_optimizer
from cifar_cnn.training.trainer import Trainer

IMAGES_SHOWN = 1000
"""Training images that a network may see before its first step."""

RANGE_STEPS = 300
LOWEST_RATE, HIGHEST_RATE = 1e-5, 10.0
SMOOTHING = 12.0
"""Standard deviation, in steps, of the Gaussian window that losses are averaged over."""
EXPLODED_LOSS = 4.0
"""Stop when the loss exceeds this multiple of the first loss."""
DIVERGING_RISE = 0.1
"""The loss diverges once it has risen again by this fraction of its drop."""
SCATTERS, LEAST_FALL = 1.5, 0.02
"""Least drop that counts, in standard deviations of single losses and as part of the first loss."""
PEAKED = {"cosine", "onecycle"}
"""Schedules whose learning rate is the highest of the run."""

Numbers = NDArray[np.float64]


class DryRun(Result):
    """The loss of one batch, without a run."""

    model: str
    loss: float


class RangeStep(Result):
    """A step: its batch's loss in nats before the step, and averaged over neighboring steps."""

    lr: float
    loss: float
    smoothed_loss: float


class RangeTest(Result):
    """The result of a range test; `lr` is the run's own rate, at its peak if `is_peak`.

    The smoothed loss falls fastest at `steepest_lr`, over the logarithm of the rate, is lowest at
    `lowest_lr`, and has risen again by a tenth of its fall at `diverging_lr`; None if it never has.
    `suggested_lr` is the first of these; for a peak, which lasts for a few steps, it is midway from
    the first to the second on the logarithmic scale.
    """

    model: str
    recipe: str
    dataset: str
    lr: float
    suggested_lr: float
    steepest_lr: float
    lowest_lr: float
    diverging_lr: float | None
    curve: tuple[RangeStep, ...]
    plot: IfGiven[Path] = None
    is_peak: NotInJson[bool]


def describe_hopeless(train: Split, output: Tensor) -> list[str]:
    """Return a line for each reason why there is nothing, or little, to learn."""
    if bool((train.labels == train.labels[0]).all()):
        return ["all training images are of one class: there is nothing to tell apart"]
    if is_probability(output):
        return [
            "the network's outputs sum to one, as after a softmax, which training applies itself: "
            "the loss will hardly fall; return logits instead"
        ]
    return []


def show_images(model: nn.Module, train: Split, normalization: Normalization) -> None:
    """Show training images to a network that asks for them, before its first step.

    One with a method `see_images` is called with up to `IMAGES_SHOWN` of them, class-balanced,
    normalized float32 (N, 3, H, W). What it makes of them belongs into its state dict.
    """
    with guarded("the network cannot see_images", ModelError):
        see = getattr(model, "see_images", None)
        if see is not None:
            see(normalize(train.limited(IMAGES_SHOWN).images, normalization))


def try_training(trainer: Trainer) -> list[str]:
    """Train and evaluate on a batch before anything is written; choose fp32 where bf16 fails.

    The network and all random numbers stay as they are. Returns what the user should know.
    """
    first = ""
    try:
        train_once(trainer)
    except UserError as error:
        first = str(error)
    if not trainer.processes.any(bool(first)):
        return []
    settings = trainer.settings
    trainer.training_step.settings = settings.model_copy(update={"precision": "fp32"})
    train_once(trainer, find_line=True)
    return [f"this run computes in fp32: in bf16 {first}"] if settings.precision == "bf16" else []


def train_once(trainer: Trainer, *, find_line: bool = False) -> float:
    """Do the first step of this process and an evaluation; undo it, and return its loss."""
    step, model = trainer.training_step, trainer.model
    count = min(trainer.batches.size(0), len(trainer.evaluation))
    batch = trainer.batches.at(0, 0, trainer.processes.part(trainer.batches.size(0)).images)
    failing = f"the network fails on a training batch of {len(batch[0])}"
    with (
        unchanged(model),
        warnings.catch_warnings(record=True) as recorded,
        torch.autograd.set_detect_anomaly(find_line, check_nan=False),
        guarded(failing, RunError, model, recorded),
    ):
        warnings.simplefilter("always")
        set_training(model, True)
        with step.explaining_memory(len(batch[0])):
            loss, _ = step.forward(*batch)
            check_registered(model, loss)
            loss.backward()  # type: ignore[no-untyped-call]
        make_optimizer(model, trainer.settings).step()
        trainer.answer(trainer.evaluation.images[:count])
        return loss.item()


def try_saving(model: nn.Module, make: Callable[[], Checkpoint]) -> None:
    """Find out whether a checkpoint can be written and read again."""
    for name, value in weights_of(model).items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the network cannot be saved: {name} of its state dict is "
                f"{type(value).__name__}, not a tensor"
            )
    with guarded("the network cannot be saved", ModelError):
        load_archive(pack(make()))


def range_test(trainer: Trainer, progress: Progress | None) -> RangeTest:
    """Train a fresh network at a rising rate until that is highest or the loss explodes.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2015), section 3.3. The
    rate rises exponentially here, so that each power of ten gets as many steps.
    """
    rates: list[float] = []
    losses: list[float] = []
    set_training(trainer.model, True)
    for number in range(RANGE_STEPS):
        rate = LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** (number / (RANGE_STEPS - 1))
        trainer.update(*divmod(number, trainer.batches.per_epoch), rate)
        totals = trainer.training_step.totals.read()
        if totals.failed_step >= 0:
            if number == 0:
                raise RunError(
                    "the loss or its gradient is not finite at the first step, before anything is "
                    "learned: look at what the network returns"
                )
            break
        rates.append(rate)
        losses.append(totals.last_loss)
        if progress:
            progress("step", None, number + 1, RANGE_STEPS)
        if losses[-1] > EXPLODED_LOSS * losses[0]:
            break
    return read_losses(rates, losses, trainer.settings)


def read_losses(rates: list[float], losses: list[float], settings: Settings) -> RangeTest:
    """Return the rates at which the loss falls fastest, is lowest and rises again.

    A drop smaller than the scatter of single batches does not count.
    """
    loss = np.array(losses)
    smoothed = _smoothed(loss)
    lowest = int(smoothed.argmin())
    fall = smoothed[0] - smoothed[lowest]
    scatter = (loss - smoothed)[: lowest + 1].std()
    if fall <= max(SCATTERS * scatter, LEAST_FALL * smoothed[0]):
        raise RunError(
            f"the loss never falls at learning rates from {rates[0]:g} to {rates[-1]:.3g}: it "
            f"begins at {smoothed[0]:.3f} and gets no lower than {smoothed[lowest]:.3f}; look at "
            "the network and its images"
        )
    slope = np.gradient(smoothed, np.log(rates))
    risen = np.flatnonzero(smoothed[lowest:] > smoothed[lowest] + DIVERGING_RISE * fall)
    stopped = len(rates) < RANGE_STEPS
    diverging = lowest + int(risen[0]) if risen.size else len(rates) - 1
    steepest_lr, is_peak = rates[int(slope[: lowest + 1].argmin())], settings.scheduler in PEAKED
    suggested_lr = math.sqrt(steepest_lr * rates[lowest]) if is_peak else steepest_lr
    return RangeTest(
        model=settings.model,
        recipe=settings.recipe,
        dataset=settings.dataset,
        lr=settings.lr,
        suggested_lr=float(f"{suggested_lr:.2g}"),
        steepest_lr=steepest_lr,
        lowest_lr=rates[lowest],
        diverging_lr=rates[diverging] if risen.size or stopped else None,
        curve=tuple(
            RangeStep(lr=rate, loss=each, smoothed_loss=mean)
            for rate, each, mean in zip(rates, losses, smoothed.tolist(), strict=True)
        ),
        is_peak=is_peak,
    )


def _smoothed(loss: Numbers) -> Numbers:
    """Return means over a Gaussian window; it is cut off where the losses end."""
    step = np.arange(len(loss))
    weights = np.exp(-((step[:, None] - step) ** 2) / (2 * SMOOTHING**2))
    smoothed: Numbers = weights @ loss / weights.sum(axis=1)
    return smoothed
