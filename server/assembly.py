"""Builds everything once, top to bottom, out of the settings: cache, pipeline and models. Reactor thread.

Every door (the server, infer, warm) is built on this. What blocks is done before the reactor runs, or on graph threads.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from rowserve.cache.opening import open_cache
from rowserve.cache.row_cache import RowCache
from rowserve.graphs.description import ModelDescription, description_name
from rowserve.graphs.errors import GraphError
from rowserve.graphs.execution import schedulable_cores
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.run_watch import RunWatch
from rowserve.graphs.signature import DEFAULT_SIGNATURE
from rowserve.graphs.thread import GraphThread, Session
from rowserve.handlers.items import ModelFace, plain_names
from rowserve.handlers.pictures import picture_decoders
from rowserve.server.batcher import Batcher
from rowserve.server.card import BadSettings, Card
from rowserve.server.config import Config, cache_bytes, cache_folder
from rowserve.server.decode_memory import DecodeMemory
from rowserve.server.discovery import ModelSource
from rowserve.server.engine_threads import load_patiently
from rowserve.server.labels import labels_of
from rowserve.server.load_watch import STUCK_SECONDS, LoadWatch
from rowserve.server.metrics import Metrics
from rowserve.server.models import Models, ModelState, ServedModel, ServedSignature
from rowserve.server.one_core import LinuxCores, OneCore, Work
from rowserve.server.pipeline import RowPipeline
from rowserve.server.row_queue import BatchLimits
from rowserve.server.units import Bytes
from rowserve.server.unsent import Unsent

log = logging.getLogger(__name__)


class Assembly:
    """The parts that every door shares. `add` models, use `pipeline`, then `close` once the reactor is done."""

    def __init__(self, reactor: Any, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.models = Models()
        decoders = max(2, schedulable_cores())
        self.pool = ThreadPool(decoders, decoders, "decode")  # all begin now: one that began later might share our core
        self.one_core = OneCore(reactor, LinuxCores())
        self._reactor = reactor
        self._threads: list[threading.Thread] = []
        self._graphs: list[GraphThread] = []
        self.cache = self._open_cache()
        unsent = Unsent(reactor, Bytes.parse(config.limits.unsent))
        decode_memory = DecodeMemory(Bytes.parse(config.limits.decoding))
        self.metrics.registry.register(unsent)
        self.metrics.registry.register(decode_memory)
        self.pipeline = RowPipeline(self.cache, reactor, self.metrics, self.defer_to_pool, unsent, decode_memory)
        self.metrics.cache_stats = lambda: self.cache.stats
        self.metrics.queue_rows = lambda: sum(s.model.batcher.rows for s in self.models.states() if s.model)
        self.metrics.alone = self._alone
        self.metrics.models = self.models.states
        self.pool.start()
        self.one_core.start()

    def _open_cache(self) -> RowCache:
        settings = self.config.cache
        if not settings.enabled:
            return RowCache(call_in_reactor=self._reactor.callFromThread)
        return open_cache(
            cache_folder(settings),
            cache_bytes(settings.size) if settings.size else None,
            clock=time.time,
            start_thread=self.start_thread,
            call_in_reactor=self._reactor.callFromThread,
            log=log.warning,
        )

    def start_thread(self, live: Callable[[], None]) -> threading.Thread:
        """Starts a thread that `close` waits for."""

        def run() -> None:
            with self.one_core.joined():
                live()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def defer_to_pool(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Makes a call on the decode pool."""
        return deferToThreadPool(self._reactor, self.pool, call, *args)

    def add(self, source: ModelSource, *, lazy: bool = False) -> Deferred[ModelState]:
        """Loads a version on a graph thread of its own; fires with its state, ready or broken.

        A `lazy` one that has been loaded before is ready at once, and its graph is loaded when a row is missing.
        """
        state = self.models.expect(source.name, source.version)
        done: Deferred[ModelState] = Deferred()
        settings = load_settings(source.card, self.config)
        known: ModelDescription | None = None
        runs = RunWatch(time.monotonic)

        def load() -> Session:
            with runs.here():
                return load_session(source, settings, known)

        graph, forget = self._graph_thread(load)
        try:
            if source.fault:
                raise BadSettings(source.fault)
            name = description_name(fingerprint(source.path), settings)
            known = self._recall(name)
            if known is not None and lazy:
                self._ready(state, source, known, graph)
                done.callback(state)
                return done
        except (GraphError, BadSettings, ValueError) as error:
            done.callback(broken(state, error))
            return done

        def give_up(why: str) -> None:
            forget()
            done.callback(broken(state, TimeoutError(why)))

        watch = LoadWatch(self._reactor, self.config.limits.load, runs, give_up)

        def loaded(result: ModelDescription | BaseException) -> None:
            if done.called:  # it is broken already, and stays so
                graph.stop()
                return
            watch.stop()
            try:
                if isinstance(result, BaseException):
                    raise result
                self._ready(state, source, result, graph)
                self.cache.remember(name, result.to_json())
            except (GraphError, BadSettings) as error:
                broken(state, error)
            except BaseException as error:
                log.error("model %s did not load", source.name, exc_info=error)
                broken(state, error)
            done.callback(state)

        graph.run(lambda session: session.description, loaded)
        return done

    def _graph_thread(self, load: Callable[[], Session]) -> tuple[GraphThread, Callable[[], None]]:
        """One that loads with `load`, and what to call where it may never end: `close` does not wait for it then."""
        started: list[threading.Thread] = []

        def forget() -> None:
            for thread in started:
                self._threads.remove(thread)

        graph = GraphThread(
            lambda: load_patiently(load, self.one_core.apart),
            start_thread=lambda live: started.append(self.start_thread(live)),
            call_in_reactor=self._reactor.callFromThread,
            clock=time.monotonic,
        )
        self._graphs.append(graph)
        return graph, forget

    def _recall(self, name: bytes) -> ModelDescription | None:
        """What an earlier load found of a model."""
        document = self.cache.recall(name)
        try:
            return None if document is None else ModelDescription.from_json(document)
        except ValueError:
            return None

    def _ready(self, state: ModelState, source: ModelSource, about: ModelDescription, graph: GraphThread) -> None:
        card = source.card
        face = ModelFace(
            source.name,
            source.version,
            about.signatures,
            labels_of(source, about),
            picture_decoders(card.picture, about.signatures, self.config.limits.pixels),
            default=default_signature(source, about),
            engine=card.engine,
        )
        limits = BatchLimits(
            card.batch.max_rows,
            card.batch.max_wait_ms / 1000,
            self.config.limits.queue_rows,
            Bytes.parse(self.config.limits.queue_bytes),
        )
        counts = self.metrics.batches(source.name, source.version)

        def computed(batch: Any, packed: Any) -> None:
            waited = sum([batch.started - row.arrived for row in batch.rows])
            counts.add(len(batch.rows), waited, batch.ran, time.time(), batch.reason)
            self.pipeline.computed(batch, packed)

        self.one_core.watch(lambda: Work(*counts.total()))
        batcher = Batcher(graph, limits, self._reactor, computed)
        signatures = {
            signature.name: ServedSignature(
                signature,
                self.cache,
                about,
                enabled=card.cache.enabled,
                ttl=card.cache.max_age,
                name=f"{source.name}/{source.version}",
            )
            for signature in about.signatures.values()
        }
        for note in about.notes:
            log.warning("model %s version %d: %s", source.name, source.version, note)
        state.model = ServedModel(face, about, signatures, graph, batcher, self.metrics)
        state.state = "ready"

    def _alone(self) -> Iterator[tuple[str, str, str]]:
        for state in self.models.states():
            for signature in state.model.face.signatures.values() if state.model else ():
                if signature.alone:
                    yield state.name, str(state.version), signature.name

    def health(self) -> str:
        """What makes the process not live, or "": a session call that does not come back."""
        for state in self.models.states():
            if state.model is not None and state.model.thread.busy_seconds() > STUCK_SECONDS:
                return f"a session call of model {state.name} has not come back for {STUCK_SECONDS:g} s"
        return ""

    def close(self, timeout: float = 10.0) -> None:
        """Flushes the cache and ends all threads; blocking, when the reactor is done."""
        self.one_core.stop()
        self.cache.close(timeout)
        for graph in self._graphs:
            graph.stop()
        self.pool.stop()
        until = time.monotonic() + timeout  # for all together: one that hangs in a load or a run never ends
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))


