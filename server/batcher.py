"""Lets rows of all requests wait for the graph thread, within bounds, and hands out what it answers. Reactor thread."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

from rowserve.graphs.rows import Buffer
from rowserve.graphs.thread import GraphThread
from rowserve.handlers.items import Priority
from rowserve.handlers.problem import Problem
from rowserve.server.batch_runner import BatchRunner, Finished
from rowserve.server.lanes import rank
from rowserve.server.pending_rows import Ask, Asker, Batch
from rowserve.server.row_queue import BatchLimits, RowQueue

REMEMBERED = 32  # batches
A_TURN = 256  # rows and asks that one turn of the reactor hands out, or a few more: some 2 ms
BULK = Priority.BULK
Key = bytes | None


@dataclass(slots=True)
class Promise:
    """Room kept for rows of an admitted request that are not queued yet (pictures still decoding, say)."""

    rows: int
    bytes: int


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
        self._now: Callable[[], float] = clock.seconds
        self._computed = computed
        self._queue = RowQueue(limits)
        self._runner = BatchRunner(self._queue, clock, thread.call_in_reactor, self._come_round)
        self._feeding: tuple[OrderedDict[Asker, None], ...] = (OrderedDict(), OrderedDict())
        self._timer: Any = None
        self._waking = False
        self.batches = 0  # whose answers have been handed out, or are being so
        self._ran: deque[set[Key]] = deque(maxlen=REMEMBERED)  # the keys of the last ones
        self._promises: dict[Asker, Promise] = {}
        self._promised_rows = 0
        self._promised_bytes = 0
        self._handing: tuple[Finished, int] | None = None  # a batch and how many of its rows are handed out
        thread.pull_from(self._runner)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._queue.rows

    @property
    def bytes(self) -> int:
        """Bytes of the rows that wait."""
        return self._queue.bytes

    def admit(self, asker: Asker, rows: int, nbytes: int) -> None:
        """Promises room for so many rows. Raises Problem 503 where an interactive request finds the queue full.

        A request larger than the whole queue is admitted while anything is free. The promise ends when its rows are
        queued, or with `leave`. Bulk is promised nothing: it waits.
        """
        if asker.priority is BULK:
            return
        limits, queue = self.limits, self._queue
        room = limits.queue_rows - queue.rows - self._promised_rows
        space = limits.queue_bytes - queue.bytes - self._promised_bytes
        too_many = rows > room and (rows <= limits.queue_rows or room <= 0)
        too_large = nbytes > space and (nbytes <= limits.queue_bytes or space <= 0)
        if too_many or too_large:
            raise full(queue.rows)
        self._promises[asker] = Promise(rows, nbytes)
        self._promised_rows += rows
        self._promised_bytes += nbytes

    def feed(self, asker: Asker) -> None:
        """Queues the asker's rows, now or as there is room."""
        self._feeding[rank(asker.priority)][asker] = None
        self._fill()
        self._wake_soon()

    def enter(self, asker: Asker, asks: Sequence[Ask], nbytes: int) -> bool:
        """`admit` and `feed` at once, for rows that are all there: whether there was room, and nobody before them."""
        queue, limits = self._queue, self.limits
        rows, space = queue.rows + len(asks) + self._promised_rows, queue.bytes + nbytes + self._promised_bytes
        if asker.priority is BULK:
            rows, space = 2 * rows, 2 * space
        if rows > limits.queue_rows or space > limits.queue_bytes or self._runner.hungry:
            return False
        queue.put(asks, asker.priority, self._now())
        self._wake_soon()
        return True

    def may_have_run(self, keys: Sequence[Key], since: int) -> bool:
        """Whether a row of one of these keys may have run after so many `batches` had."""
        batches = self.batches - since
        if batches > len(self._ran):
            return True
        return any(not ran.isdisjoint(keys) for ran in islice(self._ran, len(self._ran) - batches, None))

    def leave(self, asker: Asker, asks: Iterable[Ask]) -> None:
        """The asker waits no longer for these rows, nor for room; a queued row that nobody waits for is forgotten."""
        if asker in self._promises:
            self._take_back(asker, self._promises[asker].rows, self._promises[asker].bytes)
        self._feeding[rank(asker.priority)].pop(asker, None)
        self._queue.drop(asks)
        self._fill()
        self._wake_soon()

    def _fill(self) -> None:
        """Queues rows of those who are being fed: interactive ones first; bulk leaves half of the queue to them."""
        queue = self._queue
        for feeding, part in zip(self._feeding, (1.0, 0.5), strict=True):
            if not feeding:
                continue
            rows, nbytes = ceil(part * self.limits.queue_rows), part * self.limits.queue_bytes
            while feeding and queue.rows < rows and queue.bytes < nbytes:
                asker = next(iter(feeding))
                if asks := asker.next_asks(rows - queue.rows, nbytes - queue.bytes):
                    if asker in self._promises:
                        self._take_back(asker, len(asks), sum(ask.source.nbytes for ask in asks))
                    queue.put(asks, asker.priority, self._now())
                else:
                    feeding.pop(asker, None)
        self._runner.hungry = any(self._feeding)

    def _take_back(self, asker: Asker, rows: int, nbytes: int) -> None:
        promise = self._promises[asker]
        promise.rows -= rows
        promise.bytes -= nbytes
        self._promised_rows -= rows
        self._promised_bytes -= nbytes
        if promise.rows <= 0:
            self._promised_rows -= promise.rows
            self._promised_bytes -= promise.bytes
            del self._promises[asker]

    def _wake_soon(self) -> None:
        """Wakes a sleeping graph thread when the reactor's turn ends, so that all rows that came in it go together."""
        if self._queue.asleep and self._queue.rows and not self._waking:
            self._waking = True
            self._clock.callLater(0, self._wake)

    def _wake(self) -> None:
        """Wakes it where it has a batch; where that is held, when the oldest row has waited `max_wait`."""
        self._waking = False
        held = self._queue.must_wake(self._now())
        if held is None:
            return
        if not held:
            self._thread.wake()
        elif self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(held, self._wake)

    def _come_round(self) -> None:
        """The graph thread has answers, or room: hands out some of them, and asks for another turn for the rest."""
        self._runner.fetched()
        finished, left = self._runner.finished, A_TURN
        while left > 0 and (self._handing is not None or finished):
            if self._handing is None:
                self._handing = (finished.popleft(), 0)
                self._begin(*self._handing[0])
            left -= self._hand_out(left)
        self._fill()
        self._wake_soon()
        if self._handing is not None or finished:
            self._clock.callLater(0, self._come_round)

    def _begin(self, batch: Batch, packed: Sequence[Buffer | BaseException]) -> None:
        self._computed(batch, packed)
        self.batches += 1
        self._ran.append({row.data.key for row in batch.rows})

    def _hand_out(self, most: int) -> int:
        """Hands out so many rows and asks of the batch in hand; how many. A row's asks stay together.

        Each request gets its rows together: those that ran for it, then those that were collapsed.
        """
        assert self._handing is not None
        (batch, packed), at = self._handing
        untwin = self._queue.untwin
        firsts: dict[Asker, tuple[list[Ask], list[Buffer]]] = {}
        joined: dict[Asker, tuple[list[Ask], list[Buffer]]] = {}
        faults: list[tuple[Ask, BaseException]] = []
        done = 0
        while at < len(packed) and done < most:
            row, outputs = batch.rows[at], packed[at]
            untwin(row)
            of = firsts
            for ask in row.asks:
                ask.pending = None
                if isinstance(outputs, BaseException):
                    faults.append((ask, outputs))
                    continue
                asker = ask.source.asker
                asks, found = of.get(asker) or of.setdefault(asker, ([], []))
                asks.append(ask)
                found.append(outputs)
                of = joined
            at += 1
            done += 1 + len(row.asks)
        self._handing = (self._handing[0], at) if at < len(packed) else None
        for ask, error in faults:
            ask.source.asker.failed(ask, error)
        for of in (firsts, joined):
            for asker, (asks, found) in of.items():
                asker.answered(asks, found, batch, of is firsts)
        return done


def full(rows: int) -> Problem:
    """The answer to a request that finds the queue full."""
    return Problem(
        503, f"the queue is full: {rows} rows wait; try again in a moment", reason="queue_full", retry_after=1
    )
