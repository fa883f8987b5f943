"""The rows that wait for the graph thread. What two threads share, and nothing else, under one lock.

The reactor thread puts rows in and takes back those that nobody waits for any more, the graph thread takes them to run.
Each holds the lock for some microseconds a request or batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

from rowserve.graphs.batch_sizes import batch_size
from rowserve.handlers.items import Priority
from rowserve.server.batch_costs import BatchCosts
from rowserve.server.lanes import Lane, Lanes, rank
from rowserve.server.pending_rows import NEVER, Ask, Batch, PendingRow

MOST_LANES = 256  # whose costs are remembered


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_rows` of a batch; `max_wait` in seconds: how long an idle thread is held for fuller batches, counted from
    the first row's arrival (0: never); how many rows and bytes may wait in the queue."""

    max_rows: int = 32
    max_wait: float = 0.0
    queue_rows: int = 4096
    queue_bytes: int = 512 << 20


class RowQueue:
    """Each row that is put leaves once: it is taken into a batch, or dropped when its last asker leaves before.

    `rows` and `bytes` count what waits. The graph thread is `asleep` when it has found nothing to take; it says so
    itself, and the reactor thread that it wakes it.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.rows = 0
        self.bytes = 0
        self.asleep = True
        self._limits = limits
        self._lock = Lock()
        self._lanes: Lanes[PendingRow] = Lanes()
        self._twins: dict[bytes, PendingRow] = {}  # reactor thread only
        self._arrivals = 0
        self._costs: dict[Lane, BatchCosts] = {}

    # reactor thread

    def put(self, asks: Sequence[Ask], priority: Priority, now: float) -> None:
        """Rows that are asked for join their twins, or queue."""
        twins, lanes = self._twins, self._lanes
        with self._lock:
            for ask in asks:
                source, key = ask.source, ask.key
                twin = None if key is None else twins.get(key)
                if twin is not None and not (source.fresh and twin.running):
                    ask.pending = twin
                    twin.asks.append(ask)
                    if not twin.running:
                        twin.deadline = min(twin.deadline, source.deadline)
                        if rank(priority) < rank(twin.priority):
                            lanes.move(twin, priority)
                    continue
                self._arrivals += 1
                row = PendingRow(ask, [ask], source.lane, now, self._arrivals, priority, source.deadline)
                ask.pending = row
                if key is not None:
                    twins[key] = row
                lanes.add(row)
                self.rows += 1
                self.bytes += source.nbytes

    def drop(self, asks: Iterable[Ask]) -> None:
        """These are waited for no longer; a queued row without any is forgotten, one that runs is not."""
        with self._lock:
            for ask in asks:
                row, ask.pending = ask.pending, None
                if row is None:
                    continue
                row.asks.remove(ask)
                if row.running:
                    continue
                if row.asks:
                    self._lanes.move(row, min((other.source.asker.priority for other in row.asks), key=rank))
                else:
                    self._lanes.remove(row)
                    self.rows -= 1
                    self.bytes -= row.data.source.nbytes
                    self.untwin(row)

    def untwin(self, row: PendingRow) -> None:
        """Nobody joins this row any more."""
        key = row.data.key
        if key is not None and self._twins.get(key) is row:
            del self._twins[key]

    def must_wake(self, now: float) -> float | None:
        """0 where the graph thread sleeps and has a batch now (it then counts as awake), or in how many seconds it has.

        None where it is awake, or nothing waits.
        """
        if not self.asleep or not self.rows:  # only this thread makes either true when it is false
            return None
        with self._lock:
            held = self._held(self._lanes.choose(self._limits.max_rows), now)
            if held <= 0:
                self.asleep = False
            return max(held, 0.0)

    # graph thread

    def take(self, now: float) -> Batch | None:
        """The next batch, or None where none is due: the thread then counts as asleep."""
        with self._lock:
            if not self.rows:
                self.asleep = True
                return None
            lane = self._lanes.choose(self._limits.max_rows)
            if self._held(lane, now) > 0:
                self.asleep = True
                return None
            rows, reason = self._take_from(lane, now)
            nbytes = 0
            first = now
            for row in rows:
                row.running = True
                nbytes += row.data.source.nbytes
                first = min(first, row.arrived)
            self.rows -= len(rows)
            self.bytes -= nbytes
        return Batch(rows, now, now - first, reason)

    def _take_from(self, lane: Lane, now: float) -> tuple[list[PendingRow], str]:
        lanes, limits = self._lanes, self._limits
        oldest = lanes.oldest(lane)
        if oldest.data.index is None:
            return lanes.take(lane, 1), "full"
        waiting = lanes.size(lane)
        costs = self.costs(lane)
        size = costs.choose(waiting)
        in_time = costs.in_time(size, lanes.deadlines(lane, size), now)
        if in_time < size:
            size, reason = in_time, "deadline"
        elif waiting >= limits.max_rows:
            reason = "full"
        elif limits.max_wait and oldest.arrived + limits.max_wait <= now:
            reason = "wait"
        else:
            reason = "deadline" if limits.max_wait else "idle"
        return lanes.take(lane, size), reason

    def costs(self, lane: Lane) -> BatchCosts:
        """What that lane's batches cost."""
        costs = self._costs.get(lane)
        if costs is None:
            if len(self._costs) >= MOST_LANES:
                del self._costs[next(iter(self._costs))]
            costs = self._costs[lane] = BatchCosts(self._limits.max_rows)
        return costs

    # either, under the lock

    def _held(self, lane: Lane, now: float) -> float:
        """For how many seconds more a free thread leaves that lane alone, so that company may come."""
        limits = self._limits
        if not limits.max_wait:
            return 0.0
        oldest, waiting = self._lanes.oldest(lane), self._lanes.size(lane)
        if oldest.data.index is None or waiting >= limits.max_rows:
            return 0.0
        until = oldest.arrived + limits.max_wait
        cost = self.costs(lane).seconds.get(batch_size(waiting, limits.max_rows), 0.0)
        return min(until, min(self._lanes.deadlines(lane, waiting), default=NEVER) - cost) - now
