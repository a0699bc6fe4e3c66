"""Several processes as one run, started by PyTorch's launcher `torchrun`.

Each process takes its part of the same batch, and gradients are averaged, so that a step learns the
same from the same images however many there are.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cifar_cnn.errors import RunError
from cifar_cnn.models.module import buffers_of, move, parameters_of
from cifar_cnn.runtime import CPU, resolve_device
from cifar_cnn.training import is_launched


def local_rank() -> int:
    """Return this process's number among those of the run on this machine."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def own_device(name: str) -> torch.device:
    """Return the device of this process; each process on a machine has a GPU of its own."""
    device = resolve_device(name)
    if device.type == "cuda" and is_launched():
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    return device


@dataclass(frozen=True)
class Part:
    """One process's share of a batch.

    A network may not take an empty batch, so a process without images computes the first one, with
    weight 0.
    """

    images: slice
    weight: float  # of its mean loss in the mean over the processes
    count: int  # images in the whole batch


@dataclass(frozen=True)
class Processes:
    """Ranks of one distributed run, each with its device; by default this process alone."""

    device: torch.device = CPU
    rank: int = 0
    size: int = 1

    def part(self, count: int) -> Part:
        """Return this process's part of a batch of `count` images, a contiguous slice."""
        start, stop = (count * each // self.size for each in (self.rank, self.rank + 1))
        weight = (stop - start) * self.size / count
        return Part(slice(start, stop) if stop > start else slice(0, 1), weight, count)

    def prepare(self, model: nn.Module, *, channels_last: bool) -> nn.Module:
        """Return the network on the device, with the weights of rank 0.

        On CUDA its batch statistics are those of the whole batch, else of the process's part.
        """
        if self.size > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        model = move(model, self.device, channels_last=channels_last)
        self.agree(model)
        return model

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def over_all(self, loss: Tensor, correct: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        """Reduce a part's mean loss and correct count to those of the whole batch; see `apply`."""
        if self.size == 1:
            return loss, correct
        counted = correct if part.weight else torch.zeros_like(correct)
        both = self.sum(torch.stack([loss.detach().double(), counted.double()]))
        return both[0] / self.size, both[1]

    def average(self, tensors: list[Tensor], part: Part) -> None:
        """Turn means over this process's part into those over the whole batch, in place."""
        if self.size == 1:
            return
        flat = torch.cat([each.reshape(-1) for each in tensors])
        flat = self.sum(flat * (part.weight / self.size))
        means = torch.split(flat, [each.numel() for each in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, parameters: Sequence[nn.Parameter], part: Part) -> None:
        """Average the gradients; a parameter that no process has used keeps none."""
        if self.size == 1:
            return
        used = torch.ones(len(parameters), device=parameters[0].device)
        unused = [index for index, p in enumerate(parameters) if p.grad is None]
        used[unused] = 0
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.average([*gradients, used], part)
        for index in unused:
            parameters[index].grad = gradients[index] if used[index] else None

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Return (count, …) on the CPU from each process's rows, which are those of its part."""
        if self.size == 1:
            return rows
        part = self.part(count)
        everything = torch.zeros(count, *rows.shape[1:], dtype=rows.dtype, device=self._exchange)
        if part.weight:
            everything[part.images] = rows.to(everything)
        return self.sum(everything).cpu()

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - it is what the question is about
        """Return whether the flag is set on any rank; all ranks must call this together."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self._exchange)).item())

    def agree(self, model: nn.Module) -> None:
        """Give every process rank 0's parameters and buffers."""
        if self.size > 1:
            for tensor in (*parameters_of(model), *buffers_of(model)):
                shared = tensor.detach().contiguous()
                dist.broadcast(shared, 0)
                tensor.detach().copy_(shared)

    @property
    def _exchange(self) -> torch.device:
        """Where the tensors are that processes can exchange: nccl takes those on a GPU only."""
        return self.device if self.device.type == "cuda" else CPU

    def wait(self) -> None:
        """Wait until every process is here."""
        self.any(flag=False)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let one process of each machine go first: it may download what the others then find."""
        if local_rank() > 0:
            self.wait()
        yield
        if local_rank() == 0:
            self.wait()


ALONE = Processes()


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Make this process one of the run's: those that torchrun started, or this one alone.

    They exchange through nccl if the device of that name is CUDA, else through gloo.
    """
    own = own_device(device)
    if not is_launched():
        yield Processes(own)
        return
    # Optimizers import _dynamo. Imported after the group is made, it would keep the group, whose
    # threads can then abort a process that is about to end well (pytorch/pytorch#190489).
    import torch._dynamo  # noqa: F401

    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield Processes(own, dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise RunError(
                "another process of this run has ended: its own message says why"
            ) from error
        raise
    finally:
        dist.destroy_process_group()
