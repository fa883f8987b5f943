"""The rows of one request that the queue has not taken yet: there was no room, or they come as they are decoded.

Reactor thread.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from rowserve.graphs.rows import Buffer
from rowserve.server.pending_rows import Ask

if TYPE_CHECKING:
    from rowserve.server.batcher import Batcher


class WaitingAsks:
    """In order, all of them known to be missing when this is made or they are added.

    `look_up` finds packed rows by their keys, and `hit` is told of each that has been computed meanwhile for somebody
    else; it is not among those that `take` gives.
    """

    def __init__(
        self,
        batcher: Batcher,
        asks: Iterable[Ask],
        look_up: Callable[[Sequence[bytes | None]], Sequence[Buffer | None]],
        hit: Callable[[int, Buffer], None],
    ) -> None:
        self._batcher = batcher
        self._asks = deque(asks)
        self._look_up = look_up
        self._hit = hit
        self._since = self._looked = batcher.batches
        self._sure = sys.maxsize  # rows at the head of the line that are known to be missing: at first, all

    def __len__(self) -> int:
        return len(self._asks)

    def add(self, ask: Ask) -> None:
        """One more, at the end."""
        self._asks.append(ask)

    def take(self, rows: int, nbytes: float) -> Sequence[Ask]:
        """The next rows for the queue: up to so many, and until they have so many bytes or more."""
        if self._looked != self._batcher.batches:
            self._looked, self._sure = self._batcher.batches, 0
        if not self._sure:
            self._look_again()
        asks: list[Ask] = []
        waiting, most = self._asks, min(rows, self._sure)
        while waiting and len(asks) < most and nbytes > 0:
            ask = waiting.popleft()
            nbytes -= ask.source.nbytes
            asks.append(ask)
        self._sure -= len(asks)
        return asks

    def _look_again(self) -> None:
        """Batches have run: rows that waited for room may have been in them for somebody else. One batch's worth is
        looked up at a time, until some are found missing; `_sure` counts those at the head of the line."""
        waiting = self._asks
        while waiting and not self._sure:
            ahead = list(islice(waiting, self._batcher.limits.max_rows))
            keys = [ask.key for ask in ahead]
            if not self._batcher.may_have_run(keys, self._since):  # to look costs 10 us a row when threads are busy
                self._sure = len(ahead)
                return
            found = self._look_up(keys)
            for _ in ahead:
                waiting.popleft()
            missing = [ask for ask, packed in zip(ahead, found, strict=True) if packed is None]
            waiting.extendleft(reversed(missing))
            self._sure = len(missing)
            for ask, packed in zip(ahead, found, strict=True):
                if packed is not None:
                    self._hit(ask.position, packed)
