"""Measure how much CPU time a run gets, and note if other programs take too much of it."""

import math
import time
from pathlib import Path

from cifar_cnn.errors import counted

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
ENOUGH = 0.8
"""Least fraction of its threads' time without a note; a run alone gets 0.9 or more."""
SHORTEST = 10.0
"""Seconds; in shorter epochs the fraction is unreliable."""


class CoreTime:
    """Compares this process's processor time with what its busy threads could have had."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.start()

    def start(self) -> None:
        """Measure from now on."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def stop(self, epoch: int, threads: int) -> None:
        """Add a line to the notes, once, if so many threads got too little time since `start`."""
        seconds = time.perf_counter() - self._wall
        fraction = (time.process_time() - self._processor) / (seconds * threads)
        if seconds > SHORTEST and fraction < ENOUGH and not self.notes:
            quota = cpu_quota()
            cause = "other programs use the cores, and training is slower for it"
            if quota < threads:
                cause = f"a CPU quota allows {quota:g} of {counted(threads, 'core')}"
            self.notes.append(
                f"in epoch {epoch} this run had {fraction:.0%} of the processor time it could use: "
                f"{cause}"
            )


def cpu_quota() -> float:
    """Return how many cores the container may use at once; infinite without a quota."""
    try:
        quota, period = map(float, _QUOTA.read_text().split())
    except (OSError, ValueError):  # no such system, or "max"
        return math.inf
    return quota / period
