"""The learning rate range test: at which rates a network learns, from one short training.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2015), section 3.3. The rate
rises exponentially here, so that each power of ten gets as many steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifar_cnn.documents import runs as documents
from cifar_cnn.errors import RunError
from cifar_cnn.models.module import set_training
from cifar_cnn.settings import Settings
from cifar_cnn.training.trainer import Trainer

STEPS = 300
LOWEST, HIGHEST = 1e-5, 10.0
SMOOTHING = 12.0
"""Standard deviation, in steps, of the Gaussian window that losses are averaged over."""
EXPLODED = 4.0
"""Times the first loss at which the test ends early."""
RISEN = 0.1
"""Fraction of the loss's fall that it has risen again where it is said to diverge."""
SCATTERS, LEAST_FALL = 1.5, 0.02
"""What is no fall yet: times the standard deviation of single losses; times the first loss."""
PEAKED = {"cosine", "onecycle"}
"""Schedules whose learning rate is the highest of the run."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RangeTest:
    """Learning rate, loss (in nats, before the step) and smoothed loss of each step.

    The smoothed loss falls fastest, over the logarithm of the rate, at `steepest_lr`; it is lowest
    at `lowest_lr`, and has risen again by a tenth of its fall at `diverging_lr`.
    """

    lr: tuple[float, ...]
    loss: tuple[float, ...]
    smoothed_loss: tuple[float, ...]
    steepest_lr: float
    lowest_lr: float
    diverging_lr: float | None
    is_peak: bool  # the run's learning rate is reached for a few steps only

    @property
    def suggested_lr(self) -> float:
        """The rate of the steepest fall, to two digits; for a peak, midway from it to the lowest.

        Midway is on the logarithmic scale. A peak lasts for a few steps, so it may be higher.
        """
        highest = self.lowest_lr if self.is_peak else self.steepest_lr
        return float(f"{math.sqrt(self.steepest_lr * highest):.2g}")

    def as_dict(self, settings: Settings) -> documents.RangeTest:
        """Return the document of `train --find-lr --json`."""
        steps = zip(self.lr, self.loss, self.smoothed_loss, strict=True)
        return {
            "model": settings.model,
            "recipe": settings.recipe,
            "dataset": settings.dataset,
            "lr": settings.lr,
            "suggested_lr": self.suggested_lr,
            "steepest_lr": self.steepest_lr,
            "lowest_lr": self.lowest_lr,
            "diverging_lr": self.diverging_lr,
            "curve": [
                {"lr": lr, "loss": loss, "smoothed_loss": smoothed} for lr, loss, smoothed in steps
            ],
        }


def range_test(trainer: Trainer, progress: Callable[[int], None]) -> RangeTest:
    """Train a fresh network at a rising rate until that is highest or the loss explodes."""
    rates: list[float] = []
    losses: list[float] = []
    set_training(trainer.model, True)
    for number in range(STEPS):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
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
        progress(number + 1)
        if losses[-1] > EXPLODED * losses[0]:
            break
    return read_losses(rates, losses, is_peak=trainer.settings.scheduler in PEAKED)


def read_losses(rates: list[float], losses: list[float], *, is_peak: bool) -> RangeTest:
    """Say where the loss falls fastest, is lowest and rises again.

    A fall within the scatter of the losses of single batches is none.
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
    risen = np.flatnonzero(smoothed[lowest:] > smoothed[lowest] + RISEN * fall)
    stopped = len(rates) < STEPS
    diverging = lowest + int(risen[0]) if risen.size else len(rates) - 1
    return RangeTest(
        tuple(rates),
        tuple(losses),
        tuple(smoothed.tolist()),
        steepest_lr=rates[int(slope[: lowest + 1].argmin())],
        lowest_lr=rates[lowest],
        diverging_lr=rates[diverging] if risen.size or stopped else None,
        is_peak=is_peak,
    )


def _smoothed(loss: Numbers) -> Numbers:
    """Return means over a Gaussian window; it is cut off where the losses end."""
    step = np.arange(len(loss))
    weights = np.exp(-((step[:, None] - step) ** 2) / (2 * SMOOTHING**2))
    smoothed: Numbers = weights @ loss / weights.sum(axis=1)
    return smoothed
