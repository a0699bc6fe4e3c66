"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import Split
from cifar_cnn.data.randomness import Purpose, derive_seed
from cifar_cnn.errors import RunError
from cifar_cnn.inference.forward import EvaluationStopped
from cifar_cnn.runtime import resolve_threads
from cifar_cnn.settings import Settings
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.cores import CoreTime
from cifar_cnn.training.distributed import ALONE, Processes
from cifar_cnn.training.divergence import refuse_divergence
from cifar_cnn.training.ema import WeightAverage
from cifar_cnn.training.evaluation import evaluate_together
from cifar_cnn.training.events import Listener, StepEnded
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.optimizer import load_optimizer, make_optimizer
from cifar_cnn.training.schedule import learning_rate
from cifar_cnn.training.step import TrainingStep
from cifar_cnn.training.totals import Totals
from cifar_cnn.training.update import Update

STEPS_BETWEEN_READINGS = {"cuda": 50}
"""Steps after which the running totals are read, 1 elsewhere: reading makes a device wait."""


class Trainer:
    """Trains a network; all that it needs to go on later is in `state_dict`.

    The order of the images, every augmentation and the network's own randomness (dropout) are
    functions of (seed, epoch, step) alone, so a run resumed at any step equals one never stopped.

    Args:
        settings: of the run, precision resolved.
        model: moved to the device and to channels-last memory.
        train: the training images.
        evaluation: the images to evaluate on after each epoch.
        device: where everything happens.
        processes: that train this network together, this one among them.
        eval_split: what those are called, `test` or `val`.
        teacher: a network to learn from, moved like `model`; or None.
        listeners: told of each step.
        should_stop: asked after each step and between the batches of an evaluation.
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
        eval_split: str = "test",
        teacher: nn.Module | None = None,
        listeners: Sequence[Listener] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.device = device
        self.threads = resolve_threads(settings.threads)
        self.processes = processes
        model = processes.prepare(model, device)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(model, settings)
        if teacher is not None:
            teacher = teacher.to(device).to(memory_format=torch.channels_last)
        self.training_step = TrainingStep(
            settings, self.model, self.optimizer, device, teacher, processes
        )
        self.average = WeightAverage(self.model, settings.ema) if settings.ema else None
        self.evaluation = evaluation
        self.eval_split = eval_split
        self.listeners = listeners
        self.should_stop = should_stop
        self.batches = TrainingBatches(settings, train, device)
        self.update = Update(self.training_step, self.batches, self.threads)
        self.steps_per_epoch = math.ceil(len(train) / settings.batch_size)
        self.cores = CoreTime(self.update.busy_threads)
        self.steps_between_readings = STEPS_BETWEEN_READINGS.get(device.type, 1)
        self.epoch = 0
        self.batch = 0
        self.seconds = 0.0

    @property
    def step(self) -> int:
        """Steps done since the run began."""
        return self.epoch * self.steps_per_epoch + self.batch

    @property
    def final_model(self) -> nn.Module:
        """The network that is evaluated and saved: the average of the weights, if there is one."""
        return self.average.model if self.average else self.model

    def epochs(self) -> Iterator[EpochRow]:
        """Train and evaluate epoch by epoch; ends early where `should_stop` says so."""
        while self.epoch < self.settings.epochs:
            self.train_epoch()
            if self.batch < self.steps_per_epoch:
                return
            try:
                row = self._evaluate_epoch()
            except EvaluationStopped:
                return
            self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
            self.training_step.totals.set(Totals())
            yield row
            if self.processes.any(self.should_stop()):
                return

    def train_epoch(self) -> None:
        """Run the epoch's remaining steps.

        Raises:
            RunError: a loss or gradient is not finite, the network fails, or memory is short.
        """
        size = self.settings.batch_size
        started = time.perf_counter() - self.seconds
        self.cores.start()
        order = self.batches.order(self.epoch)
        self.model.train()
        while self.batch < self.steps_per_epoch:
            chosen = order[self.batch * size : (self.batch + 1) * size]
            self.train_on(chosen)
            self.batch += 1
            if self.batch % self.steps_between_readings == 0:
                self.seconds = time.perf_counter() - started
                self._report(self.training_step.totals.latest())
            if self._must_stop():
                break
        refuse_divergence(self.training_step.totals.read(), self.settings, self.steps_per_epoch)
        self.seconds = time.perf_counter() - started
        if self.device.type == "cpu":
            self.cores.stop(self.epoch)

    def train_on(self, chosen: Tensor) -> None:
        """Do the step that is next with the training images of these indices."""
        share = self.processes.share(len(chosen))
        seed = derive_seed(self.settings.seed, Purpose.NETWORK, self.epoch, self.batch)
        self.training_step.prepare(self.step, self._learning_rate(self.step), share)
        try:
            self.update(chosen, self.epoch, self.batch, share, seed)
        except RunError as error:
            raise RunError(f"at epoch {self.epoch}, step {self.batch}: {error}") from error
        if self.average:
            self.average.update(self.model, self.step)

    def try_step(self) -> float:
        """Run one batch forward and backward, without an optimizer step; return its loss."""
        self.model.train()
        count = min(self.settings.batch_size, len(self.batches))
        chosen = torch.arange(count, device=self.device)
        batch = self.batches.at(chosen, self.epoch, self.batch)
        loss, _ = self.training_step.gradients(*batch)
        self.optimizer.zero_grad()
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here, the final model's state apart."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": self.seconds,
            "totals": asdict(self.training_step.totals.read()),
            "optimizer": self.optimizer.state_dict(),
            "model": self.model.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned.

        Raises:
            Exception: of any kind, where the state is another one.
        """
        if not 0 <= state["batch"] <= self.steps_per_epoch:
            raise ValueError(f"{state['batch']} steps of {self.steps_per_epoch} are done")
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.seconds = float(state["seconds"])
        self.training_step.totals.set(Totals(**state["totals"]))
        load_optimizer(self.optimizer, state["optimizer"])
        if self.average:
            self.model.load_state_dict(state["model"])

    def _must_stop(self) -> bool:
        """Ask, and agree; where asking the others makes a device wait, only now and then."""
        if self.processes.size > 1 and self.batch % self.steps_between_readings:
            return False
        return self.processes.any(self.should_stop())

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.settings, step, self.steps_per_epoch)

    def _report(self, totals: Totals) -> None:
        refuse_divergence(totals, self.settings, self.steps_per_epoch)
        if totals.samples == 0:  # nothing has arrived from the device yet
            return
        event = StepEnded(
            epoch=self.epoch,
            batch=self.batch - 1,
            loss=totals.loss / totals.samples,
            accuracy=totals.correct / totals.samples,
            lr=self._learning_rate(self.step - 1),
            images_per_second=self.batch * self.settings.batch_size / self.seconds,
        )
        for listener in self.listeners:
            listener(event)

    def _evaluate_epoch(self) -> EpochRow:
        totals = self.training_step.totals.read()
        result = evaluate_together(
            self.processes,
            self.final_model,
            self.evaluation,
            self.device,
            self.settings.precision,
            self.threads,
            self.should_stop,
        )
        return EpochRow(
            epoch=self.epoch,
            step=self.step,
            lr=self._learning_rate(self.step - 1),
            train_loss=totals.loss / totals.samples,
            train_accuracy=totals.correct / totals.samples,
            last_loss=totals.last_loss,
            batches=self.steps_per_epoch,
            eval_split=self.eval_split,
            eval_loss=result.loss,
            eval_correct=result.correct,
            eval_samples=result.samples,
            seconds=self.seconds,
            images_per_second=len(self.batches) / self.seconds,
        )
