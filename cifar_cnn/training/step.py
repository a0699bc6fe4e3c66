"""One step of training: forward, loss, backward, update, and the running totals."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.data.augment import Mix
from cifar_cnn.errors import counted
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import parameters_of
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.runtime import autocast, explaining_memory
from cifar_cnn.settings import Settings
from cifar_cnn.training.distributed import ALONE, Part, Processes
from cifar_cnn.training.optimizer import make_optimizer

MOST_LISTED = 10
"""Classes whose weights are listed; of more, the lightest and the heaviest."""
SAMPLES, LOSS, CORRECT, LAST_LOSS, FAILED_STEP, FAILED_LOSS = range(6)


class Totals(NamedTuple):
    """Sums over the images of the epoch so far; losses in nats."""

    samples: float = 0.0
    loss: float = 0.0
    correct: float = 0.0
    last_loss: float = 0.0  # mean of the last batch
    failed_step: float = -1.0  # the first without a finite loss and gradient
    failed_loss: float = 0.0


class RunningTotals:
    """Adds up on the device, so that a step need not wait for the one before it to be read."""

    def __init__(self, device: torch.device) -> None:
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.values = torch.zeros(6, dtype=precise, device=device)
        self._arrived = torch.zeros(6, dtype=precise, pin_memory=device.type == "cuda")
        self._copied: torch.cuda.Event | None = None
        self.set(Totals())

    def add(self, loss: Tensor, correct: Tensor, count: int, step: Tensor, failed: Tensor) -> None:
        """Add a batch of `count` images; `failed` (bool) keeps it out and notes its step."""
        first = failed & (self.values[FAILED_STEP] < 0)
        loss = loss.detach().to(self.values)
        kept = ~failed
        self.values[SAMPLES] += torch.where(kept, count, 0)
        self.values[LOSS] += torch.where(kept, loss * count, 0.0)
        self.values[CORRECT] += torch.where(kept, correct, 0)
        self.values[LAST_LOSS] = loss
        self.values[FAILED_STEP] = torch.where(first, step, self.values[FAILED_STEP])
        self.values[FAILED_LOSS] = torch.where(first, loss, self.values[FAILED_LOSS])

    def set(self, totals: Totals) -> None:
        """Start from these."""
        self.values.copy_(torch.tensor(totals, dtype=torch.float64))
        self._copied = None

    def read(self) -> Totals:
        """Return the totals now, waiting for the device."""
        return Totals(*self.values.tolist())

    def latest(self) -> Totals:
        """Return totals without waiting: on CUDA those at the call before this one."""
        if self.values.device.type != "cuda":
            return self.read()
        arrived = Totals()
        if self._copied is not None:
            self._copied.synchronize()
            arrived = Totals(*self._arrived.tolist())
        self._arrived.copy_(self.values, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()
        return arrived


class TrainingStep:
    """Updates a network by one batch after another, without waiting for the device.

    A loss or gradient that is not finite is noted in the totals, with its step's number. The
    weights stay as they are then, whatever the optimizer; on CUDA, where nothing is read, if it
    knows `found_inf` as torch's fused ones do, and else the run ends before they are saved.
    """

    def __init__(
        self,
        settings: Settings,
        model: nn.Module,
        processes: Processes = ALONE,
        class_weights: Tensor | None = None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.optimizer = make_optimizer(model, settings)
        self.device = device = processes.device
        self.processes = processes
        self.class_weights = class_weights  # float32 (classes), on the device
        self.part = processes.part(settings.batch_size)
        self.totals = RunningTotals(device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)

    def prepare(self, number: int, lr: float, part: Part) -> None:
        """Set the number of the next step, its learning rate, and this process's part."""
        self.part = part
        self.number.fill_(number)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def update(self, images: Tensor, labels: Tensor, mix: Mix | None = None) -> None:
        """Learn from this process's part of a batch.

        Images are float32 (N, 3, H, W), mixed as `mix` says, whose partners are indices into the
        labels: int64 (N or more), those of the images first.
        """
        failing = f"the network fails on a training batch of {len(images)}"
        with guarded(failing, model=self.model), self.explaining_memory(len(images)):
            loss, correct = self.forward(images, labels, mix)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        trained = [p for p in parameters_of(self.model) if p.requires_grad]
        self.processes.average_gradients(trained, self.part)
        if self.processes.size > 1:
            loss = loss * self.part.weight
        self.apply(loss, correct)

    def explaining_memory(self, count: int) -> AbstractContextManager[None]:
        """Return the context in which a lack of memory for so many images is one line."""
        remedy = f"--batch-size {max(self.settings.batch_size // 2, 1)}"
        return explaining_memory(self.device, f"with a batch of {counted(count, 'image')}", remedy)

    def apply(self, loss: Tensor, correct: Tensor) -> None:
        """Take a step: `loss` is the mean of the part times its weight, `correct` a number."""
        loss, correct = self.processes.over_all(loss, correct, self.part)
        gradients = [p.grad for p in parameters_of(self.model) if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        failed = ~torch.isfinite(loss.detach() + norm)
        if self.device.type == "cuda":
            self.optimizer.found_inf = failed.float()  # type: ignore[attr-defined]
        if self.device.type == "cuda" or not failed:
            with guarded("the optimizer's step fails", model=self.model):
                self.optimizer.step()
        self.totals.add(loss, correct, self.part.count, self.number, failed)

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        mix: Mix | None = None,
        *,
        network: nn.Module | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the number of correct images; inputs are as in `update`."""
        settings = self.settings
        with autocast(self.device, settings.precision):
            output = log_probabilities(self.model if network is None else network, images)
            loss = classification_loss(
                output, labels, settings.label_smoothing, mix, self.class_weights
            )
        return loss, (output.argmax(dim=1) == labels[: len(output)]).sum()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Return float64 (classes): images / (classes that occur * images of the class); 0 for none.

    Labels are int64 (N), of all training images. The mean of the weights over them is 1. Source:
    scikit-learn's `compute_class_weight("balanced")`.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    weights = len(labels) / ((counts > 0).sum() * counts)
    return weights.where(counts > 0, 0.0)


def describe_weights(weights: Tensor, classes: Sequence[str]) -> str:
    """Return the line that says how much each class counts; of many, the lightest and heaviest."""
    pairs = [*zip(weights.tolist(), classes, strict=True)]
    if len(pairs) <= MOST_LISTED:
        return f"class weights: {', '.join(f'{name} {weight:.3g}' for weight, name in pairs)}"
    (least, light), (most, heavy) = min(pairs), max(pairs)
    return f"class weights: from {least:.3g} ({light}) to {most:.3g} ({heavy})"


def classification_loss(
    log_probabilities: Tensor,
    labels: Tensor,
    smoothing: float,
    mix: Mix | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean negative log-likelihood in nats of (N, classes), with label smoothing.

    `smoothing` is the fraction of the target spread over all classes (Szegedy et al., "Rethinking
    the Inception Architecture", 2016, section 7). With `mix`, each label counts by its image's
    fraction (Zhang et al., "mixup", 2018, equation 1). `weights` (classes) scale each class's part
    of the target; the sum is divided by the number of images, so that parts of a batch add up.
    """

    def each(labels: Tensor) -> Tensor:
        return F.nll_loss(log_probabilities, labels, weights, reduction="none")

    if weights is not None:
        weights = weights.to(log_probabilities.dtype)
    if mix is not None:
        own, others = each(labels[: len(log_probabilities)]), each(labels[mix.partner])
        loss = own.lerp(others, mix.fraction.to(own.dtype)).mean()
    elif weights is not None:
        loss = each(labels).mean()
    else:
        loss = F.nll_loss(log_probabilities, labels)
    if smoothing == 0:
        return loss
    spread = log_probabilities if weights is None else log_probabilities * weights
    return (1 - smoothing) * loss - smoothing * spread.mean()
