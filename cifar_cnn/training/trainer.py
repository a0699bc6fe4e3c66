"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.data.augment import apply, draw
from cifar_cnn.data.dataset import Split
from cifar_cnn.data.randomness import Purpose, derive_seed, generator
from cifar_cnn.errors import RunError, one_line
from cifar_cnn.inference.device import autocast
from cifar_cnn.inference.evaluate import evaluate_split
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.settings import Settings
from cifar_cnn.training.events import Listener, StepEnded
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.loss import classification_loss
from cifar_cnn.training.optimizer import make_optimizer
from cifar_cnn.training.schedule import learning_rate


@dataclass
class EpochSums:
    """Running sums of the epoch under way."""

    loss: float = 0.0
    correct: int = 0
    samples: int = 0
    seconds: float = 0.0
    last_loss: float = 0.0


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
        eval_split: what those are called, `test` or `val`.
        listeners: told of each step.
        should_stop: asked after each step.
    """

    def __init__(
        self,
        settings: Settings,
        model: nn.Module,
        train: Split,
        evaluation: Split,
        device: torch.device,
        *,
        eval_split: str = "test",
        listeners: Sequence[Listener] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.device = device
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(model, settings)
        self.evaluation = evaluation
        self.eval_split = eval_split
        self.listeners = listeners
        self.should_stop = should_stop
        self.images = train.images.to(self.device)
        self.labels = train.labels.to(self.device)
        self.steps_per_epoch = math.ceil(len(train) / settings.batch_size)
        self.epoch = 0
        self.batch = 0
        self.sums = EpochSums()

    @property
    def step(self) -> int:
        """Steps done since the run began."""
        return self.epoch * self.steps_per_epoch + self.batch

    def epochs(self) -> Iterator[EpochRow]:
        """Train and evaluate epoch by epoch; ends early where `should_stop` says so."""
        while self.epoch < self.settings.epochs:
            self.train_epoch()
            if self.batch < self.steps_per_epoch:
                return
            row = self._evaluate_epoch()
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, EpochSums()
            yield row
            if self.should_stop():
                return

    def train_epoch(self) -> None:
        """Run the epoch's remaining steps."""
        seed, size = self.settings.seed, self.settings.batch_size
        order = torch.randperm(
            len(self.labels), generator=generator(seed, Purpose.ORDER, self.epoch)
        ).to(self.device)
        self.model.train()
        while self.batch < self.steps_per_epoch:
            started = time.perf_counter()
            chosen = order[self.batch * size : (self.batch + 1) * size]
            lr = self._step(self.augmented(chosen), self.labels[chosen])
            self.sums.seconds += time.perf_counter() - started
            self._report(lr)
            self.batch += 1
            if self.should_stop():
                return

    def augmented(self, chosen: Tensor) -> Tensor:
        """Return the training images of these indices as this step's input, float32, augmented."""
        source = generator(self.settings.seed, Purpose.AUGMENTATION, self.epoch, self.batch)
        draws = draw(self.settings, len(chosen), source).to(self.device)
        images = apply(self.images[chosen], draws, self.settings.cutout_size)
        return images.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and how many images are right, both as tensors without a dimension."""
        settings = self.settings
        torch.manual_seed(derive_seed(settings.seed, Purpose.NETWORK, self.epoch, self.batch))
        with autocast(self.device, settings.precision):
            try:
                output = log_probabilities(self.model, images)
            except Exception as error:  # a user's network may raise anything
                raise RunError(
                    f"the network fails on a training batch of {len(labels)} at epoch "
                    f"{self.epoch}, step {self.batch}: {one_line(error)}"
                ) from error
            loss = classification_loss(output, labels, settings.label_smoothing)
        return loss, (output.argmax(dim=1) == labels).sum()

    def try_step(self) -> float:
        """Run one batch forward and backward, without an optimizer step; return its loss."""
        self.model.train()
        chosen = torch.arange(min(self.settings.batch_size, len(self.labels)), device=self.device)
        loss, _ = self.forward(self.augmented(chosen), self.labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad()
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here, the network's state apart."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": asdict(self.sums),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sums = EpochSums(**state["sums"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _step(self, images: Tensor, labels: Tensor) -> float:
        """Forward, backward, optimizer step; returns its learning rate."""
        settings = self.settings
        lr = learning_rate(settings, self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss, correct = self.forward(images, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise RunError(
                f"the loss is {value} at epoch {self.epoch}, step {self.batch}, learning rate "
                f"{lr:g}: nothing was saved over the last good checkpoint; try a lower --lr"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.sums.last_loss = value
        self.sums.loss += value * len(labels)
        self.sums.correct += int(correct)
        self.sums.samples += len(labels)
        return lr

    def _report(self, lr: float) -> None:
        sums = self.sums
        event = StepEnded(
            epoch=self.epoch,
            batch=self.batch,
            loss=sums.loss / sums.samples,
            accuracy=sums.correct / sums.samples,
            lr=lr,
            images_per_second=sums.samples / sums.seconds,
        )
        for listener in self.listeners:
            listener(event)

    def _evaluate_epoch(self) -> EpochRow:
        settings, sums = self.settings, self.sums
        result = evaluate_split(self.model, self.evaluation, self.device, settings.precision)
        step = (self.epoch + 1) * self.steps_per_epoch
        return EpochRow(
            epoch=self.epoch,
            step=step,
            lr=learning_rate(settings, step - 1, self.steps_per_epoch),
            train_loss=sums.loss / sums.samples,
            train_accuracy=sums.correct / sums.samples,
            last_loss=sums.last_loss,
            batches=self.steps_per_epoch,
            eval_split=self.eval_split,
            eval_loss=result.loss,
            eval_correct=result.correct,
            eval_samples=result.samples,
            seconds=sums.seconds,
            images_per_second=sums.samples / sums.seconds,
        )
