"""One tick for the deadlines of every connection: setting one costs an assignment. Reactor thread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from rowserve.server.clock import Clock

NEVER = math.inf
TICK = 0.5


class Mortal(Protocol):
    """Something with a deadline (on the clock, or NEVER)."""

    deadline: float

    def expire(self, now: float) -> None:
        """The deadline has passed: end, or set a later one."""


class Deadlines:
    """Looks over its members each tick, for as long as there are any. A deadline is met within one tick."""

    _log = Logger()

    def __init__(self, clock: Clock, tick: float = TICK) -> None:
        self.clock = clock
        self.members: set[Mortal] = set()
        self._tick = tick
        self._call = LoopingCall(self._look)
        self._call.clock = cast("Any", clock)

    def add(self, member: Mortal) -> None:
        """Watch it."""
        self.members.add(member)
        if not self._call.running:
            self._call.start(self._tick, now=False)

    def discard(self, member: Mortal) -> None:
        """Forget it."""
        self.members.discard(member)
        if not self.members and self._call.running:
            self._call.stop()

    def _look(self) -> None:
        now = self.clock.seconds()
        for member in [member for member in self.members if member.deadline <= now]:
            try:
                member.expire(now)
            except Exception:  # noqa: BLE001  (one connection's fault must not end the deadlines of all)
                self._log.failure("a deadline failed")
                member.deadline = NEVER
