"""How long the reactor was kept from its work: a tick that comes late shows it. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from rowserve.server.clock import Clock

TICK = 0.02


class StallGauge:
    """The longest stall since it was last taken, in seconds: how much later than due a tick came."""

    def __init__(self, clock: Clock, tick: float = TICK) -> None:
        self._clock = clock
        self._tick = tick
        self._due = 0.0
        self._longest = 0.0
        self._call = LoopingCall(self._ticked)
        self._call.clock = cast("Any", clock)

    def start(self) -> None:
        """Begin to tick."""
        self._due = self._clock.seconds() + self._tick
        self._call.start(self._tick, now=False)

    def stop(self) -> None:
        """End the ticking."""
        if self._call.running:
            self._call.stop()

    def _ticked(self) -> None:
        now = self._clock.seconds()
        self._longest = max(self._longest, now - self._due)
        # LoopingCall keeps to multiples of the tick: the next one is due at most a tick from now.
        self._due = now + self._tick

    def take_longest(self) -> float:
        """The longest stall since the last call, one that is going on included."""
        longest = max(self._longest, self._clock.seconds() - self._due if self._call.running else 0.0, 0.0)
        self._longest = 0.0
        return longest
