"""The memory that pictures take while they are decoded: one budget for the whole decode pool.

Pool threads take it and give it back, and never wait for it: a picture without room goes back to the reactor, and
stands in line there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from rowserve.handlers.problem import Problem
from rowserve.server.metrics import gauge
from rowserve.server.units import Bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

DECODING_BYTES = 1 << 30


class Turn:
    """A picture's place in the line: `begin` is called when its bytes have been taken for it."""

    __slots__ = ("begin", "size")

    def __init__(self, size: int, begin: Callable[[], None]) -> None:
        self.size = size
        self.begin = begin


class DecodeMemory(Collector):
    """At most `limit` bytes at once. First come, first served: who needs much is not passed by who needs little."""

    def __init__(self, limit: int = DECODING_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._line: OrderedDict[Turn, None] = OrderedDict()
        self._taken = 0

    def take(self, size: int) -> bool:
        """Pool: whether there is room now, and nobody in line. Raises Problem 413 where there never is."""
        if size > self._limit:
            most = f"at most {Bytes.text(self._limit)} are taken for all together (limits.decoding)"
            told = f"decoding this picture takes {Bytes.text(size)} of memory; {most}"
            raise Problem(413, told, title="Picture too large", reason="picture_too_large")
        with self._lock:
            if self._line or self._taken + size > self._limit:
                return False
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        """Pool: the picture is decoded, or nobody wants it. `admit` must follow on the reactor."""
        with self._lock:
            self._taken -= size

    def wait(self, size: int, begin: Callable[[], None]) -> Turn:
        """Reactor: stands in line for what `take` had no room for. `admit` must follow."""
        turn = Turn(size, begin)
        with self._lock:
            self._line[turn] = None
        return turn

    def leave(self, turn: Turn) -> None:
        """Reactor: gives a place in the line up, if it is still held. `admit` must follow."""
        with self._lock:
            self._line.pop(turn, None)

    def admit(self) -> None:
        """Reactor: lets those begin who stand first, as far as there is room."""
        while self._line and (turn := self._first()) is not None:
            turn.begin()

    def _first(self) -> Turn | None:
        """The first in line, its bytes taken, if there is room for it."""
        with self._lock:
            turn = next(iter(self._line))
            if self._taken + turn.size > self._limit:
                return None
            del self._line[turn]
            self._taken += turn.size
            return turn

    def collect(self) -> Iterator[Metric]:
        """For a scrape."""
        yield gauge("decoding_bytes", "Memory counted for the pictures that are being decoded.", self._taken)
        yield gauge("decoding_waiting", "Pictures that wait for memory to be decoded in.", len(self._line))
