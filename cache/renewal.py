"""Begins a new cache file where the one in use was found damaged, while the server goes on. Cache writer thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rowserve.cache import stats as states
from rowserve.cache.errors import CacheError
from rowserve.cache.stats import CacheStats

if TYPE_CHECKING:
    from rowserve.cache.opening import Opened
    from rowserve.cache.store import Store

AGAIN_SECONDS = 60.0
Call = Callable[[], None]


class Renewal:
    """Watches the store of a cache folder for the cache writer, which asks `ready` before it touches the store.

    The mark for the next start comes first, so that nothing is forgotten by a kill. Then the folder is opened anew as
    at a start, which fails while others have it open, and is tried again each minute. Reads happen on the reactor
    thread alone, so there, between two of them, the store takes over the new file, while the writer keeps off.
    """

    def __init__(
        self, opened: Opened, stats: CacheStats, clock: Callable[[], float], call_in_reactor: Callable[[Call], None]
    ) -> None:
        self._opened = opened
        self._stats = stats
        self._clock = clock
        self._call_in_reactor = call_in_reactor
        self._other: Store | None = None  # the new file, and once the store has it, the old one
        self._exchanged = False
        self._marked = False
        self._next = 0.0

    def ready(self) -> bool:
        """Whether the store may be written to now."""
        if self._other is not None and self._exchanged:
            self._other.close()
            self._other, self._exchanged, self._marked = None, False, False
        elif self._other is None and self._opened.store.damaged:
            self._renew(self._clock())
        return self._other is None and not self._opened.store.damaged

    def _renew(self, now: float) -> None:
        if not self._marked:
            self._opened.mark()
            self._marked = True
        if 0 < self._next - now <= AGAIN_SECONDS:
            return
        self._next = now + AGAIN_SECONDS
        try:
            self._other = self._opened.reopen()
        except (CacheError, OSError) as error:
            self._stats.become(states.FAILING, str(error))
        else:
            self._call_in_reactor(self._exchange)

    def _exchange(self) -> None:
        """Reactor thread."""
        if self._other is not None and not self._exchanged:
            self._opened.store.exchange(self._other)
            self._exchanged = True
            self._stats.become(states.OK)

    def close(self) -> None:
        """Reactor thread, when the writer has ended and the store is closed."""
        self._exchange()
        if self._other is not None:
            self._other.close()
            self._opened.store.close()
        self._opened.close()
