"""Answers the rows of a request: looked up, computed where they are missing, kept, and put in order.

Reactor thread. The one place that knows both the cache and the batcher.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail

from rowserve.cache.keys import Generation
from rowserve.cache.row_cache import RowCache
from rowserve.graphs.rows import Buffer, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import NO_WISH, Answer, Item, Options, Outcome, Picture, Priority, Timing
from rowserve.handlers.problem import Problem
from rowserve.server.decode_memory import DecodeMemory
from rowserve.server.decoding import LARGE, UNNAMED
from rowserve.server.metrics import Metrics
from rowserve.server.models import ServedModel, ServedSignature
from rowserve.server.pending_answer import PendingAnswer
from rowserve.server.pending_rows import Batch
from rowserve.server.unsent import Unsent

log = logging.getLogger(__name__)
NONE: Mapping[int, bytes] = {}
HIT = Outcome.HIT  # to look it up in its class costs a tenth of a microsecond
BULK = Priority.BULK
Computed = tuple[list[bytes], list[Buffer], Generation | None]
T = TypeVar("T")
DeferToPool = Callable[[Callable[[], T]], "Deferred[T]"]


class RowPipeline:
    """The straight line from items to an answer.

    `answer` returns the Answer itself when every row is in the cache, else a Deferred of it. Cancel that when the
    client has gone. Faults of the whole request (a full queue, only-if-cached and a row missing) fail it with a
    Problem; faults of a row stand in the answer.
    """

    def __init__(
        self,
        cache: RowCache,
        clock: Any,
        metrics: Metrics,
        defer_to_pool: DeferToPool[Any],
        unsent: Unsent | None = None,
        decode_memory: DecodeMemory | None = None,
    ) -> None:
        self.cache = cache
        self.clock = clock
        self.metrics = metrics
        self.defer_to_pool = defer_to_pool
        self.unsent = unsent or Unsent(clock)
        self.decode_memory = decode_memory or DecodeMemory()
        self.monotonic = time.monotonic
        self._now = clock.seconds
        self._patient: deque[Computed] = deque()  # computed for bulk, not yet taken
        self._draining = False
        self._until_kept: list[Callable[[], None]] = []

    def answer(
        self, model: ServedModel, signature: Signature, items: Sequence[Item], options: Options
    ) -> Answer | Deferred[Answer]:
        """Answers `items` in their order."""
        began = self._now()
        served, policy = model.served(signature), options.cache
        if policy is not NO_WISH and policy.throw_away:
            served = served.thrown_away()
        keys, aliases = self._keys(served, items) if served.cached and not policy.no_store else ([], NONE)
        found = self.look_up(served, keys, options) if keys else []
        if found and all(found):  # rows without a single byte go the other way, which ends the same
            spent = self._now() - began
            model.counts(options.protocol).hits(len(found), spent)
            return Answer(served.outputs, found, [HIT] * len(found), {}, Timing(0.0, spent))
        pending = PendingAnswer(self, model, served, options, began)
        if options.cache is not NO_WISH:
            pending.forward = self._forward(served, keys, found, options)
        try:
            return pending.start(items, keys, found, aliases)
        except Problem as problem:
            return fail(problem)

    def look_up(self, served: ServedSignature, keys: Sequence[bytes | None], options: Options) -> list[Buffer | None]:
        """The packed outputs of each key; None where they are missing, or must be computed anew."""
        policy, max_age = options.cache, served.max_age
        if policy is not NO_WISH:
            if policy.no_cache:
                return [None] * len(keys)
            if policy.max_age is not None:
                max_age = policy.max_age if max_age is None else min(max_age, policy.max_age)
        if all(keys):
            return self.cache.lookup(keys, max_age)  # type: ignore[arg-type]
        known = iter(self.cache.lookup([key for key in keys if key], max_age))
        return [next(known) if key else None for key in keys]

    def _forward(
        self, served: ServedSignature, keys: Sequence[bytes | None], found: Sequence[Buffer | None], options: Options
    ) -> str:
        """Why rows are missing: see Answer."""
        policy = options.cache
        if policy.no_cache:
            return "request"
        if policy.max_age is None:
            return "miss"
        missing = [key for key, each in zip(keys, found, strict=True) if key and each is None]
        return "stale" if any(self.cache.lookup(missing, served.max_age)) else "miss"

    def _keys(self, served: ServedSignature, items: Sequence[Item]) -> tuple[list[bytes | None], Mapping[int, bytes]]:
        """A key for each row, and the alias of each upload by its place.

        A key is None for a row that has none yet (a picture unknown) or never will (a fault). UNNAMED stands for a
        picture whose upload is not hashed here: all together would take the reactor too long. Such uploads get their
        aliases one after the other, on the pool, and are looked up as they do: the first need not wait for the last.
        """
        if len(items) == 1 and type(items[0]) is Rows:
            return served.row_keys(items[0]), NONE  # type: ignore[return-value]
        keys: list[bytes | None] = []
        aliases: dict[int, bytes] = {}  # by the place of their picture, to be looked up together
        hashed = 0
        for item in items:
            if type(item) is Rows:
                keys += served.row_keys(item)
            elif type(item) is Picture:
                hashed += len(item.upload)
                if hashed <= LARGE:
                    aliases[len(keys)] = self.alias(served, item)
                keys.append(UNNAMED)
            else:
                keys.append(None)
        if aliases:
            for at, key in zip(aliases, self.cache.lookup_aliases(list(aliases.values())), strict=True):
                keys[at] = key
        return keys, aliases

    @staticmethod
    def alias(served: ServedSignature, picture: Picture) -> bytes:
        """The key under which an upload is known."""
        return served.generation({}).alias_key(picture.upload, picture.decoder.identity)

    def computed(self, batch: Batch, packed: Sequence[Buffer | BaseException]) -> None:
        """A batch has run: counts it and keeps its new rows, whoever still waits for them."""
        self.metrics.batch_rows.observe(len(batch.rows))
        self.metrics.graph_seconds.observe(batch.ran)
        self.metrics.queue_seconds.observe(batch.queued)
        generation: Generation | None = None
        hasty: dict[bytes, Buffer] = {}
        patient: dict[bytes, Buffer] = {}
        for row, outputs in zip(batch.rows, packed, strict=True):
            key = row.data.key
            if key is None or isinstance(outputs, BaseException):
                continue
            generation = row.data.source.generation  # of all that are kept: they share a lane
            (patient if row.priority is BULK else hasty)[key] = outputs
        if hasty:
            self.cache.keep(list(hasty), list(hasty.values()), generation)
        if patient:
            self._patient.append((list(patient), list(patient.values()), generation))
        self._drain()

    def _drain(self) -> None:
        """Keeps what bulk doors have computed, as fast as the cache takes it; nothing of theirs is dropped."""
        while self._patient:
            keys, packed, generation = self._patient.popleft()
            room = self.cache.room_for(packed)
            if room:
                self.cache.keep(keys[:room], packed[:room], generation)
            if room < len(keys):
                self._patient.appendleft((keys[room:], packed[room:], generation))
                if not self._draining:
                    self._draining = True
                    self.cache.when_room(self._go_on_draining)
                return
        waiting, self._until_kept = self._until_kept, []
        for call in waiting:
            call()

    def _go_on_draining(self) -> None:
        self._draining = False
        self._drain()

    def when_kept(self, call: Callable[[], None]) -> None:
        """Calls, now or later, when the cache has taken all that bulk doors have computed so far."""
        if self._patient:
            self._until_kept.append(call)
        else:
            call()

    @staticmethod
    def report(failure: Any) -> None:
        """Logs a fault of ours, with its traceback."""
        log.error("a row failed by a fault of the server", exc_info=(failure.type, failure.value, failure.tb))
