"""How a batch becomes an update: as ghost batches, as one captured CUDA graph, or at once."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cifar_cnn.data.augment import Mix
from cifar_cnn.data.randomness import Purpose, derive_seed, seed_network
from cifar_cnn.errors import one_line
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.runtime import torch_threads
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.ghost import GhostBatches
from cifar_cnn.training.step import TrainingStep

WARM_UP_STEPS = 3


class Update:
    """Learns from one batch after another, in the way that the settings and the device allow."""

    def __init__(self, step: TrainingStep, batches: TrainingBatches, threads: int) -> None:
        self.step = step
        self.batches = batches
        self.threads = threads
        self.graphed: GraphedUpdate | None = None
        self.ghosts: GhostBatches | None = None
        self.busy_threads = 1  # that compute all the time
        self.notes: list[str] = []
        settings, processes = step.settings, step.processes
        known = is_built_in(settings.model)  # of the user's own code nothing is known
        self.captures = step.device.type == "cuda" and processes.size == 1 and known
        if settings.ghost_batch_size and step.device.type == "cpu" and known:
            self.ghosts = GhostBatches(step, threads)
            self.busy_threads = min(threads, self.ghosts.count)
            self.threads = 1  # outside of the ghost batches

    def __call__(self, epoch: int, index: int, lr: float) -> None:
        """Learn from this process's part of the batch of that index within its epoch.

        Raises:
            RunError: the network fails on the batch, or there is no memory for it.
        """
        step, batches = self.step, self.batches
        part = step.processes.part(batches.size(index))
        seed = derive_seed(step.settings.seed, Purpose.NETWORK, epoch, index)
        step.prepare(epoch * batches.per_epoch + index, lr, part)
        with torch_threads(self.threads):
            if self.ghosts:
                self.ghosts.update(partial(batches.at, epoch, index), seed)
                return
            images, labels, mix = batches.at(epoch, index, part.images)
            full = part.count == step.settings.batch_size
            if full and self.captures and not self.graphed:
                self._capture(images, labels, mix)
            seed_network(step.device, (seed + step.processes.rank) % 2**64)
            update = self.graphed if full and self.graphed else step.update
            update(images, labels, mix)

    def _capture(self, images: Tensor, labels: Tensor, mix: Mix | None) -> None:
        try:
            self.graphed = GraphedUpdate(self.step, images, labels, mix)
        except Exception as error:  # noqa: BLE001 - whatever a driver or an operation has against it
            self.captures = False
            self.notes.append(
                "a training step cannot be captured as a CUDA graph, so this run goes on without "
                f"one: {one_line(error)}"
            )

    def free(self) -> None:
        """Give working memory back, once no batch is left to learn from."""
        self.graphed = self.ghosts = None
        self.batches.free()


class GraphedUpdate:
    """`TrainingStep.update` for batches of one size, captured once and replayed.

    The first use runs a few steps, as capturing demands, and takes their effect back. Source:
    PyTorch's notes on CUDA graphs, "Whole-network capture".

    Args:
        step: what to capture; its optimizer's learning rate is a tensor on the device.
    """

    def __init__(
        self, step: TrainingStep, images: Tensor, labels: Tensor, mix: Mix | None = None
    ) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        self.mix = None if mix is None else Mix(mix.partner.clone(), mix.fraction.clone())
        restore = remember(step)
        main = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_STEPS):
                    step.update(self.images, self.labels, self.mix)
            main.wait_stream(side)
        finally:
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
            self.mix.fraction.copy_(mix.fraction)
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
