"""How latencies are distributed: counts in classes 1 % wide. Main thread."""

from __future__ import annotations

import math
from collections.abc import Iterator

RATIO = 1.01
STEP = 1 / math.log(RATIO)
LEAST = 1e-6
CLASSES = math.ceil(math.log(1e4 / LEAST) * STEP)


class Histogram:
    """Seconds from 1 us to 10,000 s; what lies outside counts as the nearest class. A quantile is right within 1 %."""

    def __init__(self) -> None:
        self.counts = [0] * (CLASSES + 1)
        self.total = 0
        self.highest = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        at = int(math.log(seconds / LEAST) * STEP) if seconds > LEAST else 0
        self.counts[at if at < CLASSES else CLASSES] += 1
        self.total += 1
        if seconds > self.highest:
            self.highest = seconds

    def quantile(self, share: float) -> float:
        """Seconds that this share of all did not exceed; 0 where there is none."""
        if not self.total:
            return 0.0
        wanted, seen = max(1, math.ceil(share * self.total)), 0
        for at, count in enumerate(self.counts):
            seen += count
            if seen >= wanted:
                return min(upper(at), self.highest)
        return self.highest

    def bars(self, width: int = 10) -> Iterator[tuple[float, float, int]]:
        """(from, to, count), `width` classes together, from the first that holds any to the last."""
        filled = [at for at, count in enumerate(self.counts) if count]
        if filled:
            first = filled[0] // width * width
            for at in range(first, filled[-1] + 1, width):
                yield upper(at - 1), upper(at + width - 1), sum(self.counts[at : at + width])


def upper(at: int) -> float:
    """Where class `at` ends."""
    return LEAST * math.exp((at + 1) / STEP)
