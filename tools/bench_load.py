"""The load that `bench` puts on a server: requests over kept connections, each in its time. Reactor thread.

It shares the cores with the server, so a request costs it little: bytes are made by joining a few, they go to the
socket at once, and of an answer only the head is read. With a rate, a thread that sleeps tells when requests are due,
since a reactor's clock is no finer than a millisecond.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from rowserve.tools.bench_answers import AnswerReader, BrokenAnswer
from rowserve.tools.bench_histogram import Histogram

GRACE_SECONDS = 10.0
RETRY_SECONDS = 0.1
SHORTEST_SLEEP = 0.0002


def start_daemon(run: Callable[[], None]) -> None:
    """A thread that does not keep the process."""
    threading.Thread(target=run, name="pace", daemon=True).start()


class Load:
    """Sends `requests` for `seconds`, or until they end: at `rate` a second, or (None) as fast as the answers come.

    `done` fires when all answers are in, or have not come in time. Latency is in seconds, from the moment a request was
    due; without a rate that is when it is sent.
    """

    def __init__(
        self,
        reactor: Any,
        requests: Iterator[bytes],
        seconds: float,
        rate: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        start_thread: Callable[[Callable[[], None]], None] = start_daemon,
    ) -> None:
        self.latency = Histogram()
        self.statuses: Counter[int] = Counter()
        self.caches: Counter[bytes] = Counter()
        self.faults: Counter[str] = Counter()
        self.in_time = 0
        self.elapsed = 0.0
        self.unsent = 0
        self.done: Deferred[None] = Deferred()
        self.clock = clock
        self._reactor = reactor
        self._start_thread = start_thread
        self._requests = requests
        self._seconds = seconds
        self._step = None if rate is None else 1 / rate
        self._next = 0.0
        self._began = self._end = 0.0
        self._idle: list[Connection] = []
        self._waiting = 0
        self._stopped = False

    def begin(self, host: str, port: int, connections: int) -> None:
        """Connects, and sends from now on."""
        factory = ConnectionFactory(self)
        self._began = self._next = self.clock()
        self._end = self._began + self._seconds
        for _ in range(connections):
            self._reactor.connectTCP(host, port, factory)
        self._reactor.callLater(self._seconds, self.stop)
        if self._step is not None:
            self._start_thread(self._pace)

    def stop(self) -> None:
        """Sends no more, and waits for the answers that are due."""
        if self._stopped:
            return
        self._stopped = True
        now = self.clock()
        self.elapsed = min(now, self._end) - self._began
        if self._step is not None:
            self.unsent = max(0, int((min(now, self._end) - self._next) / self._step))
        self._reactor.callLater(GRACE_SECONDS, self._finish)
        self._see_whether_all_is_in()

    def free(self, connection: Connection) -> None:
        """The connection may send: what is due now, or when it is."""
        if self._stopped:
            self._see_whether_all_is_in()
        elif self._step is None:
            self._send(connection, self.clock())
        elif self._next <= self.clock():
            self._send(connection, self._take())
        else:
            self._idle.append(connection)

    def due(self) -> None:
        """Sends what is due, on the connections that are free."""
        now = self.clock()
        while self._idle and self._next <= now and not self._stopped:
            self._send(self._idle.pop(), self._take())

    def answered(self, connection: Connection, due: float, answer: AnswerReader) -> None:
        """An answer is in."""
        now = self.clock()
        self.latency.add(now - due)
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.caches[answer.cache] += 1
        if now <= self._end:
            self.in_time += 1
        self._waiting -= 1

    def lost(self, connection: Connection, waiting: bool, why: str) -> None:
        """The connection has gone, or could not be made."""
        if connection in self._idle:
            self._idle.remove(connection)
        if waiting:
            self._waiting -= 1
            self.faults[why] += 1
        if self._stopped:
            self._see_whether_all_is_in()

    def failed(self, why: str) -> None:
        """A connection could not be made."""
        self.faults[why] += 1

    @property
    def stopped(self) -> bool:
        """Whether no more is to be sent."""
        return self._stopped

    def later(self, call: Callable[[], None]) -> None:
        """Makes a call after a moment, if there is still something to send then."""
        self._reactor.callLater(RETRY_SECONDS, lambda: None if self._stopped else call())

    def _send(self, connection: Connection, due: float) -> None:
        request = next(self._requests, None)
        if request is None:
            self.stop()
            return
        self._waiting += 1
        connection.send(request, due)

    def _take(self) -> float:
        assert self._step is not None
        due = self._next
        self._next += self._step
        return due

    def _pace(self) -> None:
        """The pacing thread: wakes the reactor when a request is due."""
        while not self._stopped:
            wait = self._next - self.clock()
            if wait <= 0 and self._idle:
                self._reactor.callFromThread(self.due)
            time.sleep(max(SHORTEST_SLEEP, wait))

    def _see_whether_all_is_in(self) -> None:
        if not self._waiting:
            self._finish()

    def _finish(self) -> None:
        if not self.done.called:
            if self._waiting:
                self.faults["no answer"] += self._waiting
            self.done.callback(None)


class Connection(Protocol):
    """One kept connection; at most one request is on its way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._reader = AnswerReader()
        self._due: float | None = None

    def connectionMade(self) -> None:  # noqa: N802
        """See Protocol."""
        assert self.transport is not None
        self.transport.setTcpNoDelay(True)
        self._load.free(self)

    def send(self, request: bytes, due: float) -> None:
        """To the socket at once; what it does not take, the transport writes."""
        transport: Any = self.transport
        self._due = due
        sent = transport.writeSomeData(request)
        if not isinstance(sent, int):
            transport.abortConnection()
        elif sent < len(request):
            transport.write(request[sent:])

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """See Protocol."""
        transport: Any = self.transport
        if self._due is None:
            transport.abortConnection()
            return
        try:
            if not self._reader.feed(data):
                return
        except BrokenAnswer as error:
            self._gone(str(error))
            transport.abortConnection()
            return
        due, self._due = self._due, None
        self._load.answered(self, due, self._reader)
        if self._reader.closes:
            transport.loseConnection()
        else:
            self._load.free(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """See Protocol."""
        self._gone("connection lost")

    def _gone(self, why: str) -> None:
        waiting, self._due = self._due is not None, None
        self._load.lost(self, waiting, why)


class ConnectionFactory(ClientFactory):
    """Makes connections, and makes them again when they are lost."""

    noisy = False

    def __init__(self, load: Load) -> None:
        self._load = load

    def buildProtocol(self, addr: IAddress | None) -> Connection:  # noqa: N802
        """See ClientFactory."""
        return Connection(self._load)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:  # noqa: N802
        """See ClientFactory."""
        if not self._load.stopped:
            connector.connect()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:  # noqa: N802
        """See ClientFactory."""
        self._load.failed("no connection")
        self._load.later(connector.connect)
