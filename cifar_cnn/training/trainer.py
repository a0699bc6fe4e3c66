"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import REFERENCE, Normalization, Split
from cifar_cnn.errors import RunError, counted
from cifar_cnn.inference.metrics import Evaluation, judge
from cifar_cnn.inference.trained import EvaluationStopped, predict_log_probabilities
from cifar_cnn.models.module import set_training
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.runtime import resolve_threads
from cifar_cnn.settings import Settings
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.distributed import ALONE, Processes
from cifar_cnn.training.history import EpochRow, Listener, StepEnded
from cifar_cnn.training.optimizer import learning_rate, load_optimizer
from cifar_cnn.training.step import Totals, TrainingStep, balanced_weights, describe_weights
from cifar_cnn.training.update import Update

STEPS_BETWEEN_READINGS = {"cuda": 50}
"""Steps after which the running totals are read, 1 elsewhere: reading makes a device wait."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
ENOUGH_TIME = 0.8
"""Least fraction of its threads' time without a note; a run alone gets 0.9 or more."""
SHORTEST_EPOCH = 10.0
"""Seconds; in shorter epochs the fraction is unreliable."""


class Trainer:
    """Trains a network from any step on.

    The order of the images, every augmentation and the network's own randomness (dropout) are
    functions of (seed, epoch, step) alone, so a run resumed at any step equals one never stopped.
    The settings' precision is resolved; the network is moved to the device, a built-in one to
    channels-last memory too. `should_stop` is asked after each step and between the batches of an
    evaluation.
    """

    def __init__(
        self,
        settings: Settings,
        model: nn.Module,
        train: Split,
        evaluation: Split,
        processes: Processes = ALONE,
        *,
        normalization: Normalization = REFERENCE,
        tell: Listener = lambda _event: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.device = device = processes.device
        self.threads = resolve_threads(settings.threads)
        self.processes = processes
        self.evaluation = evaluation
        self.tell = tell
        self.should_stop = should_stop
        self.is_built_in = is_built_in(settings.model)
        self.model = processes.prepare(model, channels_last=self.is_built_in)
        self.notes: list[str] = []  # that the user should see
        weights = None
        if settings.class_weights == "balanced":
            weights = balanced_weights(train.labels, len(train.classes))
            self.notes.append(describe_weights(weights, train.classes))
            weights = weights.to(device, torch.float32)
        self.training_step = TrainingStep(settings, self.model, processes, weights)
        self.optimizer = self.training_step.optimizer
        layout = torch.channels_last if self.is_built_in else torch.contiguous_format
        self.batches = TrainingBatches(settings, train, device, normalization, layout)
        self.update = Update(self.training_step, self.batches, self.threads, self.notes)
        self.steps_between_readings = STEPS_BETWEEN_READINGS.get(device.type, 1)
        self.epoch = 0
        self.index = 0
        self.seconds = 0.0
        self.has_noted_cores = False

    @property
    def settings(self) -> Settings:
        """The settings, with the precision that is used."""
        return self.training_step.settings

    @property
    def step(self) -> int:
        """Steps done since the run began."""
        return self.epoch * self.batches.per_epoch + self.index

    def epochs(self) -> Iterator[EpochRow]:
        """Train and evaluate epoch by epoch; end early if `should_stop` says so."""
        while self.epoch < self.settings.epochs:
            self.train_epoch()
            if self.index < self.batches.per_epoch:
                return
            try:
                row = self._row(self._evaluate())
            except EvaluationStopped:
                return
            self.epoch, self.index, self.seconds = self.epoch + 1, 0, 0.0
            self.training_step.totals.set(Totals())
            yield row
            if self.processes.any(self.should_stop()):
                return

    def train_epoch(self) -> None:
        """Run the epoch's remaining steps."""
        began = time.perf_counter()
        started, processor = began - self.seconds, time.process_time()
        set_training(self.model, True)
        while self.index < self.batches.per_epoch:
            self.learn()
            self.index += 1
            if self.index % self.steps_between_readings == 0:
                self.seconds = time.perf_counter() - started
                self._report(self.training_step.totals.latest())
            asks = self.processes.size == 1 or self.index % self.steps_between_readings == 0
            if asks and self.processes.any(self.should_stop()):
                break
        self._refuse_divergence(self.training_step.totals.read())
        self.seconds = time.perf_counter() - started
        if self.device.type == "cpu" and not self.has_noted_cores:
            used = time.perf_counter() - began, time.process_time() - processor
            notes = describe_lost_time(self.epoch, *used, self.update.busy_threads)
            self.has_noted_cores = bool(notes)
            self.notes += notes

    def learn(self) -> None:
        """Do the next step."""
        try:
            self.update(self.epoch, self.index, self._learning_rate(self.step))
        except RunError as error:
            raise RunError(f"at epoch {self.epoch}, step {self.step}: {error}") from error

    def state(self) -> dict[str, Any]:
        """Return what training needs to go on from here, besides the model's weights."""
        return {
            "epoch": self.epoch,
            "batch": self.index,
            "seconds": self.seconds,
            "totals": self.training_step.totals.read()._asdict(),
            "optimizer": self.optimizer.state_dict(),
            "images": self.batches.count,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        if state["batch"] > self.batches.per_epoch:
            raise ValueError(f"steps done: {state['batch']} of {self.batches.per_epoch}")
        self.epoch, self.index, self.seconds = state["epoch"], state["batch"], state["seconds"]
        self.training_step.totals.set(Totals(**state["totals"]))
        load_optimizer(self.optimizer, state["optimizer"])

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.settings, step, self.batches.per_epoch)

    def _report(self, totals: Totals) -> None:
        self._refuse_divergence(totals)
        if totals.samples == 0:  # nothing has arrived from the device yet
            return
        self.tell(
            StepEnded(
                epoch=self.epoch,
                batch=self.index - 1,
                loss=totals.loss / totals.samples,
                accuracy=totals.correct / totals.samples,
                lr=self._learning_rate(self.step - 1),
                images_per_second=self.index * self.settings.batch_size / self.seconds,
            )
        )

    def _refuse_divergence(self, totals: Totals) -> None:
        """End a run whose loss or gradient was not finite, before anything of it is saved."""
        if totals.failed_step < 0:
            return
        step = int(totals.failed_step)
        is_finite = math.isfinite(totals.failed_loss)
        what = "the gradient is not finite" if is_finite else f"the loss is {totals.failed_loss}"
        epoch, index = divmod(step, self.batches.per_epoch)
        images = self.update.describe_failing_images(epoch, index)
        raise RunError(
            f"{what} at epoch {epoch}, step {step}, learning rate {self._learning_rate(step):g}"
            f"{images}: nothing was saved over the last good checkpoint; try a lower --lr"
            f"{', or leave out what is wrong with such images' if images else ''}"
        )

    def _row(self, result: Evaluation) -> EpochRow:
        totals = self.training_step.totals.read()
        return EpochRow(
            epoch=self.epoch,
            step=self.step,
            lr=self._learning_rate(self.step - 1),
            train_loss=totals.loss / totals.samples,
            train_accuracy=totals.correct / totals.samples,
            last_loss=totals.last_loss,
            batches=self.batches.per_epoch,
            eval_split=self.evaluation.name,
            eval_loss=result.loss,
            eval_accuracy=result.accuracy,
            eval_correct=result.correct,
            eval_samples=result.samples,
            seconds=self.seconds,
            images_per_second=self.batches.count / self.seconds,
        )

    def _evaluate(self) -> Evaluation:
        """Evaluate on the split, each image in one process; all get the same result."""
        processes, split = self.processes, self.evaluation
        processes.agree(self.model)
        images = split.images[processes.part(len(split)).images]
        answers = self.answer(images, self.should_stop if processes.size == 1 else None)
        return judge(processes.gather(answers, len(split)), split)

    def answer(self, images: Tensor, should_stop: Callable[[], bool] | None = None) -> Tensor:
        """Return the network's log-probabilities (N, classes) for uint8 images."""
        return predict_log_probabilities(
            self.model,
            images,
            self.device,
            self.settings.precision,
            normalization=self.batches.normalization,
            threads=self.threads,
            should_stop=should_stop or (lambda: False),
        )


def describe_lost_time(epoch: int, seconds: float, processor: float, threads: int) -> list[str]:
    """Return a line if `threads` busy threads got too little processor time in so many seconds."""
    fraction = processor / (seconds * threads)
    if seconds < SHORTEST_EPOCH or fraction > ENOUGH_TIME:
        return []
    cause = "other programs use the cores, and training is slower for it"
    try:
        quota, period = map(float, QUOTA.read_text(encoding="utf-8").split())
        if quota < period * threads:
            cause = f"a CPU quota allows {quota / period:g} of {counted(threads, 'core')}"
    except (OSError, ValueError):  # no such system, or no quota
        pass
    share = f"in epoch {epoch} this run had {fraction:.0%} of the processor time it could use"
    return [f"{share}: {cause}"]
