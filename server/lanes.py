"""The order in which pending rows run: lanes, two priorities, and the share of bulk. One thread at a time.

Rows of one lane may share a batch. Interactive rows go first, oldest first; bulk rows fill what is left and get at
least one row in eight while they wait.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from rowserve.handlers.items import Priority

BULK = Priority.BULK
BULK_SHARE = 8
Lane = tuple[Any, ...]


class Queued(Protocol):
    """A row as the lanes see it."""

    priority: Priority
    order: int
    deadline: float

    @property
    def lane(self) -> Lane:
        """Rows of equal lanes may share a batch."""


R = TypeVar("R", bound=Queued)


def rank(priority: Priority) -> int:
    """0 for interactive, 1 for bulk."""
    return int(priority is Priority.BULK)


@dataclass(slots=True)
class Queues(Generic[R]):
    """One lane's rows by priority, each in order of arrival."""

    interactive: OrderedDict[R, None] = field(default_factory=OrderedDict)
    bulk: OrderedDict[R, None] = field(default_factory=OrderedDict)

    def of(self, priority: Priority) -> OrderedDict[R, None]:
        """The queue of that priority."""
        return self.bulk if priority is Priority.BULK else self.interactive


class Lanes(Generic[R]):
    """All queued rows. `choose`, `oldest`, `size` and `take` need at least one."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, Queues[R]] = {}
        self._owed = 0  # rows run while bulk waited, less eight for each bulk row among them

    def add(self, row: R) -> None:
        """Queues a row behind its peers."""
        queues = self._lanes.get(row.lane)
        if queues is None:
            queues = self._lanes[row.lane] = Queues()
        (queues.bulk if row.priority is BULK else queues.interactive)[row] = None

    def remove(self, row: R) -> None:
        """Takes a queued row out."""
        lane = row.lane
        del self._lanes[lane].of(row.priority)[row]
        self._tidy(lane)

    def move(self, row: R, priority: Priority) -> None:
        """Gives a queued row another priority; among its new peers it stands by its time of arrival."""
        if priority is row.priority:
            return
        queues = self._lanes[row.lane]
        del queues.of(row.priority)[row]
        row.priority = priority
        peers = queues.of(priority)
        peers[row] = None
        for peer in [peer for peer in peers if peer.order > row.order]:
            peers.move_to_end(peer)

    def choose(self, max_rows: int) -> Lane:
        """The lane whose turn it is: that of the oldest interactive row, or of the oldest bulk row where there is no
        interactive one or bulk has been passed over for more than a batch."""
        oldest: list[tuple[int, Lane] | None] = [None, None]
        if len(self._lanes) == 1:
            return next(iter(self._lanes))
        for lane, queues in self._lanes.items():
            for at, queue in enumerate((queues.interactive, queues.bulk)):
                if queue:
                    order = next(iter(queue)).order
                    best = oldest[at]
                    if best is None or order < best[0]:
                        oldest[at] = (order, lane)
        interactive, bulk = oldest
        due = bulk is not None and self._owed >= max(BULK_SHARE - 1, max_rows)
        chosen = bulk if due or interactive is None else interactive
        assert chosen is not None
        return chosen[1]

    def oldest(self, lane: Lane) -> R:
        """The row of that lane that came first."""
        queues = self._lanes[lane]
        return min((next(iter(q)) for q in (queues.interactive, queues.bulk) if q), key=lambda row: row.order)

    def size(self, lane: Lane) -> int:
        """Rows queued in that lane."""
        queues = self._lanes[lane]
        return len(queues.interactive) + len(queues.bulk)

    def deadlines(self, lane: Lane, limit: int) -> list[float]:
        """Those of the first rows of that lane, of interactive ones only: bulk has time."""
        return [row.deadline for row in islice(self._lanes[lane].interactive, limit)]

    def take(self, lane: Lane, limit: int) -> list[R]:
        """Takes up to `limit` rows: interactive ones but for the share that bulk is owed, then bulk."""
        queues = self._lanes[lane]
        share = min(len(queues.bulk), limit, max(0, self._owed + limit) // BULK_SHARE)
        rows = [queues.interactive.popitem(last=False)[0] for _ in range(min(len(queues.interactive), limit - share))]
        bulk = [queues.bulk.popitem(last=False)[0] for _ in range(min(len(queues.bulk), limit - len(rows)))]
        self._tidy(lane)
        self._account(len(rows), len(bulk), limit)
        return rows + bulk

    def _account(self, interactive: int, bulk: int, limit: int) -> None:
        contended = bulk or any(queues.bulk for queues in self._lanes.values())
        contended = contended and (interactive or any(queues.interactive for queues in self._lanes.values()))
        owed = self._owed + interactive + bulk - BULK_SHARE * bulk
        self._owed = max(owed, -BULK_SHARE * limit) if contended else 0

    def _tidy(self, lane: Lane) -> None:
        queues = self._lanes[lane]
        if not queues.interactive and not queues.bulk:
            del self._lanes[lane]
