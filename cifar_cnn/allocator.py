"""How the C library handles freed memory; apart from `runtime`, as it needs no torch."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_LARGEST_KEPT = 32 << 20  # bytes, the most that glibc accepts
_KEPT_AT_MOST = 1 << 30


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of memory that this process frees, for its next training step on a CPU.

    By default glibc returns every freed feature map to the system, which hands it out again page by
    page, cleared: a fifth of a step. Blocks of up to 32 MiB are kept, in one arena for all threads:
    an arena for each took a fifth more time. The command line calls this; a program that trains
    calls it once, before it starts threads. It does nothing without glibc. Source: mallopt(3).
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # musl has none
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_MOST)
        library.mallopt(_M_ARENA_MAX, 1)
