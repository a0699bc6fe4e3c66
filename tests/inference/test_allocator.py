import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from cifar_cnn.inference.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    for _ in range(20):
        torch.ones(4 << 20, dtype=torch.uint8).add(1)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_freed_blocks_are_used_again_without_page_faults():
    code = [sys.executable, "-c", FAULTS]
    kept, given_back = (
        int(subprocess.run([*code, way], capture_output=True, text=True, check=True).stdout)
        for way in ("keep", "give back")
    )
    assert given_back > 10_000
    assert kept < given_back / 10
