"""One request whose rows are not all known yet, from its first missing row to its answer. Reactor thread."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from rowserve.graphs.errors import CannotLoad, GraphError, RowBroken
from rowserve.graphs.rows import Buffer, Rows
from rowserve.handlers.items import Answer, Item, Options, Outcome, Picture, Priority, Timing
from rowserve.handlers.problem import Problem
from rowserve.server.batcher import Ask, Batch
from rowserve.server.decoding import Decoding, Upload
from rowserve.server.models import ServedModel, ServedSignature

if TYPE_CHECKING:
    from rowserve.server.pipeline import RowPipeline


class State(Enum):
    """Where a request stands: an OPEN one has rows on their way."""

    STARTING = "starting"
    OPEN = "open"
    CLOSED = "closed"


class PendingAnswer:
    """A batcher.Asker: gathers the rows of one request and fires one Deferred with its Answer.

    Every row is counted once: as a hit, as answered, or as failed (by its own fault, late, refused or cancelled).
    `start` raises Problem for a fault of the whole request; later ones fail the Deferred.
    """

    def __init__(
        self, pipeline: RowPipeline, model: ServedModel, served: ServedSignature, options: Options, began: float
    ) -> None:
        self.priority = options.priority
        self._pipeline = pipeline
        self._batcher = model.batcher
        self._served = served
        self._options = options
        self._counts = model.counts(options.protocol)
        self._began = began
        self._bypassed = not served.cached or options.cache.no_store
        self._timing = Timing()
        self._asks: list[Ask] = []
        self._ready: deque[Ask] = deque()
        name = partial(pipeline.alias, served)
        self._pictures = Decoding(pipeline, self, name, ahead=2 * model.batcher.limits.max_rows)
        self._looked = model.batcher.batches
        self._sure = sys.maxsize  # rows at the head of the line that are known to be missing: at first, all
        self._timer: Any = None
        self._state = State.STARTING
        self._deferred: Deferred[Answer] = Deferred(lambda _: self._cancelled())

    def start(
        self, items: Sequence[Item], keys: Sequence[bytes | None], found: Sequence[Buffer | None]
    ) -> Deferred[Answer]:
        """Takes what was found and sets the rest going. `keys` and `found` are empty where nothing was looked up."""
        alone = self._served.alone
        total = sum(1 if alone or not isinstance(item, Rows) else item.count for item in items)
        self._packed = list(found) or [None] * total
        self._outcomes = [Outcome.FAILED] * total
        self._errors: dict[int, Problem] = {}
        self._missing = total
        self._counts.ask(total)
        self._settle([at for at, packed in enumerate(self._packed) if packed is not None], Outcome.HIT)
        self._sort(items, keys or [None] * total)
        pictures = len(self._pictures)
        nbytes = sum(ask.nbytes for ask in self._ready) + pictures * (self._served.inputs.row_bytes or 0)
        if self._ready and self._options.cache.only_if_cached:
            raise self._abandon(not_cached(len(self._ready)))
        try:
            self._batcher.admit(self, len(self._ready) + pictures, nbytes)
        except Problem as problem:
            raise self._abandon(problem) from None
        self._timing.cache = self._pipeline.clock.seconds() - self._began
        if self._options.timeout is not None:
            self._timer = self._pipeline.clock.callLater(self._options.timeout, self._late)
        self._state = State.OPEN
        self._pictures.go_on()
        if self._ready:
            self._batcher.feed(self)
        self._finish_if_complete()
        return self._deferred

    def _sort(self, items: Sequence[Item], keys: Sequence[bytes | None]) -> None:
        """Puts each missing row where it goes next: to the batcher, to the decode pool, or among the faults."""
        at = 0
        for item in items:
            if isinstance(item, Rows) and not self._served.alone:
                for index in range(item.count):
                    if self._packed[at + index] is None:
                        self._ask(at + index, item, index, keys[at + index])
                at += item.count
                continue
            if isinstance(item, Rows):
                self._ask(at, item, None, None)
            elif isinstance(item, Picture):
                if self._packed[at] is None:
                    self._pictures.add(Upload(at, item, keys[at]))
            else:
                self._fail(at, item)
            at += 1

    def _ask(self, position: int, rows: Rows, index: int | None, key: bytes | None) -> None:
        """Readies one missing row for the batcher, or all of `rows` as one unit where `index` is None."""
        served = self._served
        size = rows.nbytes if index is None else served.inputs.row_bytes or rows.nbytes // rows.count
        generation = None if key is None else served.generation(rows.static)
        fresh = self._options.cache.no_cache
        ask = Ask(self, position, served.signature, rows, index, served.lane(rows), size, key, generation, fresh)
        self._asks.append(ask)
        self._ready.append(ask)

    def next_ask(self) -> Ask | None:
        """The next row for the queue."""
        if self._looked != self._batcher.batches:
            self._looked, self._sure = self._batcher.batches, 0
        if not self._sure:
            self._look_again()
        if not self._ready:
            return None
        self._sure -= 1
        return self._ready.popleft()

    def _look_again(self) -> None:
        """Batches have run: rows that waited for room may have been in them for somebody else. One batch's worth is
        looked up at a time, until some are found missing; `_sure` counts those at the head of the line."""
        while self._ready and not self._sure:
            ahead = [self._ready.popleft() for _ in range(min(len(self._ready), self._batcher.limits.max_rows))]
            found = self._pipeline.look_up(self._served, [ask.key for ask in ahead], self._options)
            missing = [ask for ask, packed in zip(ahead, found, strict=True) if packed is None]
            self._ready.extendleft(reversed(missing))
            self._sure = len(missing)
            for ask, packed in zip(ahead, found, strict=True):
                if packed is not None:
                    self._hit(ask.position, packed)

    def answered(self, ask: Ask, packed: Buffer, batch: Batch, first: bool) -> None:
        """A row's outputs have come."""
        if self._state is State.CLOSED:
            return
        self._timing.queue = max(self._timing.queue, batch.queued)
        self._timing.graph = max(self._timing.graph, batch.ran)
        self._packed[ask.position] = packed
        outcome = Outcome.COMPUTED if first else Outcome.COLLAPSED
        self._settle([ask.position], Outcome.BYPASSED if self._bypassed else outcome)
        self._finish_if_complete()

    def failed(self, ask: Ask, error: BaseException) -> None:
        """A row has failed."""
        self._fail(ask.position, problem_of(error))

    def named(self, upload: Upload) -> bool:
        """A large upload has its alias, worked out on the pool."""
        if self._bypassed or upload.alias is None:
            return False
        (upload.key,) = self._pipeline.cache.lookup_aliases([upload.alias])
        return upload.key is not None and self._found(upload.position, upload.key)

    def decoded(self, upload: Upload, rows: Rows) -> None:
        """A picture has become a row: it may be known by its pixels, or must be computed."""
        key = None
        if not self._bypassed:
            generation = self._served.generation(rows.static)
            (key,) = generation.row_keys(self._served.inputs.pack(rows.arrays, 1))
            if key != upload.key:
                alias = upload.alias or self._pipeline.alias(self._served, upload.picture)
                self._pipeline.cache.keep_aliases([alias], [key], generation)
            if self._found(upload.position, key):
                return
        if self._options.cache.only_if_cached:
            self._deferred.errback(self._abandon(not_cached(1)))
            return
        self._ask(upload.position, rows, None if self._served.alone else 0, key)
        self._batcher.feed(self)

    def undecodable(self, upload: Upload, problem: Problem) -> None:
        """A picture that will be no row."""
        self._fail(upload.position, problem)

    def _found(self, position: int, key: bytes) -> bool:
        """Settles a row as a hit, if it is one by now."""
        (found,) = self._pipeline.look_up(self._served, [key], self._options)
        if found is None:
            return False
        self._hit(position, found)
        return True

    def _hit(self, position: int, found: Buffer) -> None:
        self._packed[position] = found
        self._settle([position], Outcome.HIT)
        self._finish_if_complete()

    def _settle(self, positions: Iterable[int], outcome: Outcome, reason: str = "") -> None:
        """Counts rows as done."""
        number = 0
        for position in positions:
            self._outcomes[position] = outcome
            self._pictures.settled(position)
            number += 1
        if number:
            self._missing -= number
            self._counts.settle(outcome, number, reason)

    def _fail(self, position: int, problem: Problem) -> None:
        if self._state is State.CLOSED:
            return
        self._errors[position] = problem
        self._settle([position], Outcome.FAILED, problem.reason)
        self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if self._missing or self._state is not State.OPEN:
            return
        self._close()
        self._timing.decode = self._pictures.seconds
        answer = Answer(
            self._served.outputs, self._packed, self._outcomes, self._errors, self._timing, self._served.alone
        )
        if self.priority is Priority.BULK:
            self._pipeline.when_kept(lambda: self._hand_over(answer))
        else:
            self._hand_over(answer)

    def _hand_over(self, answer: Answer) -> None:
        if not self._deferred.called:  # a bulk client may have gone while its rows waited to be kept
            self._deferred.callback(answer)

    def _late(self) -> None:
        """The deadline has come: what is missing fails, on time, whatever the graph does."""
        problem = Problem(504, f"no answer within {self._options.timeout:g} s", reason="deadline")
        self._pictures.stop()
        rest = self._rest()
        self._errors.update((position, problem) for position in rest)
        self._settle(rest, Outcome.FAILED, problem.reason)
        self._finish_if_complete()

    def _abandon(self, problem: Problem) -> Problem:
        """Gives the whole request up: its rows count as failed, also those that were found."""
        rest = self._rest()
        self._counts.settle(Outcome.FAILED, len(rest), problem.reason)
        self._close()
        return problem

    def _cancelled(self) -> None:
        """The client has gone."""
        if self._state is not State.CLOSED:
            self._abandon(Problem(499, "the client has gone", reason="cancelled"))

    def _rest(self) -> list[int]:
        """The rows that are neither answered nor failed."""
        return [at for at, packed in enumerate(self._packed) if packed is None and at not in self._errors]

    def _close(self) -> None:
        self._state = State.CLOSED
        self._pictures.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._batcher.leave(self, self._asks)


def not_cached(rows: int) -> Problem:
    """The answer to only-if-cached when rows are missing (RFC 9111, section 5.2.1.7)."""
    what = "a row is" if rows == 1 else f"{rows} rows are"
    return Problem(504, f"{what} not in the cache", reason="not_cached")


def problem_of(error: BaseException) -> Problem:
    """A row's fault in the words of its answer; what the client cannot help keeps its details for the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RowBroken):
        return Problem(422, f"the model refused this row: {error}", reason="refused_by_model")
    if isinstance(error, CannotLoad):
        return Problem(503, str(error), reason="broken")
    if isinstance(error, GraphError):
        return Problem(500, f"the model failed: {error}", reason="graph")
    return Problem(500, "the server failed on this row; its log says why", reason="internal")
