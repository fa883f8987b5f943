"""The gRPC server: an asyncio loop on a thread of its own, the lane, beside the reactor.

The lane reads messages and writes answers; rows are asked for on the reactor. Neither waits for the other: a question
goes over by `callFromThread`, its answer comes back by `call_soon_threadsafe` (`grpc_asking`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from rowserve.handlers.http_headers import cache_status, server_timing
from rowserve.handlers.problem import Problem
from rowserve.server.grpc_asking import Asking, Way
from rowserve.server.grpc_log import tidy_library_log
from rowserve.server.grpc_service import Asked, Method, Service, Several, Stream
from rowserve.server.one_core import Work

try:
    import grpc
    import grpc.aio
except ImportError as error:
    raise ImportError("--grpc needs the package grpcio: pip install 'rowserve[grpc]'") from error

if TYPE_CHECKING:
    from rowserve.handlers.items import Answer
    from rowserve.server.metrics import Metrics
    from rowserve.server.one_core import OneCore
    from rowserve.server.pipeline import RowPipeline

log = logging.getLogger(__name__)
CRASHED = Problem(500, "the server failed; its log says why", reason="crashed")
PATIENT = 1e6  # seconds: until somebody calls `abort`
# A call that comes in the very moment in which grpc.aio stops may never reach its handler, and the stop would wait for
# it: once no handler runs, answers on their way out have so many seconds.
LINGER = 5.0
END_SECONDS = 5.0


def try_to_bind(address: str) -> None:
    """Raises OSError with the system's reason where nothing can listen: gRPC would print that to stderr, and raise
    without it."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, where = found[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
    except OSError as error:
        raise cannot_listen(address, error.strerror or error) from None


def cannot_listen(address: str, why: object) -> OSError:
    """The error for people."""
    return OSError(f"cannot listen on {address}: {why}; name another with --grpc HOST:PORT")


