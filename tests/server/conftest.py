from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rowserve.cache.books import About, Books
from rowserve.cache.memory_store import MemoryStore
from rowserve.cache.row_cache import RowCache
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, CachePolicy, Item, ModelFace, Options, Outcome, Priority
from rowserve.server.batcher import Batcher
from rowserve.server.metrics import Metrics
from rowserve.server.models import ServedModel, ServedSignature
from rowserve.server.pipeline import RowPipeline
from rowserve.server.row_queue import BatchLimits
from tests.doubles import ArithmeticSession, SteppedGraphThread, SteppedPool


class Asked:
    """One question to the pipeline: its answer, if it has come, or what failed it whole."""

    def __init__(self, answer: Answer | Deferred[Answer]) -> None:
        self.at_once = not isinstance(answer, Deferred)
        self.answer: Answer | None = None
        self.failure: BaseException | None = None
        self.deferred = answer if isinstance(answer, Deferred) else None
        if isinstance(answer, Deferred):
            answer.addCallbacks(self._answered, self._failed)
        else:
            self.answer = answer

    def _answered(self, answer: Answer) -> None:
        assert self.answer is None
        self.answer = answer

    def _failed(self, failure: Any) -> None:
        assert self.failure is None
        self.failure = failure.value

    @property
    def outcomes(self) -> list[str]:
        assert self.answer is not None
        return [outcome.value for outcome in self.answer.outcomes]

    @property
    def doubles(self) -> list[float]:
        """The first number of each row's `double`."""
        assert self.answer is not None
        return [float(self.answer.row(at)["double"].flat[0]) for at in range(len(self.answer))]

    def doubles_but(self, *places: int) -> list[float]:
        """The same without the rows at these places."""
        assert self.answer is not None
        rows = [at for at in range(len(self.answer)) if at not in places]
        return [float(self.answer.row(at)["double"].flat[0]) for at in rows]

    def hang_up(self) -> None:
        assert self.deferred is not None
        self.deferred.cancel()


def new_store() -> MemoryStore:
    """A store in memory that holds what a new cache file holds."""
    store = MemoryStore()
    with store.update() as update:
        books = Books(update, 0)
        books.describe(About(16 << 20, "mark"))
        books.finish()
    return store


class PipelineBench:
    """A pipeline with a stepped graph, a stepped decode pool, a stepped clock and a cache in memory."""

    def __init__(
        self,
        *signatures: Signature,
        cache: RowCache | None = None,
        enabled: bool = True,
        ttl: float | None = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.wall = 1_000_000.0
        self.session = ArithmeticSession(*signatures)
        self.graph = SteppedGraphThread(self.session)
        self.pool = SteppedPool()
        self.metrics = Metrics()
        self.cache = cache or RowCache(new_store(), clock=lambda: self.wall, start_thread=lambda run: None)
        self.pipeline = RowPipeline(self.cache, self.clock, self.metrics, self.pool.defer)
        self.model = self.serve(enabled=enabled, ttl=ttl, limits=BatchLimits(**limits))
        self.signature = self.session.signatures[0]

    def serve(self, *, enabled: bool, ttl: float | None, limits: BatchLimits) -> ServedModel:
        about = self.session.description
        return ServedModel(
            ModelFace("arithmetic", 1, about.signatures),
            about,
            {s.name: ServedSignature(s, self.cache, about, enabled=enabled, ttl=ttl) for s in self.session.signatures},
            self.graph,  # type: ignore[arg-type]
            Batcher(self.graph, limits, self.clock, self.pipeline.computed),  # type: ignore[arg-type]
            self.metrics,
        )

    def ask(
        self,
        *items: Item,
        priority: Priority = Priority.INTERACTIVE,
        timeout: float | None = None,
        signature: Signature | None = None,
        **policy: Any,
    ) -> Asked:
        options = Options("test", priority, timeout, CachePolicy(**policy))
        asked = Asked(self.pipeline.answer(self.model, signature or self.signature, items, options))
        self.clock.advance(0)  # the reactor's turn ends
        return asked

    def answer(self, *items: Item, **options: Any) -> Asked:
        """Asks, and lets pool and graph do all they have to."""
        asked = self.ask(*items, **options)
        self.run()
        return asked

    def run(self) -> None:
        while self.pool.calls or self.begun() or self.graph.calls:
            self.pool.step_all()
            self.begun()
            self.graph.step_all()

    def begun(self) -> bool:
        """Whether the graph has something to do, when the reactor's turn has ended."""
        if self.model.batcher._waking:
            self.clock.advance(0)
        return bool(self.graph.inbox)

    def write(self) -> None:
        """Lets the cache's writer do what it has to."""
        writer = self.cache._writer
        assert writer is not None
        while writer._busy():
            writer.step()

    @property
    def counts(self) -> dict[str, int]:
        """Rows asked, pending and by outcome, if there are any."""
        counts = self.metrics.rows("arithmetic", 1, "test")
        told = {"asked": counts.asked, "pending": counts.pending, **dict(counts.by_outcome())}
        assert counts.asked == counts.pending + sum(number for _, number in counts.by_outcome())
        assert sum(counts.reasons.values()) == counts.failed
        return {name: number for name, number in told.items() if number}

    def reasons(self) -> dict[str, int]:
        return dict(self.metrics.rows("arithmetic", 1, "test").reasons)


@pytest.fixture
def bench() -> PipelineBench:
    return PipelineBench()


def outcomes(asked: Sequence[Asked]) -> dict[str, int]:
    """How often each outcome came."""
    every = [outcome for one in asked for outcome in one.outcomes]
    return {outcome.value: every.count(outcome.value) for outcome in Outcome if outcome.value in every}
