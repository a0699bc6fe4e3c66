"""How this process was started: alone, or as one of several by `torchrun`. Needs no torch."""

import os


def is_launched() -> bool:
    """Say whether torchrun started this process; one variable alone was left by something else."""
    return {"TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def rank() -> int:
    """Return this process's number among those of the run; 0 prints and writes."""
    return int(os.environ["RANK"]) if is_launched() else 0


def local_rank() -> int:
    """Return this process's number among those of the run on this machine."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def is_main_process() -> bool:
    """Say whether this is the process that prints and writes."""
    return rank() == 0
