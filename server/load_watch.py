"""Gives up on a model that does not end its loading, so that the others can be served. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowserve.server.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.graphs.run_watch import RunWatch
    from rowserve.server.clock import Clock

# What a run may take, in a model that is loaded as in one that is being loaded.
STUCK_SECONDS = 60.0
LOOK_SECONDS = 1.0


class LoadWatch:
    """Calls `give_up`, once, with why: the loading has taken `limit`, or one of its `runs` STUCK_SECONDS."""

    def __init__(self, clock: Clock, limit: str, runs: RunWatch, give_up: Callable[[str], None]) -> None:
        self._clock = clock
        self._limit = limit
        self._until = clock.seconds() + Seconds.parse(limit)
        self._runs = runs
        self._give_up = give_up
        self._timer = clock.callLater(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """It has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._clock.seconds() >= self._until:
            self._give_up(f"it did not load within limits.load ({self._limit})")
        elif self._runs.seconds() > STUCK_SECONDS:
            self._give_up(f"a run of made-up rows did not come back within {STUCK_SECONDS:g} s")
        else:
            self._timer = self._clock.callLater(LOOK_SECONDS, self._look)
