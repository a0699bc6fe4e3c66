"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from cifar_cnn.data.dataset import REFERENCE, Normalization, Split
from cifar_cnn.errors import RunError
from cifar_cnn.inference.metrics import Evaluation, judge
from cifar_cnn.inference.trained import EvaluationStopped, predict_log_probabilities
from cifar_cnn.models.module import move, set_training
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.runtime import resolve_threads
from cifar_cnn.settings import Settings
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.cores import CoreTime
from cifar_cnn.training.distributed import ALONE, Processes
from cifar_cnn.training.events import Listener, StepEnded
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.optimizer import learning_rate, make_optimizer
from cifar_cnn.training.step import Totals, TrainingStep, balanced_weights
from cifar_cnn.training.update import Update

STEPS_BETWEEN_READINGS = {"cuda": 50}
"""Steps after which the running totals are read, 1 elsewhere: reading makes a device wait."""


class Trainer:
    """Trains a network; all that it needs to go on later is a `TrainingState`.

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
        device: torch.device,
        *,
        processes: Processes = ALONE,
        normalization: Normalization = REFERENCE,
        listeners: Sequence[Listener] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.device = device
        self.threads = resolve_threads(settings.threads)
        self.processes = processes
        self.evaluation = evaluation
        self.listeners = listeners
        self.should_stop = should_stop
        self.cores = CoreTime()
        built_in = is_built_in(settings.model)
        self.model = move(processes.prepare(model, device), device, channels_last=built_in)
        self.optimizer = make_optimizer(self.model, settings)
        weights = None
        if settings.class_weights == "balanced":
            weights = balanced_weights(train.labels, len(train.classes))
        self.training_step = TrainingStep(
            settings, self.model, self.optimizer, device, processes, weights
        )
        layout = torch.channels_last if built_in else torch.contiguous_format
        self.batches = TrainingBatches(settings, train, device, normalization, layout)
        self.update = Update(self.training_step, self.batches, self.threads)
        self.steps_between_readings = STEPS_BETWEEN_READINGS.get(device.type, 1)
        self.epoch = 0
        self.index = 0
        self.seconds = 0.0

    @property
    def step(self) -> int:
        """Steps done since the run began."""
        return self.epoch * self.batches.per_epoch + self.index

    @property
    def notes(self) -> list[str]:
        """What the user should know about how training goes."""
        return [*self.cores.notes, *self.update.notes]

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
        started = time.perf_counter() - self.seconds
        self.cores.start()
        set_training(self.model, True)
        while self.index < self.batches.per_epoch:
            self.learn()
            self.index += 1
            if self.index % self.steps_between_readings == 0:
                self.seconds = time.perf_counter() - started
                self._report(self.training_step.totals.latest())
            if self._must_stop():
                break
        self._refuse_divergence(self.training_step.totals.read())
        self.seconds = time.perf_counter() - started
        if self.device.type == "cpu":
            self.cores.stop(self.epoch, self.update.busy_threads)

    def learn(self) -> None:
        """Do the next step."""
        try:
            self.update(self.epoch, self.index, self._learning_rate(self.step))
        except RunError as error:
            raise RunError(f"at epoch {self.epoch}, step {self.step}: {error}") from error

    def free(self) -> None:
        """Free the images and the working memory of training, once no epoch is left."""
        assert self.epoch == self.settings.epochs
        self.update.free()

    def _must_stop(self) -> bool:
        """Return whether any rank should stop; with several ranks, ask only every few steps."""
        if self.processes.size > 1 and self.index % self.steps_between_readings:
            return False
        return self.processes.any(self.should_stop())

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.settings, step, self.batches.per_epoch)

    def _report(self, totals: Totals) -> None:
        self._refuse_divergence(totals)
        if totals.samples == 0:  # nothing has arrived from the device yet
            return
        event = StepEnded(
            epoch=self.epoch,
            batch=self.index - 1,
            loss=totals.loss / totals.samples,
            accuracy=totals.correct / totals.samples,
            lr=self._learning_rate(self.step - 1),
            images_per_second=self.index * self.settings.batch_size / self.seconds,
        )
        for listener in self.listeners:
            listener(event)

    def _refuse_divergence(self, totals: Totals) -> None:
        """End a run whose loss or gradient was not finite, before anything of it is saved."""
        if totals.failed_step < 0:
            return
        step = int(totals.failed_step)
        epoch, index = divmod(step, self.batches.per_epoch)
        finite = math.isfinite(totals.failed_loss)
        what = "the gradient is not finite" if finite else f"the loss is {totals.failed_loss}"
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
        answers = predict_log_probabilities(
            self.model,
            split.images[processes.part(len(split)).images],
            self.device,
            self.settings.precision,
            normalization=self.batches.normalization,
            threads=self.threads,
            should_stop=self.should_stop if processes.size == 1 else lambda: False,
        )
        return judge(processes.gather(answers, len(split)), split)
