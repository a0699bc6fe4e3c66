"""A whole training step as one CUDA graph: its kernels start without Python between them."""

from collections.abc import Callable

import torch
from torch import Tensor

from cifar_cnn.data.mixup import Mix
from cifar_cnn.settings import Settings
from cifar_cnn.training.distill import runs_own_code
from cifar_cnn.training.distributed import Processes
from cifar_cnn.training.step import TrainingStep

WARM_UP_STEPS = 3


def can_capture(settings: Settings, processes: Processes) -> bool:
    """Say whether a step can be captured: of one process, and without the user's own code."""
    return processes.size == 1 and not runs_own_code(settings)


class GraphedUpdate:
    """`TrainingStep.update` for batches of one size, captured once and replayed.

    The first use runs a few steps, as capturing demands, and takes their effect back. Source:
    PyTorch's notes on CUDA graphs, "Whole-network capture".

    Args:
        step: what to capture; its optimizer's learning rate is a tensor on the device.
        images, labels, mix: a batch of the size to come.
    """

    def __init__(
        self, step: TrainingStep, images: Tensor, labels: Tensor, mix: Mix | None = None
    ) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        self.mix = None if mix is None else Mix(mix.partner.clone(), mix.share.clone())
        restore = remember(step)
        main = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                step.update(self.images, self.labels, self.mix)
        main.wait_stream(side)
        restore()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step.update(self.images, self.labels, self.mix)

    def __call__(self, images: Tensor, labels: Tensor, mix: Mix | None = None) -> None:
        """Learn from a batch."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        if self.mix is not None and mix is not None:
            self.mix.partner.copy_(mix.partner)
            self.mix.share.copy_(mix.share)
        self.graph.replay()


def remember(step: TrainingStep) -> Callable[[], None]:
    """Return a function that puts everything that `step.update` changes back as it is now.

    What the optimizer makes only at its first step (momentum) is zeroed instead: for SGD and AdamW
    the same.
    """
    optimizer = step.optimizer
    kept = [*step.model.parameters(), *step.model.buffers(), step.totals.values]
    copies = [tensor.detach().clone() for tensor in kept]
    before = {
        (parameter, key): value.clone()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }

    @torch.no_grad()
    def restore() -> None:
        for tensor, copy in zip(kept, copies, strict=True):
            tensor.copy_(copy)
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    value.copy_(before.get((parameter, key), torch.zeros_like(value)))

    return restore
