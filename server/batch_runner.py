"""The graph thread's side of batching: takes batches, runs them, and leaves what came out where the reactor finds it.

Graph thread, but for `finished`, which the reactor thread empties. The reactor is called once for all that it has not
fetched yet, and only when the next batch is in hand: the call gives up the interpreter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rowserve.graphs.batch_arrays import BatchArrays
from rowserve.graphs.isolation import BatchResult, answer_batch
from rowserve.graphs.rows import Buffer, gather
from rowserve.graphs.thread import CallInReactor, Session
from rowserve.server.pending_rows import Batch
from rowserve.server.row_queue import RowQueue

Finished = tuple[Batch, Sequence[Buffer | BaseException]]


class BatchRunner:
    """The thread.Batches of one model. `come_round` is called in the reactor when there is something for it to do."""

    def __init__(
        self, rows: RowQueue, clock: Any, call_in_reactor: CallInReactor, come_round: Callable[[], None]
    ) -> None:
        self.finished: deque[Finished] = deque()
        self.hungry = False  # set by the reactor thread: somebody waits for room
        self._rows = rows
        self._now: Callable[[], float] = clock.seconds
        self._call_in_reactor = call_in_reactor
        self._come_round = come_round
        self._called = False
        self._arrays = BatchArrays()

    def take(self) -> Batch | None:
        """See thread.Batches."""
        rows = self._rows
        batch = rows.take(self._now())
        if self.finished or (rows.rows if batch is None else self.hungry):  # rows that are held need a timer
            self._call()
        return batch

    def run(self, batch: Batch, session: Session) -> BatchResult:
        """See thread.Batches."""
        data = batch.rows[0].data
        if data.index is None:
            return answer_batch(session, data.source.signature, data.source.rows)
        places = [(row.data.source.rows, row.data.index or 0) for row in batch.rows]
        return answer_batch(session, data.source.signature, gather(places, self._arrays.array))

    def over(self, batch: Batch, result: BatchResult | BaseException) -> None:
        """See thread.Batches."""
        batch.ran = self._now() - batch.started
        if isinstance(result, BaseException):
            self.finished.append((batch, [result] * len(batch.rows)))
            return
        if result.calls == 1:
            self._rows.costs(batch.rows[0].lane).learn(len(batch.rows), batch.ran)
        self.finished.append((batch, result.packed))

    def fetched(self) -> None:
        """Reactor thread, before it looks into `finished`: whatever comes after this calls it again."""
        self._called = False

    def _call(self) -> None:
        if not self._called:
            self._called = True
            self._call_in_reactor(self._come_round)
