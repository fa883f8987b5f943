"""The server from its flags to its exit status. Main thread, which is the reactor thread."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from rowserve.cache import stats as states
from rowserve.cache.background_walk import BackgroundWalk
from rowserve.cache.integrity import ROWS
from rowserve.server.accepting import ApiPort, Reserve
from rowserve.server.address import NATIVE, Address
from rowserve.server.admission import Admission, default_connections, descriptors
from rowserve.server.assembly import Assembly
from rowserve.server.card import BadSettings
from rowserve.server.config import Config, cache_folder, listening
from rowserve.server.discovery import ModelSource, discover
from rowserve.server.lifecycle import Connections, Lifecycle, Port
from rowserve.server.limits import Limits
from rowserve.server.listener import ApiSite
from rowserve.server.models import ModelState
from rowserve.server.origins import OriginRule
from rowserve.server.passed_over import passed_over, passed_over_in
from rowserve.server.site import Api
from rowserve.server.stall import StallGauge
from rowserve.server.units import Bytes, Seconds
from rowserve.tools.example_requests import examples
from rowserve.tools.options import Refused, settings
from rowserve.tools.run_reactor import ReactorRun, leave_at_once, log_to_stderr

log = logging.getLogger(__name__)
NOT_STARTED = 2
BACKLOG = 1024
# New objects after which Python looks for garbage in cycles: so many take a third of a millisecond. Its own 700 are the
# objects of 25 requests, and what waits for the model would be looked through again and again.
COLLECTED = 10_000


def serve_http(
    models: Path | None,
    model: Mapping[str, str],
    listen: tuple[str, ...] = (),
    photos: tuple[str, ...] = (),
    **flags: Any,
) -> int:
    """`rowserve serve`. `photos` go into the curl lines. Raises Refused."""
    log_to_stderr("%(asctime)s %(levelname)s %(message)s")
    config = settings(**flags, models=models and str(models), listen=list(listen) or None)
    try:
        named = {**config.model, **model}
        models = Path(config.models) if config.models else None
        for line in chain(passed_over(models) if models else (), *map(passed_over_in, map(Path, named.values()))):
            say(line)
        sources = discover(models, named)
        addresses = listening(config)
        grpc = Address.parse(config.grpc, config.http.profile) if config.grpc else None
    except (BadSettings, OSError) as error:
        raise Refused(str(error)) from None
    run = ReactorRun()
    server = Server(run.reactor, config, photos)
    status = run.run(partial(server.serve, sources, addresses, grpc))
    if status:
        server.flush()
        leave_at_once(status)
    server.close()
    return status


class Server:
    """Everything that serves. `serve` runs until a signal has ended it; then `close`, or `flush` to leave at once."""

    def __init__(self, reactor: Any, config: Config, photos: tuple[str, ...]) -> None:
        self._reactor = reactor
        self._config = config
        self._photos = photos
        self._assembly = Assembly(reactor, config)
        self._ports: list[Port] = []
        self._doors: list[Connections] = []
        self._urls: list[str] = []
        self._left: Deferred[int] = Deferred()
        self._walk: BackgroundWalk | None = None

    async def serve(self, sources: list[ModelSource], addresses: list[Address], grpc: Address | None) -> int:
        """Listens, loads, and serves: the exit status."""
        assembly = self._assembly
        stall = assembly.metrics.stall = StallGauge(self._reactor)
        api = Api(
            assembly.models,
            assembly.pipeline,
            assembly.cache,
            assembly.metrics,
            limits(self._config),
            self._reactor,
            assembly.defer_to_pool,
            assembly.health,
            Admission(self._config.limits.connections or default_connections(descriptors())),
        )
        assembly.metrics.registry.register(api.admission)
        self._reserve = Reserve(self._reactor, api.admission)
        for address in addresses:
            try:
                self._listen(api, address)
            except CannotListenError as error:
                why = getattr(error.socketError, "strerror", None) or error.socketError
                say(f"cannot listen on {address}: {why}; name another with --listen HOST:PORT")
                return NOT_STARTED
        try:
            if grpc is not None:
                self._listen_grpc(api, grpc)
        except (ImportError, OSError) as error:
            say(str(error))
            return NOT_STARTED
        stall.start()
        grace = Seconds.parse(self._config.limits.stop)
        lifecycle = Lifecycle(self._reactor, self._ports, self._doors, self._sync, self._leave, grace)
        lifecycle.handle_signals(self._reactor.callFromThread)
        loading = gatherResults([self._load(source) for source in sources])
        loading.addCallback(self._loaded)
        loading.addErrback(self._crashed)
        return await self._left

    def _load(self, source: ModelSource) -> Deferred[ModelState]:
        """Loads a version, and says when that begins and ends; why one is broken is a line in the log."""
        version = f"{source.name} version {source.version}"
        began = self._reactor.seconds()

        def loaded(state: ModelState) -> ModelState:
            if state.model is not None:
                say(f"{version} is ready after {self._reactor.seconds() - began:.1f} s")
            return state

        if not source.fault:
            say(f"loading {version} from {source.path}")
        return self._assembly.add(source).addCallback(loaded)

    def _listen(self, api: Api, address: Address) -> None:
        site = ApiSite(api, address.profile)
        port: Any = ApiPort(self._reserve, address.port, site, BACKLOG, address.host, self._reactor)
        port.startListening()
        self._ports.append(port)
        self._doors.append(site)
        bound = port.getHost()
        site.authorize = OriginRule.of(bound.host, self._config.http.hosts, self._config.http.origins).authorize
        marked = "" if address.profile == NATIVE else f" (profile {address.profile})"
        self._urls.append(f"http://{Address(bound.host, bound.port)}{marked}")

    def _listen_grpc(self, api: Api, address: Address) -> None:
        from rowserve.server.grpc_services import grpc_lane

        lane = grpc_lane(api, self._assembly.one_core, address.profile)
        self._urls.append(f"grpc://{Address(address.host, lane.start(str(address)))}")
        self._doors.append(lane)

    def _loaded(self, states: list[ModelState]) -> None:
        ready = [state.model.face for state in states if state.model is not None]
        if not ready:  # and each of them has had its line in the log
            self._leave(NOT_STARTED)
            return
        self._watch_cache()
        # What the models are made of lives as long as the server: a full collection need not walk it each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECTED)
        broken = len(states) - len(ready)
        without = f", {broken} broken" if broken else ""
        say(f"serving {len(ready)} model{'s' if len(ready) > 1 else ''}{without} on {self._urls[0]}")
        for url in self._urls[1:]:
            say(f"  and on {url}")
        say("requests to try:")
        for face in ready:
            for line in examples(face, self._urls[0].partition(" ")[0], self._photos):
                click.echo(f"  {line}", err=True)

    def _leave(self, status: int) -> None:
        if not self._left.called:
            self._left.callback(status)

    def _crashed(self, failure: Failure) -> None:
        log.error("a model did not load by a fault of this program", exc_info=failure.value)
        self._leave(NOT_STARTED)

    def _sync(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def synced(error: Exception | None) -> None:
            if error is not None:  # the cache has troubles of its own; every answer was given
                log.warning("stopping: %s", error)
            done.callback(None)

        self._assembly.cache.sync(synced)
        return done

    def _watch_cache(self) -> None:
        """Has the cache file looked at now and then, for damage."""
        cache = self._assembly.cache
        if cache.stats.state == states.OK:
            rows = cache_folder(self._config.cache) / ROWS
            self._walk = BackgroundWalk(rows, cache.found_damaged, cache.forget, self._reactor.callFromThread)
            self._assembly.start_thread(self._walk.run)

    def flush(self) -> None:
        """Writes what is kept; blocking."""
        self._stop_walk()
        self._assembly.cache.close(1.0)

    def close(self) -> None:
        """Ends all threads; blocking."""
        self._stop_walk()
        self._assembly.close()

    def _stop_walk(self) -> None:
        if self._walk is not None:
            self._walk.stop()


def limits(config: Config) -> Limits:
    """The limits that the settings name."""
    said = config.limits
    return Limits(
        body_bytes=Bytes.parse(said.body),
        parts=said.parts,
        headers_seconds=Seconds.parse(said.headers),
        idle_seconds=Seconds.parse(said.idle),
        body_rate=float(said.body_rate),
    )


def say(line: str) -> None:
    """A line on stderr."""
    click.echo(f"rowserve: {line}", err=True)
    sys.stderr.flush()