def load_settings(card: Card, config: Config) -> LoadSettings:
    """What the card and the settings say of loading."""
    return LoadSettings(
        static_inputs=card.static_inputs,
        outputs=card.outputs,
        allowed_ops=card.allow_ops,
        max_rows=card.batch.max_rows,
        exact=card.cache.exact,
        trust="rows" if card.batch.trust == "rows" else "",
        intra_op_threads=config.intra_op_threads,
        inter_op_threads=config.inter_op_threads,
        engine=card.engine,
        precision=card.precision if card.engine != "tensorflow" else "",
    )


def load_session(source: ModelSource, settings: LoadSettings, known: ModelDescription | None) -> Session:
    """Loads, tests and warms a model; the graph thread waits for it. Imports its engine: nothing does so earlier."""
    from rowserve.graphs.loading import load

    session = load(source.path, settings, known)
    # TensorFlow leaves half a million objects that never go. Every full garbage collection would walk them all, some
    # 300 ms of which the reactor stands still; frozen, they are passed over.
    gc.collect()
    gc.freeze()
    return session


def broken(state: ModelState, error: BaseException) -> ModelState:
    """Notes that a version did not load; the others go on."""
    state.state, state.fault = "broken", str(error) or type(error).__name__
    log.error("model %s version %d did not load: %s", state.name, state.version, state.fault)
    return state


def default_signature(source: ModelSource, about: ModelDescription) -> str:
    """The signature of clients that name none. Raises BadSettings where the card names one that is not there."""
    wanted = source.card.signature
    if wanted and wanted not in about.signatures:
        there = plain_names(sorted(about.signatures))
        raise BadSettings(f"model {source.name}: its card says signature = {wanted!r}; there is: {there}")
    return wanted or DEFAULT_SIGNATURE
