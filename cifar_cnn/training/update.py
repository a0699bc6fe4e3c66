"""Update a network by a batch: in ghost batches, as a CUDA graph, or in one pass."""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from operator import add

import torch
from torch import Tensor, nn

from cifar_cnn.data.augment import Mix, Purpose, derive_seed, seed_network
from cifar_cnn.errors import one_line
from cifar_cnn.models.layers.dropout import QuickDropout
from cifar_cnn.models.module import set_training, unchanged
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.runtime import torch_threads, worker_threads
from cifar_cnn.training.batches import TrainingBatches
from cifar_cnn.training.step import TrainingStep

WARM_UP_STEPS = 3
MOST_EXAMINED, MOST_NAMED = 1000, 3
"""Images whose loss is computed alone where a step fails, and those that the error names."""

Batch = tuple[Tensor, Tensor, Mix | None]
Learn = Callable[[Tensor, Tensor, Mix | None], None]


class Update:
    """Learns from one batch after another, in the way that the settings and the device allow."""

    def __init__(
        self, step: TrainingStep, batches: TrainingBatches, threads: int, notes: list[str]
    ) -> None:
        self.step = step
        self.batches = batches
        self.threads = threads
        self.notes = notes
        self.replay: Learn | None = None
        self.ghosts: GhostBatches | None = None
        self.busy_threads = 1  # that compute all the time
        built_in = is_built_in(step.settings.model)  # other code may do anything
        self.captures = step.device.type == "cuda" and step.processes.size == 1 and built_in
        if step.settings.ghost_batch_size and step.device.type == "cpu" and built_in:
            self.ghosts = GhostBatches(step, threads)
            self.busy_threads = min(threads, self.ghosts.count)
            self.threads = 1  # outside of the ghost batches

    def __call__(self, epoch: int, index: int, lr: float) -> None:
        """Learn from this process's part of the batch of that index within its epoch."""
        step, batches = self.step, self.batches
        part = step.processes.part(batches.size(index))
        seed = derive_seed(step.settings.seed, Purpose.NETWORK, epoch, index)
        step.prepare(epoch * batches.per_epoch + index, lr, part)
        with torch_threads(self.threads):
            if self.ghosts:
                self.ghosts.update(partial(batches.at, epoch, index), seed)
                return
            batch = batches.at(epoch, index, part.images)
            is_full = part.count == step.settings.batch_size
            if is_full and self.captures and not self.replay:
                try:
                    self.replay = capture(step, *batch)
                except Exception as error:  # noqa: BLE001 - a driver or an operation refuses it
                    self.captures = False
                    self.notes.append(
                        "a training step cannot be captured as a CUDA graph, so this run goes on "
                        f"without one: {one_line(error)}"
                    )
            seed_network(step.device, (seed + step.processes.rank) % 2**64)
            learn = self.replay if is_full and self.replay else step.update
            learn(*batch)

    def describe_failing_images(self, epoch: int, index: int) -> str:
        """Return which images of a batch have a loss that is not finite; nothing if all have one.

        Each image is computed as a batch of its own, twice for the sake of batch normalization.
        """
        failing: list[str] = []
        images, labels, _ = self.batches.at(epoch, index)
        names = self.batches.names(epoch, index)[:MOST_EXAMINED]
        with suppress(Exception), unchanged(self.step.model), torch.no_grad():
            set_training(self.step.model, True)
            for number, name in enumerate(names):
                twice = [number, number]
                loss, _ = self.step.forward(images[twice], labels[twice])
                failing += [] if bool(loss.isfinite()) else [name]
        if len(failing) in {0, len(names)}:
            return ""
        more = f" and {len(failing) - MOST_NAMED} more" if len(failing) > MOST_NAMED else ""
        return f", of training image {', '.join(failing[:MOST_NAMED])}{more}"

    def free(self) -> None:
        """Free the working memory, once no batch is left to learn from."""
        self.replay = self.ghosts = None
        self.batches.free()