class GrpcLane:
    """A `lifecycle.Connections`: `start` once, then `drain` and `when_idle`, or `abort`; all on the reactor thread.

    `services` by their names; messages are held to `body_bytes`. A call counts in `rowserve_request_seconds` with its
    path as the route and the name of its status as the code.
    """

    def __init__(
        self,
        services: Sequence[Service],
        pipeline: RowPipeline,
        metrics: Metrics,
        body_bytes: int,
        reactor: Any,
        one_core: OneCore | None = None,
    ) -> None:
        self._services = services
        self._pipeline = pipeline
        self._metrics = metrics
        self._body_bytes = body_bytes
        self._reactor = reactor
        self._one_core = one_core
        self._calls = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="grpc", daemon=True)
        self._over = Way(reactor.callFromThread)
        self._back = Way(self._wake)
        self._server: Any = None
        self._running = 0
        self._quiet = asyncio.Event()
        self._draining = False
        self._idle = False
        self._when_idle: list[Callable[[], None]] = []

    # On the reactor thread

    def start(self, address: str) -> int:
        """Listens on HOST:PORT and gives the port. Waits some milliseconds for the lane. Raises OSError, whose text is
        for people."""
        try_to_bind(address)
        self._thread.start()
        if self._one_core is not None:
            self._one_core.watch(lambda: Work(self._calls))
        try:
            port: int = self._on_lane(self._listen(address)).result()
            return port
        except RuntimeError as error:
            self._end()
            raise cannot_listen(address, error) from None

    def drain(self) -> None:
        """No further calls; those that run are finished."""
        if self._draining:
            return
        self._draining = True
        stopped = self._on_lane(self._finish())
        stopped.add_done_callback(lambda _: self._reactor.callFromThread(self._now_idle))

    def when_idle(self, call: Callable[[], None]) -> None:
        """Calls when no call is left; after `drain`."""
        if self._idle:
            call()
        else:
            self._when_idle.append(call)

    def abort(self) -> None:
        """Ends all calls at once; those waiting for them hear of it by `when_idle`."""
        self.drain()
        if not self._idle:
            self._on_lane(self._server.stop(None))

    def _now_idle(self) -> None:
        self._idle = True
        self._end()
        waiting, self._when_idle = self._when_idle, []
        for call in waiting:
            call()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_SECONDS)

    def _wake(self, make_all: Callable[[], None]) -> None:
        if not self._loop.is_closed():  # what runs when all calls are cut off may still bring its answer
            self._loop.call_soon_threadsafe(make_all)

    def _on_lane(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    # On the lane

    def _live(self) -> None:
        with nullcontext() if self._one_core is None else self._one_core.joined():
            self._run()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        rest = asyncio.all_tasks(self._loop)
        for task in rest:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self._loop.close()

    async def _listen(self, address: str) -> int:
        tidy_library_log()
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", self._body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else a second server on the same port would take calls of the first
            )
        )
        for service in self._services:
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(self._handler(service, name, method))
                for name, method in service.methods.items()
            }
            handlers |= {
                name: grpc.stream_stream_rpc_method_handler(self._stream_handler(service, name, stream))
                for name, stream in service.streams.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        port: int = self._server.add_insecure_port(address)
        await self._server.start()
        return port

    async def _finish(self) -> None:
        stopping = asyncio.ensure_future(self._server.stop(PATIENT))
        while self._running:
            self._quiet.clear()
            await self._quiet.wait()
        await self._server.stop(LINGER)
        await stopping

    def _handler(self, service: Service, name: str, method: Method) -> Callable[[bytes, Any], Any]:
        route = f"/{service.name}/{name}"

        async def handle(message: bytes, context: Any) -> bytes:
            reply = await self._response(service, route, method, message, context)
            if isinstance(reply, bytes):
                return reply
            code, told = reply
            return await context.abort(grpc.StatusCode[code], told)  # type: ignore[no-any-return]

        return handle

    def _stream_handler(self, service: Service, name: str, stream: Stream) -> Callable[[Any, Any], Any]:
        route = f"/{service.name}/{name}"

        async def handle(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for message in messages:
                reply = await self._response(service, route, stream.method, message, context)
                yield stream.answer(reply) if isinstance(reply, bytes) else stream.fault(reply[1])

        return handle

    async def _response(
        self, service: Service, route: str, method: Method, message: bytes, context: Any
    ) -> bytes | tuple[str, str]:
        """The response to one message, or the code and the text of what is wrong; either is counted."""
        count, clock = self._metrics.request, self._loop.time
        began = clock()
        self._running += 1
        self._calls += 1
        try:
            reply = method(message, dict(context.invocation_metadata()))
            response = reply if isinstance(reply, bytes) else await self._ask(reply, context)
            count(route, "OK", clock() - began)
            return response
        except Problem as problem:
            code, told = service.fault(problem.with_traceback(None))  # its frames hold the message and the answer
        except asyncio.CancelledError:
            left = context.time_remaining()
            late = left is not None and left <= 0
            count(route, "DEADLINE_EXCEEDED" if late else "CANCELLED", clock() - began)
            raise
        except Exception:
            log.exception("%s failed", route)
            code, told = service.fault(CRASHED)
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()
        count(route, code, clock() - began)
        return code, told

    async def _ask(self, reply: Asked | Several, context: Any) -> bytes:
        parts: list[bytes] = []
        trailers: list[tuple[str, str]] = []
        for asked in (reply,) if isinstance(reply, Asked) else reply.asked:
            landing: asyncio.Future[Answer] = self._loop.create_future()
            asking = Asking(asked, context.time_remaining(), landing, self._over, self._back)
            asking.begin(self._pipeline)
            try:
                answer = await landing
            except asyncio.CancelledError:
                asking.leave()
                raise
            trailers += (("cache-status", cache_status(answer)), ("server-timing", server_timing(answer.timing)))
            parts.append(asked.question.encode(answer))
        context.set_trailing_metadata(trailers)
        return parts[0] if isinstance(reply, Asked) else reply.join(parts)
