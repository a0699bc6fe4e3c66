"""One step of training: forward, backward, update."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cifar_cnn.data.mixup import Mix
from cifar_cnn.errors import RunError, one_line
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.runtime import autocast, is_out_of_memory
from cifar_cnn.settings import Settings
from cifar_cnn.training.distill import distillation_loss
from cifar_cnn.training.distributed import ALONE, Processes, Share
from cifar_cnn.training.loss import classification_loss
from cifar_cnn.training.totals import RunningTotals


class TrainingStep:
    """Updates a network by one batch after another, without waiting for the device.

    A loss or gradient that is not finite leaves the weights as they are, and its step's number in
    the totals.

    Args:
        settings: of the run, precision resolved.
        model: on the device.
        optimizer: torch's, fused: it leaves out an update by its `found_inf`, as for gradient
            scaling (`torch.amp.GradScaler`).
        device: where everything happens.
        teacher: a network to learn from, in evaluation mode on the device; or None.
        processes: that share each batch; all of them learn the same.
    """

    def __init__(
        self,
        settings: Settings,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        teacher: nn.Module | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.settings = settings
        self.model = model
        self.optimizer = optimizer
        self.device = device
        self.teacher = teacher
        self.processes = processes
        self.network = processes.wrap(model)
        self.share = processes.share(settings.batch_size)
        self.totals = RunningTotals(device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)

    def prepare(self, number: int, lr: float, share: Share) -> None:
        """Say which step of the run comes next, its learning rate, and this process's share."""
        self.share = share
        self.number.fill_(number)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def update(self, images: Tensor, labels: Tensor, mix: Mix | None = None) -> None:
        """Learn from this process's share of a batch.

        Args:
            images: float32 (N, 3, H, W), mixed as `mix` says.
            labels: int64 (N or more), those of the images first.
            mix: its partners are indices into `labels`.

        Raises:
            RunError: the network fails on the batch, or there is no memory for it.
        """
        self.apply(*self.gradients(images, labels, mix))

    def apply(self, loss: Tensor, correct: Tensor) -> None:
        """Take the step that the gradients at the parameters say.

        Args:
            loss: mean of this process's share of the batch, times the share's weight.
            correct: images of the share that are right.
        """
        loss, correct = self._over_all(loss, correct)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        failed = ~torch.isfinite(loss.detach() + norm)
        self.optimizer.found_inf = failed.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.totals.add(loss, correct, self.share.count, self.number, failed)

    def gradients(
        self, images: Tensor, labels: Tensor, mix: Mix | None = None
    ) -> tuple[Tensor, Tensor]:
        """Leave the batch's gradients at the parameters; return what `forward` returns.

        Raises:
            RunError: as `update` does.
        """
        with self.explaining_memory(len(images)):
            loss, correct = self.forward(images, labels, mix)
            self.optimizer.zero_grad()
            if self.processes.size > 1:
                loss = loss * self.share.weight
            loss.backward()  # type: ignore[no-untyped-call]
        return loss, correct

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        mix: Mix | None = None,
        *,
        network: nn.Module | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss and how many images are right, both without a dimension.

        Args:
            images: as in `update`.
            labels: as in `update`.
            mix: as in `update`.
            network: another one than the step's own.
        """
        settings = self.settings
        with autocast(self.device, settings.precision):
            try:
                output = log_probabilities(network or self.network, images)
            except Exception as error:  # a user's network may raise anything
                if is_out_of_memory(error):
                    raise
                raise RunError(
                    f"the network fails on a training batch of {len(images)}: {one_line(error)}"
                ) from error
            loss = classification_loss(output, labels, settings.label_smoothing, mix)
            if self.teacher is not None:
                with torch.no_grad():
                    lesson = log_probabilities(self.teacher, images).to(output.dtype)
                distance = distillation_loss(output, lesson, settings.distill_temperature)
                loss = torch.lerp(loss, distance, settings.distill_alpha)
        return loss, (output.argmax(dim=1) == labels[: len(output)]).sum()

    def _over_all(self, loss: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the whole batch, and how many of its images are right."""
        if self.processes.size == 1:
            return loss, correct
        counted = correct if self.share.weight else torch.zeros_like(correct)
        both = self.processes.sum(torch.stack([loss.detach().double(), counted.double()]))
        return both[0] / self.processes.size, both[1]

    @contextmanager
    def explaining_memory(self, count: int) -> Iterator[None]:
        """Turn torch's error about memory into one that says what to do.

        Raises:
            RunError: there is no memory for a batch of `count` images.
        """
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            smaller = max(self.settings.batch_size // 2, 1)
            raise RunError(
                f"out of memory on {self.device} with a batch of {count} images: "
                f"try --batch-size {smaller}"
            ) from error
