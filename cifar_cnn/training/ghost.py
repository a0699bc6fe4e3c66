"""A batch computed as ghost batches, by threads that meet once a step."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import torch
from torch import Tensor, nn

from cifar_cnn.data.augment import Mix
from cifar_cnn.models.layers.dropout import QuickDropout
from cifar_cnn.runtime import worker_threads
from cifar_cnn.training.step import TrainingStep

Batch = tuple[Tensor, Tensor, Mix | None]


@dataclass(frozen=True)
class _Replica:
    """The network with buffers, and random numbers, of its own; the parameters are the same."""

    model: nn.Module
    buffers: list[Tensor]
    generator: torch.Generator


class GhostBatches:
    """Computes the gradients of each batch in ghost batches of at most `ghost_batch_size` images.

    Each thread takes the next one that nobody has, so one whose core is shared with another
    program does fewer. What is added up is added up in their order: neither the number of threads
    nor their pace changes a bit, as long as there are no more threads than ghost batches.

    Normalization takes its statistics over a ghost batch (Hoffer, Hubara and Soudry, "Train longer,
    generalize better", 2017, section 4, "ghost batch normalization"); the running ones are the
    means of theirs.
    """

    def __init__(self, step: TrainingStep, threads: int) -> None:
        self.step = step
        self.parameters = [p for p in step.model.parameters() if p.requires_grad]
        largest = step.processes.part(step.settings.batch_size).images
        self.count = len(self.cut(largest))
        self.replicas = [_replica(step.model) for _ in range(self.count)]
        self.workers = worker_threads(threads, self.count)

    def cut(self, images: slice) -> list[slice]:
        """Return the ghost batches of a part of a batch: as equal as they can be."""
        size = self.step.settings.ghost_batch_size
        count = images.stop - images.start
        number = -(-count // size)
        bounds = [images.start + count * each // number for each in range(number + 1)]
        return [slice(*ends) for ends in pairwise(bounds)]

    def update(self, batch_of: Callable[[slice], Batch], seed: int) -> None:
        """Learn from the part that `step.prepare` was given; `batch_of` returns images of it."""
        part = self.step.part
        cut = self.cut(part.images)
        first = self.step.processes.rank * self.count

        def compute(number: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            replica = self.replicas[number]
            replica.generator.manual_seed((seed + first + number) % 2**64)
            for own, common in zip(replica.buffers, self.step.model.buffers(), strict=True):
                own.copy_(common)
            batch = batch_of(cut[number])
            weight = len(batch[0]) / (part.images.stop - part.images.start)
            loss, correct = self.step.forward(*batch, network=replica.model)
            loss = loss * weight
            return loss.detach(), correct, torch.autograd.grad(loss, self.parameters)

        with self.step.explaining_memory(cut[0].stop - cut[0].start):
            results = [*self.workers.map(compute, range(len(cut)))]
        losses, corrects, gradients = zip(*results, strict=True)
        for parameter, each in zip(self.parameters, zip(*gradients, strict=True), strict=True):
            parameter.grad = reduce(add, each)
        self._keep_statistics(self.replicas[: len(cut)])
        means = [p.grad for p in self.parameters if p.grad is not None]
        means += [each for each in self.step.model.buffers() if each.is_floating_point()]
        self.step.processes.average(means, part)
        self.step.apply(reduce(add, losses) * part.weight, reduce(add, corrects))

    @torch.no_grad()
    def _keep_statistics(self, replicas: list[_Replica]) -> None:
        all_of_them = zip(*(each.buffers for each in replicas), strict=True)
        for common, own in zip(self.step.model.buffers(), all_of_them, strict=True):
            common.copy_(reduce(add, own) / len(own) if common.is_floating_point() else own[0])


def _replica(model: nn.Module) -> _Replica:
    twin = copy.deepcopy(model, {id(each): each for each in model.parameters()}).train()
    generator = torch.Generator()
    for module in twin.modules():
        if isinstance(module, QuickDropout):
            module.generator = generator
    return _Replica(twin, list(twin.buffers()), generator)
