"""The server from its flags to its exit status. Main thread, which is the reactor thread."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from rowserve.graphs.signature import Signature
from rowserve.handlers.items import ModelFace
from rowserve.handlers.problem import Problem
from rowserve.server.assembly import Assembly
from rowserve.server.card import BadSettings
from rowserve.server.config import Config
from rowserve.server.discovery import ModelSource, discover
from rowserve.server.lifecycle import Lifecycle
from rowserve.server.limits import Limits
from rowserve.server.listener import ApiSite
from rowserve.server.models import ModelState
from rowserve.server.site import Api
from rowserve.server.stall import StallGauge
from rowserve.server.units import Bytes, Seconds
from rowserve.tools.options import Refused, settings
from rowserve.tools.run_reactor import ReactorRun, leave_at_once, log_to_stderr

log = logging.getLogger(__name__)
NOT_STARTED = 2
BACKLOG = 1024
SHOWN_ELEMENTS = 16


def serve_http(
    models: Path | None, model: Mapping[str, str], listen: str | None, photos: tuple[str, ...] = (), **flags: Any
) -> int:
    """`rowserve serve`. `photos` go into the curl lines. Raises Refused."""
    log_to_stderr("%(asctime)s %(levelname)s %(message)s")
    config = settings(**flags, models=models and str(models), listen=listen)
    try:
        named = {**config.model, **model}
        sources = discover(Path(config.models) if config.models else None, named)
        host, port = host_and_port(config.listen)
    except (BadSettings, OSError) as error:
        raise Refused(str(error)) from None
    run = ReactorRun()
    server = Server(run.reactor, config, photos)
    status = run.run(partial(server.serve, run, sources, host, port))
    if status:
        server.flush()
        leave_at_once(status)
    server.close()
    return status


def host_and_port(listen: str) -> tuple[str, int]:
    """127.0.0.1:8080, [::1]:8080 or localhost:8080. Raises BadSettings."""
    host, colon, port = listen.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise BadSettings(f"--listen {listen}: write it as HOST:PORT, such as 127.0.0.1:8080")
    host = host.removeprefix("[").removesuffix("]")
    return {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host), int(port)


class Server:
    """Everything that serves. `serve` runs until a signal has ended it; then `close`, or `flush` to leave at once."""

    def __init__(self, reactor: Any, config: Config, photos: tuple[str, ...]) -> None:
        self._reactor = reactor
        self._config = config
        self._photos = photos
        self._assembly = Assembly(reactor, config)
        self._left: Deferred[int] = Deferred()

    async def serve(self, run: ReactorRun, sources: list[ModelSource], host: str, port: int) -> int:
        """Listens, loads, and serves: the exit status."""
        assembly = self._assembly
        stall = assembly.metrics.stall = StallGauge(self._reactor)
        site = ApiSite(
            Api(
                assembly.models,
                assembly.pipeline,
                assembly.cache,
                assembly.metrics,
                limits(self._config),
                self._reactor,
                assembly.defer_to_pool,
                assembly.health,
            )
        )
        endpoint = TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
        try:
            listening: Any = await endpoint(self._reactor, port, BACKLOG, host).listen(site)  # type: ignore[no-untyped-call]
        except CannotListenError as error:
            why = getattr(error.socketError, "strerror", None) or error.socketError
            say(f"cannot listen on {host}:{port}: {why}; name another with --listen HOST:PORT")
            return NOT_STARTED
        stall.start()
        grace = Seconds.parse(self._config.limits.stop)
        lifecycle = Lifecycle(self._reactor, [listening], site, self._sync, self._leave, grace)
        lifecycle.handle_signals(self._reactor.callFromThread)
        loading = gatherResults([assembly.add(source) for source in sources])
        loading.addCallback(self._loaded, base_url(listening.getHost()))
        loading.addErrback(self._crashed)
        return await self._left

    def _loaded(self, states: list[ModelState], url: str) -> None:
        ready = [state.model.face for state in states if state.model is not None]
        if not ready:  # and each of them has had its line in the log
            self._leave(NOT_STARTED)
            return
        # What the models are made of lives as long as the server: a full collection need not walk it each time.
        gc.collect()
        gc.freeze()
        broken = len(states) - len(ready)
        without = f", {broken} broken" if broken else ""
        say(f"serving {len(ready)} model{'s' if len(ready) > 1 else ''}{without} on {url}")
        for face in ready:
            for line in examples(face, url, self._photos):
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

    def flush(self) -> None:
        """Writes what is kept; blocking."""
        self._assembly.cache.close(1.0)

    def close(self) -> None:
        """Ends all threads; blocking."""
        self._assembly.close()


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


def base_url(address: IPv4Address | IPv6Address) -> str:
    """Where the server answers."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{address.port}"


def examples(face: ModelFace, url: str, photos: tuple[str, ...]) -> Iterator[str]:
    """Requests to try, as a shell takes them."""
    for signature in face.signatures.values():
        query = "" if signature == default(face) else f"?signature={signature.name}"
        decoder = face.decoders.get(signature.name)
        if decoder is not None and not isinstance(decoder, Problem):
            parts = " ".join(f"-F file=@{photo}" for photo in photos or ("picture.jpg",))
            yield f"curl {parts} {url}/images/{face.name}{query}"
        else:
            yield f"curl --data-binary {example_row(signature)} {url}/rows/{face.name}{query}"


def default(face: ModelFace) -> Signature | None:
    """The signature that needs no name."""
    try:
        return face.signature()
    except Problem:
        return None


def example_row(signature: Signature) -> str:
    """A row of ones, where it is small enough to read."""
    values: dict[str, str] = {}
    for spec in signature.inputs:
        shape = [size or 1 for size in spec.shape or ()]
        elements = 1
        for size in shape:
            elements *= size
        if elements > SHOWN_ELEMENTS:
            return "@rows.jsonl"
        text = '"text"' if spec.dtype == "string" else "true" if spec.dtype == "bool" else "1"
        for size in reversed(shape):
            text = "[" + ",".join([text] * size) + "]"
        values[spec.name] = text
    if len(values) == 1:
        return f"'{next(iter(values.values()))}'"
    return "'{" + ",".join(f'"{name}":{text}' for name, text in values.items()) + "}'"


def say(line: str) -> None:
    """A line on stderr."""
    click.echo(f"rowserve: {line}", err=True)
    sys.stderr.flush()
