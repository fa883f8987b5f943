"""One HTTP request: its body goes piece by piece where its route wants it, and it is answered exactly once.

Reactor thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import datetimeToString

from rowserve.handlers.problem import Problem, phrase
from rowserve.server.bodies import BodySink, Discarded
from rowserve.server.faults import native_fault
from rowserve.server.target import parse_query, without_authority
from rowserve.server.write_out import PIECE, WriteOut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred

    from rowserve.handlers.items import Encoded
    from rowserve.server.routing import Router

STEP_BYTES = 16384
TURN_BYTES = 4 * STEP_BYTES
# A refused request with so little body is read to its end, so that the connection can be kept.
SMALL_BODY = 65536


class ApiRequest(server.Request):
    """A request as the Api sees it.

    `begin` is called when the headers are complete; the Api then opens a sink for the body. `headers` have names in
    lower case, and several values joined by commas. `respond` answers; after the client has gone it does nothing.
    """

    defaultContentType = None  # noqa: N815
    channel: Any

    def __init__(self, channel: Any, *_: Any) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self.api = channel.site.api
        self.clock = channel.site.clock
        self.limits = channel.site.limits
        self.query: dict[str, list[str]] = {}
        self.route = "other"  # the pattern, for metrics: never what a client wrote
        self.endpoint = ""
        self.arguments: dict[str, Any] = {}
        self.length: int | None = 0
        self.router: Router = channel.site.router
        self.problem_form: Callable[[Problem], Encoded] = native_fault
        self._began = 0.0
        self._begun = False
        self._sink: BodySink | None = None
        self._pieces: list[bytes] = []
        self._again = False
        self._ended = False
        self.pumping = False
        self._turn: Any = None
        self._cancel: Callable[[], None] | None = None

    # What the channel tells

    def begin(self, method: bytes, uri: bytes, version: bytes, length: int | None) -> None:
        """The headers are complete; the body, if any, follows."""
        self.method, self.uri, self.clientproto, self.length = method, uri, version, length
        self.path, _, query = without_authority(uri).partition(b"?")
        self._began = self.clock.seconds()
        self._begun = True
        try:
            self.query = parse_query(query, self.limits.query_fields)
            self._sink = self.api.admit(self)
        except Problem as problem:
            self._refuse(problem)
        except Exception:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self.crashed(Failure())

    def _refuse(self, problem: Problem) -> None:
        patient = not self.expects_continue and self.length is not None and self.length <= SMALL_BODY
        if patient:
            self._sink = Discarded(lambda: self.respond(self.problem_form(problem)), SMALL_BODY)
        else:
            self.respond(self.problem_form(problem))

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for our word before it sends the body."""
        return self.clientproto == b"HTTP/1.1" and self.header("expect").lower() == "100-continue"

    @property
    def owing(self) -> bool:
        """Whether it is we who keep the client waiting: then the rate of its body is not held against it."""
        return self._sink is not None and self._sink.owing

    @property
    def answered(self) -> bool:
        """Whether the answer has begun, or nobody is there to take it."""
        return bool(self.startedWriting or self.finished or self._disconnected)

    @property
    def over(self) -> bool:
        """Whether the answer is complete, or nobody is there to take it."""
        return bool(self.finished or self._disconnected)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """A piece of the body; the channel calls `pump` after a few."""
        self.channel.chunk_received(len(data))
        if not self.finished:
            self._pieces.append(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        """The body is complete."""
        self._ended = True
        self.pump()

    def body_failed(self, problem: Problem) -> None:
        """No more of the body will come, and it is not complete."""
        sink, self._sink = self._sink, None
        pieces, self._pieces = self._pieces, []
        if self.over:
            return
        if sink is not None and sink.endless and not self.pumping:
            sink.feed(b"".join(pieces))  # the whole lines among them still get their answers
        if (sink is None or not sink.fail(problem)) and not self.startedWriting:
            self.respond(self.problem_form(problem))

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        """The client has gone: cancel what runs for it."""
        if self._begun and not self.finished:
            self.api.metrics.request(self.route, 499, self.clock.seconds() - self._began)
        self._stop_pumping()
        super().connectionLost(reason)
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    # The body

    def pump(self) -> None:
        """Hands the sink what there is, some of it in the reactor's next turns."""
        if self.pumping or self._sink is None or self._turn is not None:
            return
        self.pumping = True
        try:
            self._feed()
        except Problem as problem:
            self.body_failed(problem)
        except Exception:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self._sink = None
            self.crashed(Failure())
        finally:
            self.pumping = False

    def _feed(self) -> None:
        fed = 0
        while self._sink is not None and (self._pieces or self._again):
            if self._sink.full:
                self._hold()
                return
            if fed >= TURN_BYTES or (self._again and fed):
                self._hold()
                self._turn = self.clock.callLater(0, self._next_turn)
                return
            piece = self._next_piece()
            fed += max(len(piece), 1)
            self._again = self._sink.feed(piece)
        if self._sink is None:
            return
        if self._sink.full and not self._ended:
            self._hold()
            return
        self.channel.read_again()
        if self._ended:
            sink, self._sink = self._sink, None
            sink.complete()

    def _hold(self) -> None:
        if not self._ended:
            self.channel.stop_reading()

    def _next_piece(self) -> bytes:
        if not self._pieces or self._again:
            return b""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        piece, rest = body[:STEP_BYTES], body[STEP_BYTES:]
        self._pieces = [rest] if rest else []
        return piece

    def _next_turn(self) -> None:
        self._turn = None
        self.pump()

    def _stop_pumping(self) -> None:
        self._sink = None
        self._pieces.clear()
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None

    # The answer

    def header(self, name: str) -> str:
        """The value of a header, "" where there is none."""
        values = self.requestHeaders.getRawHeaders(name.encode("ascii"))
        return values[-1].decode("latin-1") if values else ""

    @property
    def headers(self) -> dict[str, str]:
        """All headers, names in lower case."""
        return {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in self.requestHeaders.getAllRawHeaders()
        }

    def on_hang_up(self, cancel: Callable[[], None]) -> None:
        """What to do if the client goes before its answer is written."""
        self._cancel = cancel

    def wait_for(self, result: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Goes on with the result; a Problem, or a crash, is the answer; the client's going cancels it."""
        self.on_hang_up(result.cancel)

        def failed(failure: Failure) -> None:
            if self._disconnected:
                return
            if isinstance(failure.value, Problem):
                self.respond(self.problem_form(failure.value))
            else:
                self.crashed(failure)

        def go_on(value: Any) -> None:
            self._cancel = None
            if not self._disconnected:
                then(value)

        result.addCallback(go_on)
        result.addErrback(failed)

    def crashed(self, failure: Failure) -> None:
        """Something of ours broke: one log line, and an answer without internals."""
        self.log_failure(failure)
        if not self.answered:
            self.respond(self.problem_form(Problem(500, "the server failed; its log says why", reason="crashed")))
        elif not self.over:
            self.channel.loseConnection()

    def log_failure(self, failure: Failure) -> None:
        """One log line with the traceback."""
        self._log.failure("{method} {route} failed", failure, method=self.method.decode(), route=self.route)

    def start(
        self, status: int, headers: Iterable[tuple[str, str]], *, final: bool = True, reason: str = ""
    ) -> None:
        """The status and headers of the answer; the body follows by `write`.

        A `final` answer ends what is left of the request's body; one that is not reads it on.
        """
        self.setResponseCode(status, (reason or phrase(status)).encode("latin-1", "replace"))
        for name, value in headers:
            self.responseHeaders.addRawHeader(name, value)
        self.setHeader("server", "rowserve")
        self.setHeader("date", datetimeToString())
        if (final and not self.channel.body_complete) or self.channel.site.draining:
            self.channel.persistent = False
            self.setHeader("connection", "close")

    def respond(self, answer: Encoded) -> None:
        """The whole answer at once."""
        if self.answered:
            return
        self.start(answer.status, answer.headers, reason=answer.reason)
        body = answer.body
        if answer.status not in (204, 304):
            self.setHeader("content-length", str(len(body)))
        if len(body) <= PIECE or self.method == b"HEAD":
            self.write(body)
            self.finish()
        else:
            WriteOut(self, body).begin()

    def finish(self) -> None:
        """The answer is complete."""
        if self.over:
            return
        self.api.metrics.request(self.route, self.code, self.clock.seconds() - self._began)
        self._stop_pumping()
        super().finish()

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """Routes never depend on what a client calls this host."""
        return b"localhost"
