"""Whether images fit into memory, asked before they are decoded."""

import os
from pathlib import Path

from cifar_cnn.errors import DataError, counted

_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_memory(count: int, size: tuple[int, int]) -> None:
    """Refuse uint8 images (count, 3, H, W) of `size` (H, W) that this machine cannot hold.

    Raises:
        DataError: with the figure.
    """
    height, width = size
    needed, there = count * 3 * height * width, memory()
    if needed > there:
        need = "needs" if count == 1 else "need"
        images = f"{counted(count, 'image')} of {height}x{width}"
        raise DataError(
            f"{images} {need} {needed / 1e9:,.1f} GB of memory, and there are "
            f"{there / 1e9:,.1f} GB: choose a smaller --input-size, or fewer images"
        )


def memory() -> float:
    """Return the bytes of memory of this machine, or of the container; infinite if unknown."""
    if not hasattr(os, "sysconf"):
        return float("inf")
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else ""
    return min(there, int(limit)) if limit.isdigit() else there
