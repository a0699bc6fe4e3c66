"""Train a network: loop, optimizers, schedules and run directories.

How torchrun started this process can be read here without importing torch.
"""

import os


def is_launched() -> bool:
    """Return whether torchrun started this process: all four of its variables are set."""
    return {"TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def rank() -> int:
    """Return this process's number among those of the run; 0 prints and writes."""
    return int(os.environ["RANK"]) if is_launched() else 0


def is_main_process() -> bool:
    """Return whether this process prints and writes files."""
    return rank() == 0
