"""Has glibc keep the memory that rows and batches pass through, instead of handing it back after each. Any thread.

A decoded picture is some 600 kB, and each one freed would go back to the system and be faulted in again, page by page:
0.8 ms of system time a picture, a third of its decoding.
"""

from __future__ import annotations

import ctypes

# <malloc.h>; see mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAPPED_BYTES = 32 << 20  # the most that glibc takes: larger blocks are mapped on their own
KEPT_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """For the whole process; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
