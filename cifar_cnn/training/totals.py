"""What the steps of an epoch add up to, kept where the network runs."""

from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLES, LOSS, CORRECT, LAST_LOSS, FAILED_STEP, FAILED_LOSS = range(6)


@dataclass(frozen=True)
class Totals:
    """Sums over the epoch so far.

    Args:
        samples: images so far.
        loss: sum of the images' losses, in nats.
        correct: images whose largest output is the right one.
        last_loss: mean loss of the last batch.
        failed_step: the first step without a finite loss and gradient, -1 if there is none.
        failed_loss: the loss of that step.
    """

    samples: float = 0.0
    loss: float = 0.0
    correct: float = 0.0
    last_loss: float = 0.0
    failed_step: float = -1.0
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
        self.values.copy_(torch.tensor(list(vars(totals).values()), dtype=torch.float64))
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
