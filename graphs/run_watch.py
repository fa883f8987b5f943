"""Since when a run of a model that is being loaded has been going on: the runs of its tests may hang as any other.

Set on the thread that loads, read on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class RunWatch:
    """One loading."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None

    def seconds(self) -> float:
        """How long the run that is going on has been, 0.0 when none is."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    @contextmanager
    def here(self) -> Iterator[None]:
        """What is loaded meanwhile on this thread is watched."""
        token = WATCH.set(self)
        try:
            yield
        finally:
            WATCH.reset(token)

    @contextmanager
    def run(self) -> Iterator[None]:
        """A run."""
        self._since = self._clock()
        try:
            yield
        finally:
            self._since = None


WATCH: ContextVar[RunWatch] = ContextVar("the loading on this thread")
UNWATCHED = RunWatch(lambda: 0.0)


@contextmanager
def watched_run() -> Iterator[None]:
    """A run on this thread, of whatever is loaded on it."""
    with WATCH.get(UNWATCHED).run():
        yield
