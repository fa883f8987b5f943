"""How the server ends: stop listening, finish what runs, flush the cache, leave in time. Reactor thread.

Signal handlers only pass the news to the reactor.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from rowserve.server.clock import Clock

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CLEAN = 0
CUT_SHORT = 1


class Port(Protocol):
    """A listening port."""

    def stopListening(self) -> Any:  # noqa: N802
        """No new connections; may return a Deferred."""


class Connections(Protocol):
    """The clients' connections (an ApiSite, or the gRPC lane)."""

    def drain(self) -> None:
        """No further requests: end each connection after its answer."""

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call when none is left."""

    def abort(self) -> None:
        """Cut them all off."""


class Lifecycle:
    """`stop` ends the server gracefully, within `grace` seconds; called once more, at once.

    `flush` writes what is still to be written (it may return a Deferred); `leave` is called exactly once, with the exit
    code: 0 when everything was finished, 1 when time ran out, 128 + the signal's number after a second signal.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        ports: Sequence[Port],
        connections: Sequence[Connections],
        flush: Callable[[], Any],
        leave: Callable[[int], None],
        grace: float = 30.0,
    ) -> None:
        self._clock = clock
        self._ports = list(ports)
        self._connections = list(connections)
        self._busy = 0
        self._flush = flush
        self._leave = leave
        self._grace = grace
        self._stopping = False
        self._left = False
        self._timer: Any = None

    def handle_signals(
        self, call_from_signal: Callable[..., Any], install: Callable[..., Any] = signal.signal
    ) -> None:
        """SIGTERM and SIGINT stop the server, SIGHUP does nothing. `call_from_signal` is the reactor's callFromThread.

        To be called when the reactor runs: at its start it installs handlers of its own.
        """
        for number in SIGNALS:
            install(number, lambda number, _frame: call_from_signal(self.signalled, number))
        install(signal.SIGHUP, lambda _number, _frame: call_from_signal(self.hung_up))

    def hung_up(self) -> None:
        """SIGHUP has come: a terminal was closed, or somebody wants settings to be read again."""
        self._log.warn("SIGHUP is ignored: models and settings are read at start only")

    def signalled(self, number: int) -> None:
        """A signal has come."""
        if self._stopping:
            self._log.warn("a second signal: leaving at once")
            self._go(128 + number)
        else:
            self.stop()

    def stop(self) -> None:
        """Begin to end."""
        if self._stopping:
            return
        self._stopping = True
        self._log.info("stopping: finishing what runs, at most {grace:g} s", grace=self._grace)
        self._timer = self._clock.callLater(self._grace, self._out_of_time)
        for port in self._ports:
            maybeDeferred(port.stopListening).addErrback(self._complain)
        self._busy = len(self._connections)
        for each in self._connections:
            each.drain()
        for each in self._connections:
            each.when_idle(self._idle)

    def _idle(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._flush_out()

    def _flush_out(self) -> None:
        flushed: Deferred[Any] = maybeDeferred(self._flush)
        flushed.addCallbacks(lambda _: self._go(CLEAN), self._not_flushed)

    def _not_flushed(self, failure: Failure) -> None:
        self._complain(failure)
        self._go(CUT_SHORT)

    def _complain(self, failure: Failure) -> None:
        self._log.failure("while stopping", failure)

    def _out_of_time(self) -> None:
        self._log.warn("still busy after {grace:g} s: leaving", grace=self._grace)
        for each in self._connections:
            each.abort()
        self._go(CUT_SHORT)

    def _go(self, code: int) -> None:
        if self._left:
            return
        self._left = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._leave(code)
