"""What batches cost by their size, learned while they run, and how many rows run next. Graph thread only.

The rule, in this order: never wait; a batch that would make a row miss its deadline shrinks until it does not; among
the ways to run what waits, the plain one (as many rows as there are, see graphs/batch_sizes.py) is left only where
another first batch has all of them done sooner, by at least a tenth of what the plain first batch costs. Of sizes that
have not run yet nothing is believed.
"""

from __future__ import annotations

from collections.abc import Sequence

from rowserve.graphs.batch_sizes import batch_size, batch_sizes
from rowserve.server.pending_rows import NEVER

SMOOTHING = 8  # a slower run moves the cost by an eighth of the difference; a quicker one is believed at once
SOONER = 0.9
LOOK_AGAIN = 32  # so often the plain rule counts, so that what it costs stays known


class BatchCosts:
    """The costs (seconds) of one lane, whose batches hold at most `most` rows."""

    def __init__(self, most: int) -> None:
        self.seconds: dict[int, float] = {}
        self._most = most
        self._sizes = batch_sizes(most)
        self._decided: dict[int, int] = {}
        self._decisions = 0

    def learn(self, size: int, seconds: float) -> None:
        """A batch of that size took so long."""
        known = self.seconds.get(size, seconds)
        self.seconds[size] = min(seconds, known + (seconds - known) / SMOOTHING)

    def choose(self, waiting: int) -> int:
        """How many of so many waiting rows run next."""
        self._decisions += 1
        if self._decisions % LOOK_AGAIN == 0:
            self._decided.clear()
            return batch_size(waiting, self._most)
        size = self._decided.get(waiting)
        if size is None:
            size = self._decided[waiting] = self._decide(waiting)
        return size

    def _decide(self, waiting: int) -> int:
        best = plain = batch_size(waiting, self._most)
        soonest = self._plainly(waiting)
        if soonest is None:
            return plain
        soonest -= (1.0 - SOONER) * self.seconds[plain]
        for size in self._sizes[: self._sizes.index(plain)]:
            cost, rest = self.seconds.get(size), self._plainly(waiting - size)
            if cost is not None and rest is not None and cost + rest < soonest:
                best, soonest = size, cost + rest
        return best

    def _plainly(self, waiting: int) -> float | None:
        """How long the plain rule takes for so many rows; None where that is not known."""
        whole, waiting = divmod(waiting, self._most)
        seconds = 0.0
        if whole:
            cost = self.seconds.get(self._most)
            if cost is None:
                return None
            seconds = whole * cost
        while waiting:
            size = batch_size(waiting, self._most)
            cost = self.seconds.get(size)
            if cost is None:
                return None
            seconds += cost
            waiting -= size
        return seconds

    def in_time(self, size: int, deadlines: Sequence[float], now: float) -> int:
        """`size`, or fewer where only so the row with the earliest of these deadlines (in the order in which their rows
        would run) is done in time."""
        earliest = min(deadlines, default=NEVER)
        cost = self.seconds.get(size)
        if cost is None or now + cost <= earliest:
            return size
        least = deadlines.index(earliest) + 1
        for smaller in reversed(self._sizes):
            cost = self.seconds.get(smaller)
            if least <= smaller < size and cost is not None and now + cost <= earliest:
                return smaller
        return size
