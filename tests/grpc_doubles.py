"""A gRPC lane over a pipeline that steps by hand: the test's thread is the reactor, the client's calls are futures."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from rowserve.server.grpc_lane import GrpcLane
from rowserve.server.grpc_service import Service

END_SECONDS = 60  # a hang is a failure


class SteppedReactor:
    """What the lane needs of a reactor; calls from other threads are made when the test says so."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.calls.put((call, *arguments))

    def step(self) -> None:
        """Waits for the next call from a thread, and makes it."""
        call, *arguments = self.calls.get(timeout=END_SECONDS)
        call(*arguments)

    def until(self, done: Callable[[], bool]) -> None:
        """Makes calls until it is so."""
        end = time.monotonic() + END_SECONDS
        while not done():
            assert time.monotonic() < end
            try:
                call, *arguments = self.calls.get(timeout=0.005)
            except queue.Empty:
                continue
            call(*arguments)


class Client:
    """Calls of methods by their paths, bytes in and bytes out."""

    def __init__(self, reactor: SteppedReactor, port: int) -> None:
        self.reactor = reactor
        self.port = port
        # A connection of its own: else gRPC would lend it that of another client of the same port, which may be ending.
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])

    def begin(self, path: str, message: bytes = b"", **more: Any) -> Any:
        """A call that runs."""
        return self.channel.unary_unary(path).future(message, **more)

    def call(self, path: str, message: bytes = b"", **more: Any) -> Any:
        """A call that has ended."""
        call = self.begin(path, message, **more)
        self.reactor.until(call.done)
        return call


@contextmanager
def serving(
    services: list[Service], pipeline: Any, metrics: Any, body_bytes: int = 1 << 20
) -> Iterator[tuple[GrpcLane, Client]]:
    """A lane that listens, and a client of it."""
    reactor = SteppedReactor()
    lane = GrpcLane(services, pipeline, metrics, body_bytes, reactor)
    client = Client(reactor, lane.start("127.0.0.1:0"))
    try:
        yield lane, client
    finally:
        client.channel.close()
        idle: list[bool] = []
        lane.when_idle(lambda: idle.append(True))
        lane.abort()
        reactor.until(lambda: bool(idle))