def capture(step: TrainingStep, images: Tensor, labels: Tensor, mix: Mix | None) -> Learn:
    """Capture `TrainingStep.update` for batches of this size; return a function that replays it.

    The few steps that capturing demands first are taken back. Source: PyTorch's notes on CUDA
    graphs, "Whole-network capture".
    """
    images, labels = images.clone(), labels.clone()
    mix = Mix(mix.partner.clone(), mix.fraction.clone()) if mix else None
    restore = remember(step)
    main = torch.cuda.current_stream()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    try:
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                step.update(images, labels, mix)
        main.wait_stream(side)
    finally:
        restore()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.update(images, labels, mix)

    def replay_graph(new_images: Tensor, new_labels: Tensor, new_mix: Mix | None) -> None:
        images.copy_(new_images)
        labels.copy_(new_labels)
        if mix and new_mix:
            mix.partner.copy_(new_mix.partner)
            mix.fraction.copy_(new_mix.fraction)
        graph.replay()

    return replay_graph


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
        for tensor, value in zip(kept, copies, strict=True):
            tensor.copy_(value)
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    value.copy_(before.get((parameter, key), torch.zeros_like(value)))

    return restore


@dataclass(frozen=True)
class _Replica:
    """The network with buffers, and random numbers, of its own; the parameters are the same."""

    model: nn.Module
    buffers: list[Tensor]
    generator: torch.Generator


def _replicate(model: nn.Module) -> _Replica:
    twin = copy.deepcopy(model, {id(each): each for each in model.parameters()}).train()
    generator = torch.Generator()
    for module in twin.modules():
        if isinstance(module, QuickDropout):
            module.generator = generator
    return _Replica(twin, list(twin.buffers()), generator)


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
        self.count = len(self.cut(step.processes.part(step.settings.batch_size).images))
        self.replicas = [_replicate(step.model) for _ in range(self.count)]
        self.workers = worker_threads(threads, self.count)

    def cut(self, images: slice) -> list[slice]:
        """Cut a part of a batch into ghost batches of equal size, to within one image."""
        count = images.stop - images.start
        number = -(-count // self.step.settings.ghost_batch_size)
        bounds = [images.start + count * each // number for each in range(number + 1)]
        return [slice(*ends) for ends in pairwise(bounds)]

    def update(self, batch_of: Callable[[slice], Batch], seed: int) -> None:
        """Learn from the part that `step.prepare` was given; `batch_of` returns images of it."""
        step, part = self.step, self.step.part
        cut = self.cut(part.images)
        seed += step.processes.rank * self.count

        def compute(number: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            replica = self.replicas[number]
            replica.generator.manual_seed((seed + number) % 2**64)
            for own, common in zip(replica.buffers, step.model.buffers(), strict=True):
                own.copy_(common)
            batch = batch_of(cut[number])
            weight = len(batch[0]) / (part.images.stop - part.images.start)
            loss, correct = step.forward(*batch, network=replica.model)
            loss = loss * weight
            return loss.detach(), correct, torch.autograd.grad(loss, self.parameters)

        with step.explaining_memory(cut[0].stop - cut[0].start):
            results = [*self.workers.map(compute, range(len(cut)))]
        losses, corrects, gradients = zip(*results, strict=True)
        for parameter, each in zip(self.parameters, zip(*gradients, strict=True), strict=True):
            parameter.grad = reduce(add, each)
        self._keep_statistics(self.replicas[: len(cut)])
        means = [p.grad for p in self.parameters if p.grad is not None]
        means += [each for each in step.model.buffers() if each.is_floating_point()]
        step.processes.average(means, part)
        step.apply(reduce(add, losses) * part.weight, reduce(add, corrects))

    @torch.no_grad()
    def _keep_statistics(self, replicas: list[_Replica]) -> None:
        buffers = zip(*(each.buffers for each in replicas), strict=True)
        for common, own in zip(self.step.model.buffers(), buffers, strict=True):
            common.copy_(reduce(add, own) / len(own) if common.is_floating_point() else own[0])
