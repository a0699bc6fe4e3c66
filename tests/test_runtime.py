import subprocess
import sys

import pytest
import torch

from cifar_cnn.errors import RequestError
from cifar_cnn.runtime import (
    configure_cuda,
    has_fast_bf16,
    resolve_device,
    resolve_precision,
)


def test_devices_and_precisions_of_this_machine():
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")
    assert resolve_device("cpu") == torch.device("cpu")
    assert has_fast_bf16(torch.device("cpu")) in (True, False)
    for name in ("fp32", "bf16"):
        assert resolve_precision(name, torch.device("cpu")) == name


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:7"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name):
    with pytest.raises(RequestError, match=f"device {name} is not on this machine"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_automatic_precision_follows_the_processors_flags(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert resolve_precision("auto", torch.device("cpu")) == expected


def test_determinism_reaches_torchs_switches(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    configure_cuda(deterministic=False)
    assert (calls, torch.backends.cudnn.benchmark) == ([], True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    configure_cuda(deterministic=True)
    assert (calls, torch.backends.cudnn.benchmark) == ([True], False)


FAULTS = """
import resource
import torch
from cifar_cnn import keep_freed_memory
keep_freed_memory()
def work():
    for _ in range(20):
        maps = [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(8)]
        del maps
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_freed_blocks_are_used_again_without_page_faults():
    """Left alone, glibc faults 0 or 300,000 times here, by chance: hence three processes."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) < 1_000
