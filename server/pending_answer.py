"""One request whose rows are not all known yet, from its first missing row to its answer. Reactor thread."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from rowserve.graphs.rows import Buffer, Rows
from rowserve.handlers.items import Answer, Item, Options, Outcome, Picture, Priority, Timing
from rowserve.handlers.problem import Problem
from rowserve.server.decoding import Decoding, Upload
from rowserve.server.faults import not_cached, problem_of
from rowserve.server.models import ServedModel, ServedSignature
from rowserve.server.pending_rows import Ask, Batch, Source

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
        self._since = self._looked = model.batcher.batches
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
        nbytes = sum(ask.source.nbytes for ask in self._ready) + pictures * (self._served.inputs.row_bytes or 0)
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
                wanted = [index for index in range(item.count) if self._packed[at + index] is None]
                if wanted:
                    source = self._source(item, keys[at] is not None)
                    self._ready_up([Ask(source, at + index, index, keys[at + index]) for index in wanted])
                at += item.count
                continue
            if isinstance(item, Rows):
                self._ready_up([Ask(self._source(item, False), at, None)])
            elif isinstance(item, Picture):
                if self._packed[at] is None:
                    self._pictures.add(Upload(at, item, keys[at]))
            else:
                self._fail(at, item)
            at += 1

    def _source(self, rows: Rows, keyed: bool) -> Source:
        """What the rows of an array share; it is one unit where the signature's requests run alone."""
        served = self._served
        size = rows.nbytes if served.alone else served.inputs.row_bytes or rows.nbytes // rows.count
        generation = served.generation(rows.static) if keyed else None
        return Source(self, served.signature, rows, served.lane(rows), size, generation, self._options.cache.no_cache)

    def _ready_up(self, asks: Sequence[Ask]) -> None:
        """Missing rows are ready for the batcher."""
        self._asks += asks
        self._ready += asks

    def next_asks(self, rows: int, nbytes: float) -> Sequence[Ask]:
        """The next rows for the queue."""
        if self._looked != self._batcher.batches:
            self._looked, self._sure = self._batcher.batches, 0
        if not self._sure:
            self._look_again()
        asks: list[Ask] = []
        ready, most = self._ready, min(rows, self._sure)
        while ready and len(asks) < most and nbytes > 0:
            ask = ready.popleft()
            nbytes -= ask.source.nbytes
            asks.append(ask)
        self._sure -= len(asks)
        return asks

    def _look_again(self) -> None:
        """Batches have run: rows that waited for room may have been in them for somebody else. One batch's worth is
        looked up at a time, until some are found missing; `_sure` counts those at the head of the line."""
        while self._ready and not self._sure:
            ahead = list(islice(self._ready, self._batcher.limits.max_rows))
            keys = [ask.key for ask in ahead]
            if not self._batcher.may_have_run(keys, self._since):  # to look costs 10 us a row when threads are busy
                self._sure = len(ahead)
                return
            found = self._pipeline.look_up(self._served, keys, self._options)
            for _ in ahead:
                self._ready.popleft()
            missing = [ask for ask, packed in zip(ahead, found, strict=True) if packed is None]
            self._ready.extendleft(reversed(missing))
            self._sure = len(missing)
            for ask, packed in zip(ahead, found, strict=True):
                if packed is not None:
                    self._hit(ask.position, packed)

    def answered(self, asks: Sequence[Ask], packed: Sequence[Buffer], batch: Batch, first: bool) -> None:
        """Rows' outputs have come."""
        if self._state is State.CLOSED:
            return
        self._timing.queue = max(self._timing.queue, batch.queued)
        self._timing.graph = max(self._timing.graph, batch.ran)
        positions = [ask.position for ask in asks]
        for position, outputs in zip(positions, packed, strict=True):
            self._packed[position] = outputs
        outcome = Outcome.COMPUTED if first else Outcome.COLLAPSED
        self._settle(positions, Outcome.BYPASSED if self._bypassed else outcome)
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

    def key_of(self, rows: Rows) -> bytes | None:
        """Decode pool: the key of a decoded row."""
        if self._bypassed:
            return None
        (key,) = self._served.row_keys(rows)
        return key

    def decoded(self, upload: Upload, rows: Rows, key: bytes | None) -> None:
        """A picture has become a row: it may be known by its pixels, or must be computed."""
        if key is not None:
            if key != upload.key:
                alias = upload.alias or self._pipeline.alias(self._served, upload.picture)
                self._pipeline.cache.keep_aliases([alias], [key], self._served.generation(rows.static))
            if self._found(upload.position, key):
                return
        if self._options.cache.only_if_cached:
            self._deferred.errback(self._abandon(not_cached(1)))
            return
        self._ready_up(
            [Ask(self._source(rows, key is not None), upload.position, None if self._served.alone else 0, key)]
        )
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

    def _settle(self, positions: Sequence[int], outcome: Outcome, reason: str = "") -> None:
        """Counts rows as done."""
        if not positions:
            return
        for position in positions:
            self._outcomes[position] = outcome
        self._missing -= len(positions)
        self._counts.settle(outcome, len(positions), reason)
        if self._pictures:
            for position in positions:
                self._pictures.settled(position)

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
        self._counts.took(self._outcomes, self._pipeline.clock.seconds() - self._began, self._timing.cache)
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
