"""Where a network runs, and in which arithmetic."""

import os
from contextlib import AbstractContextManager

import torch

from cifar_cnn.errors import RequestError


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        RequestError: this machine has no such device.
    """
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
    """Say whether the processor has bfloat16 arithmetic, from its capability flags alone."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        flags = torch.cpu.get_capabilities()
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
    return False


def resolve_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 where the processor has it."""
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network runs in bf16 where that is safe; none for fp32.

    Without the cache of converted weights, which all threads would share and each one empty.
    """
    enabled = precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def configure_cuda(*, deterministic: bool) -> None:
    """Have CUDA choose the quickest kernels, or else those that always give the same bits.

    Source: PyTorch's notes on reproducibility.
    """
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether torch raised this because the device, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
