"""Memory that large batches are gathered in, used again and again. Graph thread only.

TensorFlow takes an array whose memory is aligned as it is, without a copy, and whatever it keeps of it (an output that
is the input passed through, a variable that it was assigned to) keeps the array alive. So memory is used again only
when nothing refers to it any more but this module.
"""

from __future__ import annotations

import sys

import numpy as np

from rowserve.graphs.rows import Array

SMALL = 1 << 16  # bytes; up to this, new memory costs less than to look after it
ALIGNMENT = 64
UNUSED = 2  # references: the variable that looks, and its argument


class BatchArrays:
    """Memory for one batch; of each input that is large."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def array(self, name: str, like: Array, count: int) -> Array | None:
        """An array for `count` such rows of that input; None where new memory does as well.

        It is the caller's until nobody refers to it any more, nor to a view of it.
        """
        if like.dtype == object or not len(like):
            return None
        needed = like.nbytes // len(like) * count
        if needed <= SMALL:
            return None
        memory = self._memory.pop(name, None)
        if memory is None or len(memory) < needed + ALIGNMENT or sys.getrefcount(memory) > UNUSED:
            memory = np.empty(needed + ALIGNMENT, np.uint8)
        self._memory[name] = memory
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + needed].view(like.dtype).reshape(count, *like.shape[1:])
