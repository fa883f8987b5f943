"""One HTTP/1 connection: requests in, one after another, and what becomes of a client that breaks the rules.

Reactor thread; on the path of every request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import encode_problem
from rowserve.server.deadlines import NEVER
from rowserve.server.framing import ENDLESS, ChunkReader, LengthReader
from rowserve.server.pacing import Hold, PacedProtocol, Phase
from rowserve.server.request import ApiRequest
from rowserve.server.request_head import END, check_beginning, over_limit, read_head
from rowserve.server.response import FIRST_LINES
from rowserve.server.response_head import head_lines

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from rowserve.server.listener import ApiSite

# A body of this size is not copied once more to be handed over.
LARGE_BODY = 65536
# What may be read ahead of a request that is still being answered.
READ_AHEAD = 16384
HEAD, IDLE, BODY, BUSY = Phase.HEAD, Phase.IDLE, Phase.BODY, Phase.BUSY
DEAF = (Phase.LINGER, Phase.DEAF, Phase.CLOSING)


class Channel(PacedProtocol):
    """A connection to `site`, which brings limits, clock and deadlines.

    `body_complete` is whether all of the current request has come, `persistent` whether another may follow it.
    """

    def __init__(self, site: ApiSite) -> None:
        super().__init__(site.clock, site.limits, site.outbox, site.unsent)
        self.site = site
        self.request: ApiRequest | None = None
        self.body_complete = False
        self.persistent = True
        self._buffer = b""  # come, but not worked through: the beginning of a head, or what has come ahead of its turn
        self._parked = False  # whether it waits for a turn, or for the client to take its answers
        self._turn: Any = None
        self._empty_line = False
        self._reader: ChunkReader | LengthReader = LengthReader(0)
        self._body_since = 0.0
        self._body_bytes = 0

    def connectionMade(self) -> None:  # noqa: N802
        """Headers must be here in time, counted from now."""
        super().connectionMade()
        self.site.opened(self)
        self.enter(HEAD, self.limits.headers_seconds)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # noqa: N802
        """Tell whoever still works for this client."""
        self.site.closed(self)
        self._tcp = self.producer = None
        self.enter(Phase.CLOSING)
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        request, self.request = self.request, None
        if request is not None:
            request.hang_up()

    # Bytes in

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Bytes from the client."""
        phase = self.phase
        if phase is IDLE:
            self._read_head(data)
        elif phase in DEAF:
            self.throw_away(len(data))
        elif phase is BUSY or self._parked:
            self._buffer += data
            if len(self._buffer) > READ_AHEAD:
                self.hold(Hold.AHEAD)
        else:
            if self._buffer:
                data, self._buffer = self._buffer + data, b""
            self._work_through(data)

    def _work_through(self, data: bytes) -> None:
        if self.phase is BODY:
            self._read_body(data)
        else:
            self._read_head(data)

    def _park(self) -> None:
        """What has come waits for the reactor's next turn: one request, or so many chunks, a turn."""
        self._parked = True
        if self._turn is None and not self.output_full:
            self.hold(Hold.TURN)
            self._turn = self.clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._turn = None
        self._parked = False
        data, self._buffer = self._buffer, b""
        if self.phase not in DEAF:
            self._work_through(data)
        if not self._parked:
            self.release(Hold.TURN)

    def resumeProducing(self) -> None:  # noqa: N802
        """The client takes its answers again: the next request may be read."""
        super().resumeProducing()
        if self._parked:
            self._park()

    # The head of a request

    def _read_head(self, data: bytes) -> None:
        end = data.find(END) + len(END)
        raw = data[:end] if end >= len(END) else b""
        site = self.site
        known = site.heads.find(raw)
        if known is None:
            self._read_new_head(data, raw)
            return
        head = known.head
        self.persistent = head.keeps and not site.api.draining
        request = self.request = ApiRequest(self, head)
        length = head.length
        if length is None or len(data) < end + length:
            self._expect_body(length)
            request.begin_known(known)
            self._read_body(data[end:])
            return
        self.phase = BUSY
        self.body_complete = True
        if len(data) > end + length:
            self._buffer = data[end + length :]
            data = data[: end + length]
        request.ask_known(known, data[end:] if length < LARGE_BODY else memoryview(data)[end:])
        if self.phase is BUSY:
            self.due_in(NEVER)

    def _read_new_head(self, data: bytes, raw: bytes) -> None:
        if data.startswith(b"\r\n") and not self._empty_line:
            self._empty_line = True  # one is forgiven (RFC 9112, section 2.2)
            self._read_head(data[2:])
            return
        if len(raw or data) > self.limits.headers_bytes:
            self._refuse(over_limit(data, self.limits.headers_bytes))
            return
        try:
            if not raw:
                self._wait_for_head(data)
                return
            head = read_head(raw)
        except Problem as problem:
            self._refuse(problem)
            return
        self.persistent = head.keeps and not self.site.draining
        self._buffer = data[len(raw) :]
        self._expect_body(head.length)
        request = self.request = ApiRequest(self, head)
        request.begin(raw)
        if self.request is not request:  # it is answered already
            return
        if head.length == 0:
            request.take(b"", True)
            return
        if head.expects_continue:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        data, self._buffer = self._buffer, b""
        self._read_body(data)

    def _wait_for_head(self, data: bytes) -> None:
        check_beginning(data)
        self._buffer = data
        if self.phase is IDLE:
            self.enter(HEAD, self.limits.headers_seconds)

    # The body

    def _expect_body(self, length: int | None) -> None:
        self.body_complete = length == 0
        if self.body_complete:
            self.enter(BUSY)
            return
        self._reader = ChunkReader(self.limits.body_bytes) if length is None else LengthReader(length)
        self._start_body_clock()

    def _read_body(self, data: bytes) -> None:
        reader = self._reader
        piece, used = reader.read(data)
        self._buffer = data[used:]
        self._body_bytes += len(piece)
        if reader.done:
            self.body_complete = True
            self.enter(BUSY)
        if self.request is not None:
            self.request.take(piece, reader.done)
        if self.phase is not BODY:
            return
        if reader.fault is not None:
            self._fail_body(reader.fault)
        elif reader.again:
            self._park()

    def expect_endless_body(self) -> None:
        """The request takes whatever its chunks bring."""
        self._reader.limit = ENDLESS

    def stop_reading(self) -> None:
        """The request takes no more of its body for now."""
        self.hold(Hold.BODY)

    def read_again(self) -> None:
        """The request takes more of its body; the time it did not is not held against the client."""
        if self._holds:
            self.release(Hold.BODY)
            if self.phase is BODY:
                self._start_body_clock()

    # Deadlines

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        if now >= self._write_deadline or self.phase is Phase.CLOSING:
            self.abort()
        elif self.phase is BODY:
            self._check_body_rate(now)
        elif self.phase is HEAD and self._buffer and not self._parked:
            self.patient = False
            self._refuse(Problem(408, f"the headers did not come within {self.limits.headers_seconds:g} s"))
        else:
            self.loseConnection()

    def _start_body_clock(self) -> None:
        self._body_since, self._body_bytes = self.clock.seconds(), 0
        self.enter(BODY, self.limits.body_grace_seconds)

    def _check_body_rate(self, now: float) -> None:
        limits = self.limits
        due = self._body_since + max(limits.body_grace_seconds, self._body_bytes / limits.body_rate)
        if self._holds or (self.request is not None and self.request.owing):
            self._start_body_clock()  # it is we who keep the client waiting
        elif due > now:
            self.due_in(due - now)
        else:
            self.patient = False
            detail = f"the body came slower than {limits.body_rate:g} bytes/s"
            self._fail_body(Problem(408, detail, reason="slow_body"))

    # Refusing

    def _refuse(self, problem: Problem) -> None:
        """The client broke the protocol before it had asked for anything: say so and close."""
        self.site.refused(problem.status)
        told = encode_problem(problem)
        top = FIRST_LINES.get(b"HTTP/1.1", told.status, True) + head_lines(told.headers)
        self.write(b"%bContent-Length: %d\r\n\r\n%b" % (top, len(told.body), told.body))
        self._finish_early(self.limits.linger_quiet_seconds)

    def _fail_body(self, problem: Problem) -> None:
        self.enter(Phase.DEAF)
        if self.request is not None:
            self.request.body_failed(problem)

    # The end of a request, and of the connection

    def request_done(self) -> None:
        """The answer has been written."""
        self.request = self.producer = None
        if not self.body_complete:
            self._finish_early(self.limits.linger_seconds)
        elif not self.persistent:
            self.loseConnection()
        else:
            self._next_request()

    def _next_request(self) -> None:
        self._empty_line = False
        if self._holds:
            self.release(Hold.BODY)
            self.release(Hold.AHEAD)
        if self._buffer:
            self.enter(HEAD, self.limits.headers_seconds)
            self._park()
        else:
            self.enter(IDLE, self.limits.idle_seconds)

    def _finish_early(self, seconds: float) -> None:
        """Answered before all had come."""
        self._buffer = b""
        self.linger(self.limits.linger_quiet_seconds if self.site.draining else seconds)

    def drain(self) -> None:
        """The server stops: close now if nothing is asked, else after the answer."""
        if self.phase in (IDLE, Phase.LINGER) or (self.phase is HEAD and not self._buffer):
            self.loseConnection()
        self.persistent = False
