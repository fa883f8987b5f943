"""The answer to one HTTP request, written exactly once. Reactor thread; on the path of every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowserve.server.response_head import NO_BODY, FirstLines, head_lines
from rowserve.server.write_out import PIECE, WriteOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowserve.handlers.items import Encoded
    from rowserve.server.channel import Channel
    from rowserve.server.request_head import RequestHead

FIRST_LINES = FirstLines()


class Response:
    """`respond` answers at once; `start`, `write` and `finish` do so piece by piece, in chunks where the client knows
    them. After the client has gone nothing is written."""

    __slots__ = (
        "_began", "_chunked", "_gone", "_unwritten", "channel", "finished", "head", "route", "startedWriting", "status",
    )  # fmt: skip

    def __init__(self, channel: Channel, head: RequestHead) -> None:
        self.channel = channel
        self.head = head
        self.route = "other"
        self.startedWriting = False
        self.finished = False
        self.status = 0
        self._unwritten = b""
        self._chunked = False
        self._gone = False
        self._began = channel.clock.seconds()

    @property
    def answered(self) -> bool:
        """Whether the answer has begun, or nobody is there to take it."""
        return self.startedWriting or self._gone

    @property
    def over(self) -> bool:
        """Whether the answer is complete, or nobody is there to take it."""
        return self.finished or self._gone

    def respond(self, answer: Encoded) -> None:
        """The whole answer at once."""
        if self.startedWriting or self._gone:
            return
        status, body = answer.status, answer.body
        top = self._top(status, answer.headers, answer.reason)
        self.startedWriting = True
        if status in NO_BODY:
            self.channel.write(top + b"\r\n")
        elif len(body) <= PIECE and self.head.method != b"HEAD":
            self.channel.write(b"%bContent-Length: %d\r\n\r\n%b" % (top, len(body), body))
        else:
            self.channel.write(b"%bContent-Length: %d\r\n\r\n" % (top, len(body)))
            if self.head.method != b"HEAD":
                WriteOut(self, body).begin()
                return
        self.finish()

    def _top(self, status: int, headers: Sequence[tuple[str, str]], reason: str, final: bool = True) -> bytes:
        """The head, but for the length and the empty line."""
        channel = self.channel
        if final and not channel.body_complete:
            channel.persistent = False
        self.status = status
        version = self.head.version
        if reason:
            first = FIRST_LINES.make(version, status, not channel.persistent, reason)
        else:
            first = FIRST_LINES.get(version, status, not channel.persistent)
        return first + self.head.principal.lines + head_lines(headers)

    def start(self, status: int, headers: Sequence[tuple[str, str]], *, final: bool = True) -> None:
        """The status and headers of the answer; the body follows by `write`.

        A `final` answer ends what is left of the request's body; one that is not reads it on.
        """
        head = self.head
        self._chunked = head.version == b"HTTP/1.1" and head.method != b"HEAD"
        if not self._chunked and head.method != b"HEAD":
            self.channel.persistent = False  # the body ends with the connection
        top = self._top(status, headers, "", final)
        self._unwritten = top + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")

    def write(self, data: bytes) -> None:
        """A piece of the body; b"" sends the head alone."""
        if self.finished or self._gone:
            return
        self.startedWriting = True
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._unwritten:
            data, self._unwritten = self._unwritten + data, b""
        if data:
            self.channel.write(data)

    def finish(self) -> None:
        """The answer is complete."""
        if self.finished or self._gone:
            return
        channel = self.channel
        if self._chunked:
            channel.write(b"0\r\n\r\n")
        self.finished = True
        channel.site.api.metrics.request(self.route, self.status, channel.clock.seconds() - self._began)
        self.ended()
        channel.request_done()

    def ended(self) -> None:
        """The answer is over, or the client has gone."""

    def hang_up(self) -> None:
        """The client has gone."""
        if not self.finished:
            self.channel.site.api.metrics.request(self.route, 499, self.channel.clock.seconds() - self._began)
        self._gone = True
        self.ended()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """Who writes the answer, as fast as the client takes it."""
        self.channel.producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802
        """It has written all."""
        self.channel.producer = None
