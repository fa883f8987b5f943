"""One HTTP/1 connection: Twisted's channel with absolute deadlines, and answers that can be read by who still sends.

Reactor thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.protocols.basic import LineReceiver

from rowserve.handlers.problem import Problem, phrase
from rowserve.handlers.problem_json import encode_problem
from rowserve.server.deadlines import NEVER
from rowserve.server.framing import head_fault
from rowserve.server.read_gate import ReadGate
from rowserve.server.timed_channel import Phase, TimedChannel

if TYPE_CHECKING:
    from twisted.python.failure import Failure

# Bytes are worked through in such steps, so that hostile ones (tiny chunks) cannot keep the reactor for long ...
STEP_BYTES = 16384
# ... and when a step brought so many chunks, the rest waits for the reactor's next turn, in smaller steps.
STEP_CHUNKS = 256
SMALL_STEP_BYTES = 4096
# What may be read ahead of a request that is still being answered.
READ_AHEAD = 16384


class HardenedChannel(TimedChannel):
    """A connection. `site` (an ApiSite) brings limits, clock and deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self._held = b""  # read, but left for the next turn
        self._next_turn: Any = None
        self._chunks = 0
        self._read_ahead = 0
        self._body_since = 0.0
        self._body_bytes = 0
        self._lingered = 0
        self._linger_until = NEVER
        self._linger_on_finish = True

    def connectionMade(self) -> None:  # noqa: N802
        """Headers must be here in time, counted from now."""
        super().connectionMade()
        self._gate = ReadGate(self._networkProducer, registered=True)
        self._networkProducer = cast("Any", self._gate)
        self.totalHeadersSize = self.site.limits.headers_bytes
        self.site.opened(self)
        self._enter(Phase.HEAD, self.site.limits.headers_seconds)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # noqa: N802
        """Tell whoever still works for this client."""
        self.site.closed(self)
        self._phase = Phase.CLOSING
        self.deadline = NEVER
        if self._next_turn is not None and self._next_turn.active():
            self._next_turn.cancel()
        super().connectionLost(reason)

    # Deadlines

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        if now >= self._write_deadline or self._phase is Phase.CLOSING:
            self.deadline = NEVER
            self.transport.abortConnection()
        elif self._phase is Phase.BODY:
            self._check_body_rate(now)
        elif self._phase is Phase.HEAD and (self.requests or self._buffer):
            self._linger_on_finish = False
            self._refuse_head(408, f"the headers did not come within {self.site.limits.headers_seconds:g} s")
        else:
            self.loseConnection()

    def _start_body_clock(self) -> None:
        self._body_since, self._body_bytes = self._now(), 0
        self._enter(Phase.BODY, self.site.limits.body_grace_seconds)

    def _check_body_rate(self, now: float) -> None:
        limits = self.site.limits
        due = self._body_since + max(limits.body_grace_seconds, self._body_bytes / limits.body_rate)
        if self._gate.held or self.requests[-1].owing:
            self._start_body_clock()  # it is we who keep the client waiting
        elif due > now:
            self._due_in(due - now)
        else:
            self._linger_on_finish = False
            detail = f"the body came slower than {limits.body_rate:g} bytes/s"
            self._fail_body(Problem(408, detail, reason="slow_body"))

    # Bytes in

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Bytes from the client."""
        if self.deaf:
            self._throw_away(len(data))
            return
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEAD, self.site.limits.headers_seconds)
        if self._held:
            self._held += data
        else:
            self._work_through(data)

    def _work_through(self, data: bytes) -> None:
        end = 0
        while end < len(data):
            few = self._phase is Phase.BODY and self._chunks <= STEP_CHUNKS
            start, end = end, end + (STEP_BYTES if few else SMALL_STEP_BYTES)
            self._chunks = 0
            LineReceiver.dataReceived(self, data[start:end])
            if self._phase is Phase.BODY:
                self.requests[-1].pump()
            elif self.line_mode and b"\n" in self._buffer:
                self.refuse(400, "a line ends in a bare line feed")
            if self.deaf:
                self._held = b""
                self._throw_away(len(data) - end)
                return
            if self._held or self._chunks > STEP_CHUNKS:
                self._held += data[end:]
                self._wait_a_turn()
                return

    def _wait_a_turn(self) -> None:
        if self._held and self._next_turn is None and not self._waitingForTransport:
            self._gate.hold("turn")
            self._next_turn = self.site.clock.callLater(0, self._go_on)

    def resumed(self) -> None:
        """The client takes its answers again: the next request may be read."""
        self._wait_a_turn()

    def _go_on(self) -> None:
        self._next_turn = None
        data, self._held = self._held, b""
        if not self.deaf:
            self._work_through(data)
        if not self._held:
            self._gate.release("turn")

    def _throw_away(self, size: int) -> None:
        if size <= 0 or self._phase is Phase.CLOSING:
            return
        self._lingered += size
        if self._lingered > self.site.limits.linger_bytes:
            self.loseConnection()
        elif self._phase is Phase.LINGER:
            self._due_in(min(self._linger_until - self._now(), self.site.limits.linger_quiet_seconds))

    def stop_reading(self) -> None:
        """The request takes no more of its body for now."""
        self._gate.hold("body")

    def read_again(self) -> None:
        """The request takes more of its body; the time it did not is not held against the client."""
        if self._gate.held:
            self._gate.release("body")
            if self._phase is Phase.BODY:
                self._start_body_clock()

    def chunk_received(self, size: int) -> None:
        """A request was handed one more piece of its body."""
        self._chunks += 1
        self._body_bytes += size

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802
        """Body bytes, or what comes ahead of its turn."""
        if self.deaf:
            self._throw_away(len(data))
        elif self._handlingRequest:
            self._dataBuffer.append(data)
            self._read_ahead += len(data)
            if self._read_ahead > READ_AHEAD:
                self._gate.pauseProducing()
        else:
            super().rawDataReceived(data)

    # The head of a request

    def allHeadersReceived(self) -> None:  # noqa: N802
        """The head is complete: check it as a whole, then let the request choose where its body goes."""
        request = self.requests[-1]
        fault = head_fault(self._version, request.requestHeaders)
        if fault:
            self.refuse(400, fault)
            return
        self.persistent = self.checkPersistence(request, self._version)
        if self.length == 0:
            self._enter(Phase.BUSY)
        else:
            self._start_body_clock()
        request.begin(self._command, self._path, self._version, self.length)
        if request.expects_continue and self._phase is Phase.BODY:
            self._send100Continue()

    def allContentReceived(self) -> None:  # noqa: N802
        """The body is complete."""
        if self._phase in (Phase.BODY, Phase.BUSY):
            self._enter(Phase.BUSY)
            super().allContentReceived()

    @property
    def body_complete(self) -> bool:
        """Whether all of the current request has come."""
        return bool(self._handlingRequest)

    # Refusing

    def refuse(self, status: int, detail: str) -> None:
        """The client broke the protocol: say so and close."""
        if self._phase is Phase.BODY:
            self._fail_body(Problem(status, detail, reason="malformed"))
        elif self._phase in (Phase.HEAD, Phase.IDLE):
            self._refuse_head(status, detail)

    def _refuse_head(self, status: int, detail: str) -> None:
        self.requests.clear()  # nobody has heard of a request whose head is not complete
        self.site.refused(status)
        body = encode_problem(Problem(status, detail)).body
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (status, phrase(status).encode(), len(body), body)
        )
        self._finish_early(self.site.limits.linger_quiet_seconds)

    def _fail_body(self, problem: Problem) -> None:
        self._enter(Phase.DEAF)
        self.requests[-1].body_failed(problem)

    # The end of a request, and of the connection

    def requestDone(self, request: Any) -> None:  # noqa: N802
        """The answer has been written."""
        self.requests.remove(request)
        if not self._handlingRequest:
            self._finish_early(self.site.limits.linger_seconds)
        elif not self.persistent or self.site.draining:
            self.loseConnection()
        else:
            self._next_request()

    def _next_request(self) -> None:
        self._handlingRequest = False
        rest = b"".join(self._dataBuffer) + self.clearLineBuffer()
        self._dataBuffer = []
        self._read_ahead = 0
        self.setLineMode()
        self._gate.release("body")
        self._enter(Phase.IDLE, self.site.limits.idle_seconds)
        if rest:
            # One request a turn, however many have come ahead.
            self._enter(Phase.HEAD, self.site.limits.headers_seconds)
            self._held = rest + self._held
            self._wait_a_turn()
        if self._waitingForTransport:
            self._gate.pauseProducing()
        else:
            self._gate.resumeProducing()

    def _finish_early(self, seconds: float) -> None:
        """Answered before all had come. Closing now could destroy the answer on its way, so throw away what comes."""
        if not self._linger_on_finish:
            self.loseConnection()
            return
        self._phase = Phase.LINGER
        self._held = b""
        quiet = self.site.limits.linger_quiet_seconds
        self._linger_until = self._now() + (quiet if self.site.draining else seconds)
        self._due_in(min(seconds, quiet))
        self._gate.unregisterProducer()
        self._gate.open()
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def loseConnection(self) -> None:  # noqa: N802
        """Close once everything is written; abort if the client does not take it."""
        if self._phase is not Phase.CLOSING:
            self._enter(Phase.CLOSING, self.site.limits.close_seconds)
            self._gate.unregisterProducer()
            self.transport.loseConnection()

    def drain(self) -> None:
        """The server stops: close now if nothing is asked, else after the answer."""
        nothing_asked = self._phase is Phase.HEAD and not (self.requests or self._buffer or self._held)
        if nothing_asked or self._phase in (Phase.IDLE, Phase.LINGER):
            self.loseConnection()
        self.persistent = False
