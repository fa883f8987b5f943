"""One HTTP request, as the routes see it: what its head says, and one answer to it. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem
from rowserve.server.bodies import Asked, BodySink, Discarded
from rowserve.server.body_feed import BodyFeed
from rowserve.server.faults import native_fault
from rowserve.server.head_memo import HEAD_BYTES, Known
from rowserve.server.response import Response
from rowserve.server.target import parse_query, without_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred

    from rowserve.graphs.rows import Buffer
    from rowserve.server.channel import Channel
    from rowserve.server.request_head import RequestHead
    from rowserve.server.routing import Router

# A refused request with so little body is read to its end, so that the connection can be kept.
SMALL_BODY = 65536


class ApiRequest(Response):
    """A request, from its complete head to the end of its answer.

    `headers` have names in lower case, and several values joined by commas; `length` is the body's, None where it comes
    in chunks; `route` is the pattern that was found, for metrics, never what a client wrote.
    """

    __slots__ = ("_cancel", "_feed", "path", "problem_form", "query")
    _log = Logger()

    def __init__(self, channel: Channel, head: RequestHead) -> None:
        super().__init__(channel, head)
        self.problem_form: Callable[[Problem], Encoded] = native_fault
        self._feed: BodyFeed | None = None
        self._cancel: Callable[[], None] | None = None

    # What the head says

    @property
    def api(self) -> Any:
        """What the routes share."""
        return self.channel.site.api

    @property
    def router(self) -> Router:
        """The routes of the address that was asked."""
        return self.channel.site.router

    @property
    def method(self) -> bytes:
        """GET and its like."""
        return self.head.method

    @property
    def length(self) -> int | None:
        """The body's bytes."""
        return self.head.length

    @property
    def headers(self) -> Mapping[str, str]:
        """All headers."""
        return self.head.headers

    def header(self, name: str) -> str:
        """The value of a header, of several the last; "" where there is none."""
        return self.head.header(name)

    # The body

    def begin(self, raw: bytes) -> None:
        """The head is complete: finds what takes the body, or answers at once."""
        self.path, _, query = without_authority(self.head.target).partition(b"?")
        if not self._authorize():
            return
        if query:
            self.problem_form = self.router.fault_form_at(self.path)  # in which a fault of the query is told
        try:
            self.query = parse_query(query, self.channel.limits.query_fields)
            sink = self.api.admit(self)
        except Problem as problem:
            self._refuse(problem)
            return
        except Exception:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self.crashed(Failure())
            return
        sink.expect(self.length or 0)
        self._feed = BodyFeed(self, sink)
        if type(sink) is Asked:
            self.channel.expect(len(raw) + (self.length or 0))
            if not self.head.expects_continue:
                known = Known(self.head, self.route, self.problem_form, sink.served, sink.read)
                self.channel.site.heads.keep(raw, known)

    def _authorize(self) -> bool:
        """Whether the request goes on: who may not ask is told so before any of the body is read."""
        try:
            principal = self.head.principal = self.channel.site.authorize(self.head)
        except Problem as problem:
            self.problem_form = self.router.fault_form_at(self.path)
            self.respond_fault(problem)
            return False
        if principal.preflight:
            self.respond(Encoded(204, [], b""))
        return not principal.preflight

    def _refuse(self, problem: Problem) -> None:
        head = self.head
        if not head.expects_continue and head.length is not None and head.length <= SMALL_BODY:
            sink: BodySink = Discarded(lambda: self.respond_fault(problem), SMALL_BODY)
            self._feed = BodyFeed(self, sink)
        else:
            self.respond_fault(problem)

    def begin_known(self, known: Known) -> None:
        """The same for a head that is known."""
        self.route, self.problem_form = known.route, known.problem_form
        sink = self.api.ask(self, known.served, known.read)
        sink.expect(self.length or 0)
        self._feed = BodyFeed(self, sink)
        self.channel.expect(HEAD_BYTES + (self.length or 0))

    def respond_fault(self, problem: Problem) -> None:
        """What is wrong with the request, in the form of its protocol."""
        # A traceback's frames hold the body; and the answer, which may hold this very problem.
        self.respond(self.problem_form(problem.with_traceback(None)))

    def ask_known(self, known: Known, body: Buffer) -> None:
        """The head is known and the whole body is here."""
        self.route, self.problem_form = known.route, known.problem_form
        try:
            self.channel.site.api.read(self, known.served, known.read, body)
        except Problem as problem:
            self.respond_fault(problem)
        except Exception:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self.crashed(Failure())

    def take(self, piece: bytes, ended: bool) -> None:
        """The next bytes of the body; the last, where `ended`."""
        if self._feed is not None:
            self._feed.take(piece, ended)

    def pump(self) -> None:
        """The sink takes more."""
        if self._feed is not None:
            self._feed.pump()

    @property
    def owing(self) -> bool:
        """Whether it is we who keep the client waiting: then the rate of its body is not held against it."""
        return self._feed is not None and self._feed.owing

    def body_failed(self, problem: Problem) -> None:
        """No more of the body will come, and it is not complete."""
        if self._feed is not None:
            self._feed.fail(problem)

    # Waiting

    def on_hang_up(self, cancel: Callable[[], None]) -> None:
        """What to do if the client goes before its answer is written."""
        self._cancel = cancel

    def wait_for(self, result: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Goes on with the result; a Problem, or a crash, is the answer; the client's going cancels it."""
        self._cancel = result.cancel
        result.addBoth(self._go_on, then)

    def _go_on(self, result: Any, then: Callable[[Any], None]) -> None:
        self._cancel = None
        if self._gone:
            return
        try:
            if isinstance(result, Failure):
                result.raiseException()
            then(result)
        except Problem as problem:
            self.respond_fault(problem)
        except Exception:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self.crashed(Failure())

    def hang_up(self) -> None:
        """The client has gone: cancel what runs for it."""
        cancel = self._cancel
        super().hang_up()
        if cancel is not None:
            cancel()

    def ended(self) -> None:
        """Nothing more of the body is wanted. What refers to this object is let go, so that both are freed at once."""
        self._cancel = None
        if self._feed is not None:
            self._feed.stop()
            self._feed = None

    def crashed(self, failure: Failure) -> None:
        """Something of ours broke: one log line, and an answer without internals."""
        self.log_failure(failure)
        if not self.answered:
            self.respond_fault(Problem(500, "the server failed; its log says why", reason="crashed"))
        elif not self.over:
            self.channel.loseConnection()

    def log_failure(self, failure: Failure) -> None:
        """One log line with the traceback."""
        self._log.failure("{method} {route} failed", failure, method=self.method.decode(), route=self.route)
