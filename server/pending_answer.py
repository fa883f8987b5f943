"""One request whose rows are not all known yet, from its first missing row to its answer. Reactor thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from rowserve.graphs.rows import Buffer, Rows
from rowserve.handlers.items import Answer, Item, Options, Outcome, Picture, Priority, Timing
from rowserve.handlers.problem import Problem
from rowserve.server.decoding import Decoding, Upload
from rowserve.server.faults import not_cached, problem_of
from rowserve.server.models import ServedModel, ServedSignature
from rowserve.server.pending_rows import NEVER, Ask, Batch, Source
from rowserve.server.waiting_asks import WaitingAsks

if TYPE_CHECKING:
    from rowserve.server.pipeline import RowPipeline

FAILED, HIT, COMPUTED = Outcome.FAILED, Outcome.HIT, Outcome.COMPUTED  # to look these up in their classes costs more
BULK = Priority.BULK


class PendingAnswer:
    """A batcher.Asker: gathers the rows of one request and fires one Deferred with its Answer.

    Every row is counted once: as a hit, as answered, or as failed (by its own fault, late, refused or cancelled).
    `start` raises Problem for a fault of the whole request; later ones fail the Deferred.
    """

    __slots__ = (
        "_asks", "_batcher", "_began", "_bypassed", "_closed", "_counts", "_deadline", "_deferred", "_errors",
        "_involved", "_missing", "_options", "_outcomes", "_packed", "_pictures", "_pipeline", "_served",
        "_timer", "_timing", "_waiting", "forward", "priority",
    )  # fmt: skip

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
        self.forward = "miss"  # see Answer
        self._bypassed = not served.cached or options.cache.no_store
        self._deadline = NEVER if options.timeout is None else began + options.timeout
        self._timing = Timing()
        self._asks: list[Ask] = []
        self._waiting: WaitingAsks | None = None
        self._pictures: Decoding | None = None
        self._involved = False  # the batcher may know of this request when all its rows are settled
        self._timer: Any = None
        self._closed = False
        self._deferred: Deferred[Answer] = Deferred(self._cancelled)

    def start(
        self,
        items: Sequence[Item],
        keys: Sequence[bytes | None],
        found: Sequence[Buffer | None],
        aliases: Mapping[int, bytes],
    ) -> Deferred[Answer]:
        """Takes what was found and sets the rest going. Where nothing was looked up `keys` and `found` are empty."""
        self._packed = packed = list(found) or [None] * self._rows(items)
        total = len(packed)
        missing = packed.count(None)
        self._missing = missing + 1  # until this is done there is no answer
        self._outcomes = [FAILED] * total
        self._errors: dict[int, Problem] = {}
        self._counts.ask(total)
        if missing < total:
            self._outcomes = [FAILED if each is None else HIT for each in packed]
            self._counts.settle(HIT, total - missing)
        nbytes = self._sort(items, keys or [None] * total, aliases)
        if self._asks and self._options.cache.only_if_cached:
            raise self._abandon(not_cached(len(self._asks)))
        self._timing.cache = self._pipeline.clock.seconds() - self._began
        if self._pictures is not None or not self._batcher.enter(self, self._asks, nbytes):
            self._queue_up(nbytes)
        if self._options.timeout is not None:
            self._timer = self._pipeline.clock.callLater(self._options.timeout, self._late)
        if self._pictures is not None:
            self._pictures.go_on()
        if self._waiting:
            self._batcher.feed(self)
        self._missing -= 1
        if not self._missing:
            self._finish()
        return self._deferred

    def _rows(self, items: Sequence[Item]) -> int:
        """How many rows these are."""
        if self._served.alone:
            return len(items)
        return sum(item.count if isinstance(item, Rows) else 1 for item in items)

    def _sort(self, items: Sequence[Item], keys: Sequence[bytes | None], aliases: Mapping[int, bytes]) -> int:
        """Puts each missing row where it goes next: to the batcher, to the decode pool, or among the faults.

        How many bytes the rows have that wait for the graph.
        """
        at, packed, nbytes = 0, self._packed, 0
        for item in items:
            if isinstance(item, Rows) and not self._served.alone:
                wanted = [index for index, each in enumerate(packed[at : at + item.count], at) if each is None]
                if wanted:
                    source = self._source(item, keys[at] is not None)
                    self._asks += [Ask(source, position, position - at, keys[position]) for position in wanted]
                    nbytes += len(wanted) * source.nbytes
                at += item.count
                continue
            if isinstance(item, Rows):
                self._asks.append(Ask(self._source(item, False), at, None))
                nbytes += item.nbytes
            elif isinstance(item, Picture):
                if packed[at] is None:
                    self._decode(Upload(at, item, keys[at], aliases.get(at)))
            else:
                self._fail(at, item)
            at += 1
        return nbytes

    def _decode(self, upload: Upload) -> None:
        if self._pictures is None:
            name = partial(self._pipeline.alias, self._served)
            self._pictures = Decoding(self._pipeline, self, name, ahead=2 * self._batcher.limits.max_rows)
        self._pictures.add(upload)

    def _source(self, rows: Rows, keyed: bool) -> Source:
        """What the rows of an array share; it is one unit where the signature's requests run alone."""
        served = self._served
        size = rows.nbytes if served.alone else served.inputs.row_bytes or rows.nbytes // rows.count
        generation = served.generation(rows.static) if keyed else None
        fresh = self._options.cache.no_cache
        return Source(self, served.signature, rows, served.lane(rows), size, generation, fresh, self._deadline)

    def _queue_up(self, nbytes: int) -> None:
        """The rows go into the queue as there is room, and as pictures become rows. Raises Problem where it is full."""
        pictures = 0 if self._pictures is None else len(self._pictures)
        rows = len(self._asks) + pictures
        try:
            self._batcher.admit(self, rows, nbytes + pictures * (self._served.inputs.row_bytes or 0))
        except Problem as problem:
            raise self._abandon(problem) from None
        self._involved = True
        self._waiting = WaitingAsks(self._batcher, self._asks, self._look_up, self._hit)

    def next_asks(self, rows: int, nbytes: float) -> Sequence[Ask]:
        """The next rows for the queue."""
        return () if self._waiting is None else self._waiting.take(rows, nbytes)

    def answered(self, asks: Sequence[Ask], packed: Sequence[Buffer], batch: Batch, first: bool) -> None:
        """Rows' outputs have come."""
        if self._closed:
            return
        timing = self._timing
        timing.queue = max(timing.queue, batch.queued)
        timing.graph = max(timing.graph, batch.ran)
        outcome = Outcome.BYPASSED if self._bypassed else COMPUTED if first else Outcome.COLLAPSED
        for ask, outputs in zip(asks, packed, strict=True):
            self._packed[ask.position] = outputs
            self._outcomes[ask.position] = outcome
        self._settled([ask.position for ask in asks], outcome)
        if not self._missing:
            self._finish()

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
            if key != upload.key and upload.alias is not None:
                self._pipeline.cache.keep_aliases([upload.alias], [key], self._served.generation(rows.static))
            if self._found(upload.position, key):
                return
        if self._options.cache.only_if_cached:
            self._deferred.errback(self._abandon(not_cached(1)))
            return
        ask = Ask(self._source(rows, key is not None), upload.position, None if self._served.alone else 0, key)
        assert self._waiting is not None
        self._asks.append(ask)
        self._waiting.add(ask)
        self._batcher.feed(self)

    def undecodable(self, upload: Upload, problem: Problem) -> None:
        """A picture that will be no row."""
        self._fail(upload.position, problem)

    def _found(self, position: int, key: bytes) -> bool:
        """Settles a row as a hit, if it is one by now."""
        (found,) = self._look_up([key])
        if found is None:
            return False
        self._hit(position, found)
        return True

    def _look_up(self, keys: Sequence[bytes | None]) -> Sequence[Buffer | None]:
        return self._pipeline.look_up(self._served, keys, self._options)

    def _hit(self, position: int, found: Buffer) -> None:
        self._packed[position] = found
        self._outcomes[position] = HIT
        self._settled([position], HIT)
        if not self._missing:
            self._finish()

    def _settled(self, positions: Sequence[int], outcome: Outcome, reason: str = "") -> None:
        """Counts rows as done."""
        self._missing -= len(positions)
        self._counts.settle(outcome, len(positions), reason)
        if self._pictures is not None:
            for position in positions:
                self._pictures.settled(position)

    def _fail(self, position: int, problem: Problem) -> None:
        if self._closed:
            return
        self._errors[position] = problem
        self._settled([position], FAILED, problem.reason)
        if not self._missing:
            self._finish()

    def _finish(self) -> None:
        """All rows are settled."""
        self._close()
        timing = self._timing
        self._counts.took(self._outcomes, self._pipeline.clock.seconds() - self._began, timing.cache)
        served = self._served
        answer = Answer(served.outputs, self._packed, self._outcomes, self._errors, timing, served.alone, self.forward)
        if self.priority is BULK:
            self._pipeline.when_kept(partial(self._hand_over, answer))
        else:
            self._hand_over(answer)

    def _hand_over(self, answer: Answer) -> None:
        if not self._deferred.called:  # a bulk client may have gone while its rows waited to be kept
            self._deferred.callback(answer)

    def _late(self) -> None:
        """The deadline has come: what is missing fails, on time, whatever the graph does."""
        problem = Problem(504, f"no answer within {self._options.timeout:g} s", reason="deadline")
        self._involved = True
        if self._pictures is not None:
            self._pictures.stop()
        rest = self._rest()
        self._errors.update((position, problem) for position in rest)
        self._settled(rest, FAILED, problem.reason)
        self._finish()

    def _abandon(self, problem: Problem) -> Problem:
        """Gives the whole request up: its rows count as failed, also those that were found."""
        rest = self._rest()
        self._counts.settle(FAILED, len(rest), problem.reason)
        self._involved = True
        self._close()
        return problem

    def _cancelled(self, _deferred: Deferred[Answer]) -> None:
        """The client has gone."""
        if not self._closed:
            self._abandon(Problem(499, "the client has gone", reason="cancelled"))

    def _rest(self) -> list[int]:
        """The rows that are neither answered nor failed."""
        return [at for at, packed in enumerate(self._packed) if packed is None and at not in self._errors]

    def _close(self) -> None:
        self._closed = True
        if self._pictures is not None:
            self._timing.decode = self._pictures.seconds
            self._pictures.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._involved:
            self._batcher.leave(self, self._asks)
        # They refer to this object, and through their rows to the whole body: without this it would be freed late.
        self._asks = []
        self._waiting = self._pictures = None
