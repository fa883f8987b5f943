"""Collects missing rows from all requests into batches, hands them to the graph thread and their results back.

Reactor thread; only `run_batch` runs on the graph thread.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from typing import Any

from rowserve.graphs.batch_sizes import batch_size
from rowserve.graphs.isolation import BatchResult, answer_batch
from rowserve.graphs.rows import Buffer, gather
from rowserve.graphs.signature import Signature
from rowserve.graphs.thread import GraphThread, Session
from rowserve.handlers.items import Priority
from rowserve.handlers.problem import Problem
from rowserve.server.lanes import Lanes, rank
from rowserve.server.pending_rows import Ask, Asker, Batch, PendingRow

REMEMBERED = 32  # batches


@dataclass(slots=True)
class Promise:
    """Room kept for rows of an admitted request that are not queued yet (pictures still decoding, say)."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_rows` of a batch; `max_wait` in seconds: how long an idle thread is held for fuller batches, counted from
    the first row's arrival (0: never); how many rows and bytes may wait in the queue."""

    max_rows: int = 32
    max_wait: float = 0.0
    queue_rows: int = 4096
    queue_bytes: int = 512 << 20


class Batcher:
    """The rows of one model that wait for its graph thread.

    `admit` may refuse a request with Problem 503. An admitted one is fed in pieces as there is room, and each of its
    rows is answered or failed once, unless it leaves. `computed` hears of every batch once, before those who wait.
    """

    def __init__(
        self,
        thread: GraphThread,
        limits: BatchLimits,
        clock: Any,
        computed: Callable[[Batch, Sequence[Buffer | BaseException]], None],
    ) -> None:
        self.limits = limits
        self._thread = thread
        self._clock = clock
        self._computed = computed
        self._lanes: Lanes[PendingRow] = Lanes()
        self._twins: dict[bytes, PendingRow] = {}
        self._feeding: tuple[OrderedDict[Asker, None], ...] = (OrderedDict(), OrderedDict())
        self._arrivals = 0
        self._timer: Any = None
        self._running = False
        self.rows = 0
        self.bytes = 0
        self.batches = 0  # that have run
        self._ran: deque[set[bytes | None]] = deque(maxlen=REMEMBERED)  # the keys of the last ones
        self._promises: dict[Asker, Promise] = {}

    def admit(self, asker: Asker, rows: int, nbytes: int) -> None:
        """Promises room for so many rows. Raises Problem 503 where an interactive request finds the queue full.

        A request larger than the whole queue is admitted while anything is free. The promise ends when its rows are
        queued, or with `leave`. Bulk is promised nothing: it waits.
        """
        if asker.priority is Priority.BULK:
            return
        limits = self.limits
        room = limits.queue_rows - self.rows - sum(promise.rows for promise in self._promises.values())
        space = limits.queue_bytes - self.bytes - sum(promise.bytes for promise in self._promises.values())
        too_many = rows > room and (rows <= limits.queue_rows or room <= 0)
        too_large = nbytes > space and (nbytes <= limits.queue_bytes or space <= 0)
        if too_many or too_large:
            raise full(self.rows)
        self._promises[asker] = Promise(rows, nbytes)

    def feed(self, asker: Asker) -> None:
        """Queues the asker's rows, now or as there is room."""
        self._feeding[rank(asker.priority)][asker] = None
        self._fill()
        self._pump()

    def may_have_run(self, keys: Sequence[bytes | None], since: int) -> bool:
        """Whether a row of one of these keys may have run after so many `batches` had."""
        batches = self.batches - since
        if batches > len(self._ran):
            return True
        return any(not ran.isdisjoint(keys) for ran in islice(self._ran, len(self._ran) - batches, None))

    def leave(self, asker: Asker, asks: Iterable[Ask]) -> None:
        """The asker waits no longer for these rows, nor for room; a queued row that nobody waits for is forgotten."""
        self._promises.pop(asker, None)
        self._feeding[rank(asker.priority)].pop(asker, None)
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
                self._count(row, -1)
                self._untwin(row)
        self._fill()
        self._pump()

    def _fill(self) -> None:
        """Queues rows of those who are being fed: interactive ones first; bulk leaves half of the queue to them."""
        for feeding, part in zip(self._feeding, (1.0, 0.5), strict=True):
            rows, nbytes = ceil(part * self.limits.queue_rows), part * self.limits.queue_bytes
            while feeding and self.rows < rows and self.bytes < nbytes:
                asker = next(iter(feeding))
                if asks := asker.next_asks(rows - self.rows, nbytes - self.bytes):
                    self._keep_promise(asker, asks)
                    self._queue(asks, asker.priority)
                else:
                    feeding.pop(asker, None)

    def _queue(self, asks: Sequence[Ask], priority: Priority) -> None:
        now, twins = self._clock.seconds(), self._twins
        for ask in asks:
            key = ask.key
            twin = None if key is None else twins.get(key)
            if twin is not None and not (ask.source.fresh and twin.running):
                ask.pending = twin
                twin.asks.append(ask)
                if not twin.running and rank(priority) < rank(twin.priority):
                    self._lanes.move(twin, priority)
                continue
            self._arrivals += 1
            row = ask.pending = PendingRow(ask, [ask], now, self._arrivals, priority)
            if key is not None:
                twins[key] = row
            self._lanes.add(row)
            self._count(row, +1)

    def _keep_promise(self, asker: Asker, asks: Sequence[Ask]) -> None:
        promise = self._promises.get(asker)
        if promise is not None:
            promise.rows -= len(asks)
            promise.bytes -= sum(ask.source.nbytes for ask in asks)
            if promise.rows <= 0:
                del self._promises[asker]

    def _count(self, row: PendingRow, sign: int) -> None:
        self.rows += sign
        self.bytes += sign * row.data.source.nbytes

    def _untwin(self, row: PendingRow) -> None:
        key = row.data.key
        if key is not None and self._twins.get(key) is row:
            del self._twins[key]

    def _pump(self) -> None:
        """Gives the free thread its next batch, or holds it until the oldest row has waited `max_wait`."""
        if self._running or not self.rows:
            return
        limits = self.limits
        lane = self._lanes.choose(limits.max_rows)
        oldest = self._lanes.oldest(lane)
        limit = 1 if oldest.data.index is None else limits.max_rows
        now = self._clock.seconds()
        if limits.max_wait and self._lanes.size(lane) < limit and oldest.arrived + limits.max_wait > now:
            if self._timer is None or not self._timer.active():
                self._timer = self._clock.callLater(oldest.arrived + limits.max_wait - now, self._pump)
            return
        rows = self._lanes.take(lane, batch_size(self._lanes.size(lane), limit))
        for row in rows:
            row.running = True
            self._count(row, -1)
        self._running = True
        batch = Batch(rows, now, now - min(row.arrived for row in rows))
        self._thread.run(
            partial(run_batch, rows[0].data.source.signature, [row.data for row in rows]),
            partial(self._finished, batch),
        )
        self._fill()  # so that the next batch is there when this one has run

    def _finished(self, batch: Batch, result: BatchResult | BaseException) -> None:
        batch.ran = self._clock.seconds() - batch.started
        self._running = False
        self._pump()  # first of all: the graph shall not idle while answers are handed out
        if isinstance(result, BaseException):
            packed: Sequence[Buffer | BaseException] = [result] * len(batch.rows)
        else:
            packed = result.packed
        self._computed(batch, packed)
        self.batches += 1
        self._ran.append({row.data.key for row in batch.rows})
        for row in batch.rows:
            self._untwin(row)
            for ask in row.asks:
                ask.pending = None
        self._hand_out(batch, packed)

    def _hand_out(self, batch: Batch, packed: Sequence[Buffer | BaseException]) -> None:
        """Each request gets its rows together: those that ran for it, then those that were collapsed."""
        firsts: defaultdict[Asker, tuple[list[Ask], list[Buffer]]] = defaultdict(lambda: ([], []))
        joined: defaultdict[Asker, tuple[list[Ask], list[Buffer]]] = defaultdict(lambda: ([], []))
        for row, outputs in zip(batch.rows, packed, strict=True):
            if isinstance(outputs, BaseException):
                for ask in row.asks:
                    ask.source.asker.failed(ask, outputs)
                continue
            of = firsts
            for ask in row.asks:
                asks, found = of[ask.source.asker]
                asks.append(ask)
                found.append(outputs)
                of = joined
        for of, first in ((firsts, True), (joined, False)):
            for asker, (asks, found) in of.items():
                asker.answered(asks, found, batch, first)


def full(rows: int) -> Problem:
    """The answer to a request that finds the queue full."""
    return Problem(
        503, f"the queue is full: {rows} rows wait; try again in a moment", reason="queue_full", retry_after=1
    )


def run_batch(signature: Signature, data: Sequence[Ask], session: Session) -> BatchResult:
    """Graph thread: stacks the rows and runs them."""
    if data[0].index is None:
        rows = data[0].source.rows
    else:
        rows = gather([(ask.source.rows, ask.index or 0) for ask in data])
    return answer_batch(session, signature, rows)
