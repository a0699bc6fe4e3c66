"""How a batch becomes an update: in parts, as a captured graph, or at once."""

from functools import partial

from torch import Tensor

from cifar_cnn.data.randomness import seed_network
from cifar_cnn.runtime import torch_threads
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.cuda_graph import GraphedUpdate, can_capture
from cifar_cnn.training.distill import runs_own_code
from cifar_cnn.training.distributed import Share
from cifar_cnn.training.parts import Parts
from cifar_cnn.training.step import TrainingStep


class Update:
    """Learns from one batch after another, in the way that the settings and the device allow.

    Args:
        step: what is done with a batch.
        batches: that make the step's input.
        threads: of this process.
    """

    def __init__(self, step: TrainingStep, batches: TrainingBatches, threads: int) -> None:
        self.step = step
        self.batches = batches
        self.threads = threads
        self.graphed: GraphedUpdate | None = None
        self.parts: Parts | None = None
        self.busy_threads = 1  # that compute all the time
        settings, on_cpu = step.settings, step.device.type == "cpu"
        if settings.ghost_batch_size and on_cpu and not runs_own_code(settings):
            self.parts = Parts(step, threads)
            self.busy_threads = min(threads, self.parts.count)
            self.threads = 1  # outside of the parts

    def __call__(self, chosen: Tensor, epoch: int, batch: int, share: Share, seed: int) -> None:
        """Learn from the training images of these indices, as far as they are in the share.

        Args:
            chosen: int64 (N), of the whole batch.
            epoch: of the batch.
            batch: its number within the epoch.
            share: what this process does of it.
            seed: 64 bits, of what the network draws.

        Raises:
            RunError: the network fails on the batch, or there is no memory for it.
        """
        with torch_threads(self.threads):
            if self.parts:
                self.parts.update(partial(self.batches.at, chosen, epoch, batch), seed)
                return
            seed_network(self.step.device, (seed + self.step.processes.rank) % 2**64)
            images, labels, mix = self.batches.at(chosen, epoch, batch, share.images)
            if self._captures(len(images)):
                self.graphed = self.graphed or GraphedUpdate(self.step, images, labels, mix)
                self.graphed(images, labels, mix)
            else:
                self.step.update(images, labels, mix)

    def _captures(self, count: int) -> bool:
        settings = self.step.settings
        full = count == settings.batch_size
        return (
            self.step.device.type == "cuda" and full and can_capture(settings, self.step.processes)
        )
