"""Where a network runs, in which arithmetic, and with which threads."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from cifar_cnn.errors import RequestError, RunError

CPU = torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else Apple's MPS, else the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"device {name} is not on this machine: use --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RequestError("device mps is not on this machine: use --device auto")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the processor has bfloat16 arithmetic, by its capability flags."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        flags = torch.cpu.get_capabilities()
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
    return False


def resolve_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 if the processor has it."""
    if name != "auto":
        return name
    return "bf16" if has_fast_bf16(device) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network runs in bf16 where that is safe, or as it is."""
    return torch.autocast(
        device.type,
        torch.bfloat16,
        enabled=precision == "bf16",
        cache_enabled=False,  # threads would share the converted weights, and each empty them
    )


def configure_cuda(*, deterministic: bool) -> None:
    """Let CUDA choose the fastest kernels, or the deterministic ones (PyTorch, Reproducibility)."""
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Restore the random states of torch, NumPy, Python and the current GPU, if it is in use."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = [torch.cuda.current_device()] if in_use else []
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(gpus):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _determinism() -> tuple[bool, bool]:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warn_only


_SWITCHES: Sequence[tuple[Callable[[], Any], Callable[[Any], object]]] = (
    (lambda: torch.backends.cudnn.benchmark, partial(setattr, torch.backends.cudnn, "benchmark")),
    (_determinism, lambda both: torch.use_deterministic_algorithms(both[0], warn_only=both[1])),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda d: torch.set_default_device(None if d.type == "cpu" else d)),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
)
"""How torch's switches are read and set."""


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Restore random states and torch's switches; also a decorator."""
    before = [(read, restore, read()) for read, restore in _SWITCHES]
    with random_numbers_kept():
        try:
            yield
        finally:
            for read, restore, value in before:
                if read() != value:  # to set some imports torch's compiler, or slows torch
                    restore(value)


@contextmanager
def explaining_memory(device: torch.device, doing: str, remedy: str) -> Iterator[None]:
    """Turn torch's error about memory into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate" not in str(error):
            raise
        raise RunError(f"out of memory on {device} {doing}: try {remedy}") from error


def resolve_threads(number: int) -> int:
    """Return the number of threads; 0 is torch's: all cores, or `OMP_NUM_THREADS`."""
    return number or torch.get_num_threads()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute torch's operations of the calling thread in `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def worker_threads(threads: int, most: int) -> ThreadPoolExecutor:
    """Return a pool of up to `most` threads, each with its share of all `threads` for torch.

    Torch's own threads meet at the end of every operation, hundreds of times in a training step,
    and wait for each other if another program takes one of the cores. These meet once.
    """
    count = min(threads, most)
    with torch_threads(torch.get_num_threads()):  # what one thread sets, others start with
        return ThreadPoolExecutor(
            count, initializer=torch.set_num_threads, initargs=(threads // count,)
        )
