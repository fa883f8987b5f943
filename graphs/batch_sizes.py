"""The sizes that batches have. Pure, safe on any thread.

TensorFlow builds kernels for each new size and keeps them: a few sizes are soon warm, all of them fill the memory (a
small model run at every size from 1 to 256 grew by 236 MiB, at these 28 by 21).
"""

from __future__ import annotations


def batch_size(waiting: int, most: int) -> int:
    """How many of the waiting rows run next: all up to 8, else the nearest below of 8, 10, 12, 14, 16, 20, 24, ..."""
    return most if waiting >= most else waiting & -1 << max(0, waiting.bit_length() - 3)


def batch_sizes(most: int) -> list[int]:
    """Every size that a batch of up to `most` rows may have, ascending."""
    return sorted({batch_size(waiting, most) for waiting in range(1, most + 1)})
