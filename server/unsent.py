"""The memory of answers that their clients have not taken yet: one budget for all of them, and who goes when it is used
up. Reactor thread.

An answer that fits into its socket is never counted here. A large one counts from before it is made, and waits for its
turn where there is no room; what a connection has to send counts from when the system takes no more of it.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from rowserve.server.metrics import gauge
from rowserve.server.units import Bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rowserve.server.clock import Clock

log = logging.getLogger(__name__)
T = TypeVar("T")
MIB = 1 << 20
UNSENT_BYTES = 256 * MIB
LOOK_SECONDS = 0.5
# Who has just begun not to read may only be busy: while others wait for room, nobody is cut off before that.
GRACE_SECONDS = 2.0
# When the budget is used up, so much of it is freed: else each further piece would look for the slowest of thousands.
FREED = 1 / 8
LOG_SECONDS = 60.0


class Debtor(Protocol):
    """A connection that has more to send than its socket takes."""

    @property
    def owed(self) -> int:
        """The bytes that it has to send."""

    @property
    def taken(self) -> int:
        """How often its client has taken all that there was: a number that only rises."""

    def abort(self) -> None:
        """Cuts it off."""


class Debt:
    """What was seen of a debtor: since when it owes, how much, and what it had taken before."""

    __slots__ = ("owed", "since", "taken")

    def __init__(self, since: float, taken: int) -> None:
        self.since = since
        self.taken = taken
        self.owed = 0


class Claim:
    """The bytes of an answer in the making; `release` once it is made, or nobody wants it any more."""

    __slots__ = ("_begin", "_unsent", "size")

    def __init__(self, unsent: Unsent, size: int) -> None:
        self._unsent = unsent
        self.size = size
        self._begin: Callable[[], None] | None = None

    def when_room(self, begin: Callable[[], None]) -> None:
        """Calls once there is room for so many bytes: now, or in a later turn. Those who asked earlier go first."""
        self._begin = begin
        self._unsent.wait_for_room(self)

    def begin(self) -> None:
        """There is room."""
        begin, self._begin = self._begin, None  # who asked holds the claim: each would keep the other
        if begin is not None:
            begin()

    def hold(self) -> None:
        """The bytes are there already."""
        self._unsent.hold(self)

    def release(self) -> None:
        """Gives them back. May be called again."""
        self._begin = None
        self._unsent.release(self)

    def pass_on(self, result: T) -> T:
        """The same, as a callback."""
        self.release()
        return result


class Unsent(Collector):
    """At most `limit` bytes in all. `bytes` is what is known to be held: never less than what is.

    Answers in the making are admitted in their order, one of them whatever its size. When the budget is used up, or
    somebody waits for room, those who take least of what they asked for are cut off first.
    """

    def __init__(self, clock: Clock, limit: int = UNSENT_BYTES) -> None:
        self._clock = clock
        self._limit = limit
        self._debts: dict[Debtor, Debt] = {}
        self._claims: set[Claim] = set()
        self._waiting: deque[Claim] = deque()
        self._looking = False
        self._logged = -LOG_SECONDS
        self.bytes = 0
        self.cut = 0

    # Answers in the making

    def claim(self, size: int) -> Claim:
        """For an answer of about that size."""
        return Claim(self, size)

    def wait_for_room(self, claim: Claim) -> None:
        """See Claim.when_room."""
        if self._waiting or not self._fits(claim.size):
            self._waiting.append(claim)
            self._look_soon()
        else:
            self.hold(claim)
            claim.begin()

    def hold(self, claim: Claim) -> None:
        """See Claim.hold."""
        self._claims.add(claim)
        self.bytes += claim.size
        self._keep_within()

    def release(self, claim: Claim) -> None:
        """The claim has ended."""
        if claim in self._claims:
            self._claims.discard(claim)
            self.bytes -= claim.size
            if self._waiting:
                self._clock.callLater(0, self._admit_waiting)
        elif claim in self._waiting:
            self._waiting.remove(claim)

    def _fits(self, size: int) -> bool:
        return not self.bytes or self.bytes + size <= self._limit

    def _admit_waiting(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            claim = self._waiting.popleft()
            self.hold(claim)
            claim.begin()

    # Connections that have more to send than is taken

    def owe(self, debtor: Debtor) -> None:
        """Its socket is full."""
        debt = self._debts.get(debtor)
        if debt is None:
            debt = self._debts[debtor] = Debt(self._clock.seconds(), debtor.taken)
        self._see(debtor, debt)
        self._keep_within()
        self._look_soon()

    def forget(self, debtor: Debtor) -> None:
        """It has gone."""
        debt = self._debts.pop(debtor, None)
        if debt is not None:
            self.bytes -= debt.owed
            if self._waiting:
                self._clock.callLater(0, self._admit_waiting)

    def _see(self, debtor: Debtor, debt: Debt) -> None:
        owed = debtor.owed
        self.bytes += owed - debt.owed
        debt.owed = owed

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._clock.callLater(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Who has taken all is no debtor any more; while somebody waits for room, the slowest make it."""
        self._looking = False
        for debtor, debt in list(self._debts.items()):
            self._see(debtor, debt)
            if not debt.owed:
                del self._debts[debtor]
        self._keep_within()
        if self._waiting:
            self._cut_slowest(self._limit - self._waiting[0].size, GRACE_SECONDS)
            self._admit_waiting()
        if self._debts or self._waiting:
            self._look_soon()

    def _keep_within(self) -> None:
        if self.bytes > self._limit:
            self._cut_slowest(self._limit - int(self._limit * FREED), 0.0)

    def _cut_slowest(self, most: int, grace: float) -> None:
        """Cuts off those who take least, until no more than `most` bytes are held."""
        now = self._clock.seconds()

        def pace(debtor: Debtor) -> float:
            debt = self._debts[debtor]
            return (debtor.taken - debt.taken + 1) / max(now - debt.since, 1e-9)

        late = [debtor for debtor, debt in self._debts.items() if now - debt.since >= grace]
        for debtor in sorted(late, key=pace):
            if self.bytes <= max(most, 0):
                break
            self._see(debtor, self._debts[debtor])
            self.forget(debtor)
            self.cut += 1
            debtor.abort()
            self._tell(now)

    def _tell(self, now: float) -> None:
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            told = "answers that nobody reads have used up limits.unsent (%s): those who read slowest are cut off"
            log.warning(told, Bytes.text(self._limit))

    def collect(self) -> Iterator[Metric]:
        """For a scrape."""
        for debtor, debt in self._debts.items():
            self._see(debtor, debt)
        text = "Bytes of large answers in the making, and of what clients have not taken."
        yield gauge("unsent_bytes", text, self.bytes)
        text = "Connections cut off because answers that nobody read had used up limits.unsent."
        yield CounterMetricFamily("rowserve_unsent_cut", text, value=self.cut)
