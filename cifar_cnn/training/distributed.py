"""Several processes as one run, started by PyTorch's launcher `torchrun`.

Each process takes its part of the same batch, and gradients are averaged, so that a step learns the
same from the same images however many there are.
How a process was started is asked before torch is there, so each function imports what it needs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_cnn.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def is_launched() -> bool:
    """Return whether torchrun started this process: all four of its variables are set."""
    return {"TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def rank() -> int:
    """Return this process's number among those of the run; 0 prints and writes."""
    return int(os.environ["RANK"]) if is_launched() else 0


def local_rank() -> int:
    """Return this process's number among those of the run on this machine."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def is_main_process() -> bool:
    """Return whether this process prints and writes files."""
    return rank() == 0


def own_device(name: str) -> "torch.device":
    """Return the device of this process; each process on a machine has a GPU of its own."""
    from cifar_cnn.runtime import resolve_device

    device = resolve_device(name)
    if device.type == "cuda" and is_launched():
        import torch

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
    """Ranks of one distributed run; by default this process alone."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def part(self, count: int) -> Part:
        """Return this process's part of a batch of `count` images, a contiguous slice."""
        start, stop = (count * each // self.size for each in (self.rank, self.rank + 1))
        weight = (stop - start) * self.size / count
        return Part(slice(start, stop) if stop > start else slice(0, 1), weight, count)

    def prepare(self, model: "nn.Module", device: "torch.device") -> "nn.Module":
        """Return the network with batch statistics of the whole batch, where torch can do that.

        On CUDA it has SyncBatchNorm; on the CPU they are those of the process's part.
        """
        if self.size == 1 or device.type != "cuda":
            return model
        from torch import nn

        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
            model
        )
        return converted

    def sum(self, values: "Tensor") -> "Tensor":
        """Return the sum over the processes."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values

    def over_all(self, loss: "Tensor", correct: "Tensor", part: Part) -> "tuple[Tensor, Tensor]":
        """Reduce a part's mean loss and correct count to those of the whole batch; see `apply`."""
        if self.size == 1:
            return loss, correct
        import torch

        counted = correct if part.weight else torch.zeros_like(correct)
        both = self.sum(torch.stack([loss.detach().double(), counted.double()]))
        return both[0] / self.size, both[1]

    def average(self, tensors: "list[Tensor]", part: Part) -> None:
        """Turn means over this process's part into those over the whole batch, in place."""
        if self.size == 1:
            return
        import torch

        flat = torch.cat([each.reshape(-1) for each in tensors])
        flat = self.sum(flat * (part.weight / self.size))
        means = torch.split(flat, [each.numel() for each in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, parameters: Sequence["nn.Parameter"], part: Part) -> None:
        """Average the gradients; a parameter that no process has used keeps none."""
        if self.size == 1:
            return
        import torch

        used = torch.ones(len(parameters), device=parameters[0].device)
        unused = [index for index, p in enumerate(parameters) if p.grad is None]
        used[unused] = 0
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.average([*gradients, used], part)
        for index in unused:
            parameters[index].grad = gradients[index] if used[index] else None

    def gather(self, rows: "Tensor", count: int) -> "Tensor":
        """Return (count, …) on the CPU from each process's rows, which are those of its part."""
        if self.size == 1:
            return rows
        import torch

        part = self.part(count)
        everything = torch.zeros(count, *rows.shape[1:], dtype=rows.dtype, device=_exchange())
        if part.weight:
            everything[part.images] = rows.to(everything)
        return self.sum(everything).cpu()

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - it is what the question is about
        """Return whether the flag is set on any rank; all ranks must call this together."""
        if self.size == 1:
            return flag
        import torch

        return bool(self.sum(torch.tensor(float(flag), device=_exchange())).item())

    def agree(self, model: "nn.Module") -> None:
        """Give every process rank 0's parameters and buffers."""
        if self.size > 1:
            import torch.distributed as dist

            from cifar_cnn.models.module import buffers_of, parameters_of

            for tensor in (*parameters_of(model), *buffers_of(model)):
                shared = tensor.detach().contiguous()
                dist.broadcast(shared, 0)
                tensor.detach().copy_(shared)

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


def _exchange() -> str:
    """Return where the tensors are that processes can exchange."""
    import torch.distributed as dist

    return "cuda" if dist.get_backend() == "nccl" else "cpu"


@contextmanager
def join(device: "torch.device") -> Iterator[Processes]:
    """Make this process one of the run's: those that torchrun started, or this one alone.

    They exchange through nccl where they compute on CUDA, else through gloo.
    """
    if not is_launched():
        yield ALONE
        return
    # Optimizers import _dynamo. Imported after the group is made, it would keep the group, whose
    # threads can then abort a process that is about to end well (pytorch/pytorch#190489).
    import torch._dynamo  # noqa: F401
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise RunError(
                "another process of this run has ended: its own message says why"
            ) from error
        raise
    finally:
        dist.destroy_process_group()
