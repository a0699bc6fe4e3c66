"""Threads that compute different things at once, in place of torch's, which share one thing out.

Torch has its threads meet at the end of every operation, hundreds of times in a training step;
where another program takes one of the cores, the others wait for it each time. These meet once.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def resolve_threads(number: int) -> int:
    """Return how many threads `number` asks for: 0 is as many as torch has, all cores unless told.

    `OMP_NUM_THREADS` tells it, and torchrun sets that to 1.
    """
    return number or torch.get_num_threads()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have the calling thread share torch's operations out among `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Workers:
    """Threads that take items from a queue, each with its own share of torch's threads.

    Used as a context, they end with it.

    Args:
        threads: in all.
        most: items at once; threads beyond it help inside the operations.
    """

    def __init__(self, threads: int, most: int) -> None:
        count = min(threads, most)
        with torch_threads(torch.get_num_threads()):  # what one thread sets, others start with
            self._pool = ThreadPoolExecutor(
                count, initializer=torch.set_num_threads, initargs=(threads // count,)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the results in the order of the items; raises what the first failed one raised."""
        return list(self._pool.map(work, items))
