"""Who waits for whom on a connection, and until when, by absolute deadlines, which no byte puts off. Reactor thread."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Server
from zope.interface import implementer

from rowserve.server.deadlines import NEVER

if TYPE_CHECKING:
    from rowserve.server.clock import Clock
    from rowserve.server.limits import Limits
    from rowserve.server.outbox import Outbox
    from rowserve.server.unsent import Unsent

# An answer that comes in pieces is paced by the socket: it must feel when that is full.
MOST_UNSENT = 65536
# A socket is read in steps of 64 KiB, or of a request with a large body, up to this.
MOST_READ = 262144


class Phase(Enum):
    """What the connection waits for; each has its own deadline."""

    HEAD = "the headers of a request"
    IDLE = "another request"
    BODY = "the body of a request"
    BUSY = "our answer"
    DEAF = "our answer, whatever else the client sends"
    LINGER = "the client to stop sending: it has its answer"
    CLOSING = "the last bytes to go out"


class Hold(Enum):
    """Why nothing is read; reading goes on when no reason is left."""

    BODY = "the request takes no more of its body for now"
    TURN = "what has come waits for the reactor's next turn"
    AHEAD = "too much has come ahead of its turn"
    OUTPUT = "the client does not take its answers"


@implementer(IPushProducer)
class PacedProtocol(Protocol):
    """The two sides of a connection, each as fast as the other takes it.

    `deadline` is the next of two: the phase's, and the one for taking an answer. `producer` writes the current answer.
    """

    transport: Any

    def __init__(self, clock: Clock, limits: Limits, outbox: Outbox, debts: Unsent) -> None:
        self.clock = clock
        self._outbox = outbox
        self._debts = debts
        self.taken = 0
        self._unsent = b""
        self.limits = limits
        self.deadline = NEVER
        self.producer: Any = None
        self.phase = Phase.HEAD
        self._phase_deadline = NEVER
        self._write_deadline = NEVER
        self._holds: set[Hold] = set()
        self._tcp: Server | None = None
        self._lingered = 0
        self._linger_until = NEVER
        self.patient = True  # with a client that has its answer, but still sends

    def connectionMade(self) -> None:  # noqa: N802
        """Takes the transport."""
        if isinstance(self.transport, Server):
            self._tcp = self.transport
            self._tcp.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    # Until when

    def enter(self, phase: Phase, seconds: float = NEVER) -> None:
        """The connection waits for something else now, so long at most."""
        self.phase = phase
        self.due_in(seconds)

    def due_in(self, seconds: float) -> None:
        """So long from now."""
        due = self._phase_deadline = self.clock.seconds() + seconds
        self.deadline = due if due < self._write_deadline else self._write_deadline

    # Bytes out

    def write(self, data: bytes) -> None:
        """Sends the data in this turn of the reactor, past the transport's own buffer, where nothing waits there: that
        saves two system calls and a turn for each answer."""
        tcp = self._tcp
        if tcp is None or tcp.dataBuffer or tcp._tempDataBuffer:
            self.transport.write(data)
        elif self._unsent:
            self._unsent += data
            if len(self._unsent) > MOST_UNSENT:
                self.send_now()
        else:
            self._unsent = data
            self._outbox.put(self)

    def send_now(self) -> None:
        """Sends what the socket takes; the transport sends the rest."""
        data, self._unsent = self._unsent, b""
        if not data or self._tcp is None:
            return
        try:
            sent = self._tcp.socket.send(data)
        except OSError:  # it is full, or the connection is lost, as the transport will find
            sent = 0
        if sent < len(data):
            self.transport.write(data[sent:])
            self._debts.owe(self)

    @property
    def owed(self) -> int:
        """The bytes that wait for the client."""
        owed = len(self._unsent)
        if self._tcp is not None:
            owed += len(self._tcp.dataBuffer) - self._tcp.offset + self._tcp._tempDataLen
        return owed if self.producer is None else owed + self.producer.owed

    @property
    def output_full(self) -> bool:
        """Whether the client does not take its answers."""
        return Hold.OUTPUT in self._holds

    def pauseProducing(self) -> None:  # noqa: N802
        """The client does not take its answer fast enough; as long as that is so, nothing more is read from it."""
        self._write_deadline = self.clock.seconds() + self.limits.write_seconds
        self.deadline = min(self._phase_deadline, self._write_deadline)
        self.hold(Hold.OUTPUT)
        if self.producer is not None:
            self.producer.pauseProducing()
        self._debts.owe(self)

    def resumeProducing(self) -> None:  # noqa: N802
        """The client has taken what there was."""
        self.taken += 1
        self._write_deadline = NEVER
        self.deadline = self._phase_deadline
        self.release(Hold.OUTPUT)
        if self.producer is not None:
            self.producer.resumeProducing()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection has gone."""
        if self.producer is not None:
            self.producer.stopProducing()

    # Bytes in

    def expect(self, size: int) -> None:
        """So many bytes come in one go, now and probably again: they are read in few calls."""
        if self._tcp is not None and size > self._tcp.bufferSize:
            self._tcp.bufferSize = min(size, MOST_READ)

    def hold(self, why: Hold) -> None:
        """Stop reading."""
        if not self._holds:
            self.transport.pauseProducing()
        self._holds.add(why)

    def release(self, why: Hold) -> None:
        """That reason is gone."""
        if why in self._holds:
            self._holds.discard(why)
            if not self._holds:
                self.transport.resumeProducing()

    def release_all(self) -> None:
        """Read whatever comes."""
        for why in list(self._holds):
            self.release(why)

    # The end

    def linger(self, seconds: float) -> None:
        """The client has its answer, but may still be sending: closing now could destroy the answer on its way, so what
        comes is thrown away, for so long at most."""
        if not self.patient:
            self.loseConnection()
            return
        self.send_now()
        self._linger_until = self.clock.seconds() + seconds
        self.enter(Phase.LINGER, min(seconds, self.limits.linger_quiet_seconds))
        self.transport.unregisterProducer()
        self.release_all()
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def throw_away(self, size: int) -> None:
        """So many bytes came that nobody wants."""
        self._lingered += size
        if self.phase is Phase.CLOSING:
            return
        if self._lingered > self.limits.linger_bytes:
            self.loseConnection()
        elif self.phase is Phase.LINGER:
            self.due_in(min(self._linger_until - self.clock.seconds(), self.limits.linger_quiet_seconds))

    def loseConnection(self) -> None:  # noqa: N802
        """Close once everything is written; abort if the client does not take it."""
        before = self.phase
        if before is not Phase.CLOSING:
            self.send_now()
            self.enter(Phase.CLOSING, self.limits.close_seconds)
            if before is not Phase.LINGER:
                self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self.deadline = NEVER
        self._tcp = None
        self.transport.abortConnection()
