"""POST /rows: lines in, lines out, both streamed, with memory bounded whatever the client does. Reactor thread.

Lines are read in groups, a group a turn; each group is one question to the pipeline, and its answers are written
in order. While too many rows are on their way, or the client does not take its answers, nothing more is read from it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from rowserve.handlers import ndjson
from rowserve.handlers.http_headers import answer_headers
from rowserve.handlers.lines import Line, LineSplitter
from rowserve.handlers.problem import Problem
from rowserve.server.bodies import BodySink
from rowserve.server.stream_wishes import empty_body, read_wishes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from rowserve.handlers.items import Answer
    from rowserve.server.models import ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api

GROUP_LINES = 64
GROUP_BYTES = 131072
# Splitting costs about 2 us a line: of bytes with more lines than this, so many are split in a turn.
MANY_LINES = 512
SPLIT_BYTES = 1024
SMALL_BODY = 16384
HEADERS = (("Content-Type", ndjson.CONTENT_TYPE),)


@dataclass(slots=True, eq=False)
class Group:
    """Lines that are asked together. `text` is their answer, once it is there; `headers` speak of it as a whole."""

    first: int
    lines: list[Line] = field(default_factory=list)
    nbytes: int = 0
    text: bytes | None = None
    headers: Sequence[tuple[str, str]] = HEADERS
    cancel: Callable[[], None] | None = None


@implementer(IPushProducer)
class RowStream(BodySink):
    """The sink of a request's lines, and the producer of its answer."""

    endless = True  # no limit for the body as a whole

    def __init__(self, api: Api, request: ApiRequest, model: ServedModel) -> None:
        self._api = api
        self._request = request
        self._model = model
        wishes = read_wishes(model.face, request.query, request.headers)
        self._signature, self._wants, self._options = wishes.signature, wishes.wants, wishes.options
        self._sync = wishes.sync
        # Where a missing row fails all that is asked with it, each line is asked by itself.
        self._group_lines = 1 if wishes.options.cache.only_if_cached else GROUP_LINES
        self._reader = ndjson.TellingReader(ndjson.LineReader(model.face, self._signature))
        self._splitter = LineSplitter(api.limits.line_bytes)
        # A small body is asked when it is complete: then its answer can begin with what became of its rows.
        self._small = request.length is not None and request.length <= SMALL_BODY
        self._unsplit = b""
        self._lines: deque[Line] = deque()
        self._groups: deque[Group] = deque()
        self._read = self._rows = self.owed = 0  # lines in groups so far; lines and bytes of those on their way
        self._headers: Sequence[tuple[str, str]] = HEADERS
        self._kept = b""  # with sync: the last line, until all is on disk
        self._fault: Problem | None = None
        self._ended = self._syncing = self._asking = self._paused = False
        self._turn: Any = None
        request.on_hang_up(self._gone)

    # The body

    @property
    def full(self) -> bool:
        """Whether nothing more may be fed now."""
        return not self._gathering and (bool(self._lines) or not self._room)

    @property
    def owing(self) -> bool:
        """Whether the client has sent lines that are not answered yet."""
        return not self._gathering and bool(self._lines or self._groups)

    @property
    def _gathering(self) -> bool:
        return self._small and not self._ended

    @property
    def _room(self) -> bool:
        limits = self._api.limits
        return self._rows < limits.stream_rows and self.owed < limits.stream_bytes

    def feed(self, piece: bytes) -> bool:
        """The next bytes. Where they hold very many lines, only some of them in this turn."""
        data = self._unsplit + piece if self._unsplit else piece
        end = SPLIT_BYTES if data.count(b"\n") > MANY_LINES else len(data)
        self._unsplit = data[end:]
        self._lines.extend(self._splitter.feed(data[:end]))
        self._go_on()
        return bool(self._unsplit)

    def complete(self) -> None:
        """There are no more."""
        self._lines.extend(self._splitter.finish())
        if not (self._lines or self._read or self._sync):  # no rows and sync=1: a wait for the disk
            self._fault = empty_body(self._signature)
        self._ended = True
        self._go_on()

    def fail(self, problem: Problem) -> bool:
        """The body broke off: what came whole is answered, then a line says why there is no more."""
        self._fault = problem
        self._lines.extend(self._splitter.feed(self._unsplit))
        self._ended = True
        self._go_on()
        return True

    # Groups

    def _go_on(self) -> None:
        if self._turn is None and self._lines and self._room and not self._gathering:
            self._asking = True
            try:
                self._ask(self._next_group())
            finally:
                self._asking = False
        self._flush()
        if self._turn is None and self._lines and self._room and not self._gathering:
            self._turn = self._api.clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._go_on()
        if not self.full:
            self._request.pump()

    def _next_group(self) -> Group:
        group = Group(self._read + 1)
        while self._lines and len(group.lines) < self._group_lines:
            line = self._lines[0]
            size = len(line) if isinstance(line, bytes) else 0
            if group.lines and group.nbytes + size > GROUP_BYTES:
                break
            group.lines.append(self._lines.popleft())
            group.nbytes += size
        self._read += len(group.lines)
        self._rows += len(group.lines)
        self.owed += group.nbytes
        self._groups.append(group)
        return group

    def _ask(self, group: Group) -> None:
        """From lines to their answer; each step is taken at once where it can be, else when it is done."""
        if group.nbytes > self._api.limits.pool_parse_bytes:
            parse = partial(self._reader.read, group.lines)
            self._when(group, self._api.defer_to_pool(parse), partial(self._parsed, group))
        else:
            self._parsed(group, self._reader.read(group.lines))

    def _parsed(self, group: Group, items: Any) -> None:
        answer = self._api.pipeline.answer(self._model, self._signature, items, self._options)
        if isinstance(answer, Deferred):
            self._when(group, answer, partial(self._answered, group))
        else:
            self._answered(group, answer)

    def _answered(self, group: Group, answer: Answer) -> None:
        if self._small and len(group.lines) == self._read and not self._lines:
            group.headers = answer_headers(answer, ndjson.CONTENT_TYPE)
        encode = partial(ndjson.encode_lines, self._model.face, answer, self._wants, group.first)
        if answer.nbytes > self._api.limits.pool_encode_bytes:
            self._when(group, self._api.defer_to_pool(encode), partial(self._done, group))
        else:
            self._done(group, encode())

    def _when(self, group: Group, result: Deferred[Any], then: Callable[[Any], None]) -> None:
        group.cancel = result.cancel
        result.addCallback(then)
        result.addErrback(partial(self._failed, group))

    def _failed(self, group: Group, failure: Failure) -> None:
        if self._request.over or failure.check(CancelledError):
            return
        if isinstance(failure.value, Problem):
            problem = failure.value
        else:
            self._request.log_failure(failure)
            problem = Problem(500, "the server failed; its log says why", reason="crashed")
        numbered = range(group.first, group.first + len(group.lines))
        self._done(group, b"".join(ndjson.encode_problem_line(problem, line) for line in numbered))

    def _done(self, group: Group, text: bytes) -> None:
        group.text = text
        group.cancel = None
        group.nbytes += len(text)
        self.owed += len(text)
        if self._groups and self._groups[0] is group and not self._asking:
            self._go_on()
            if not self.full:
                self._request.pump()

    # The answer

    def _flush(self) -> None:
        """Writes what is known, in order, as long as the client takes it."""
        while self._groups and self._groups[0].text is not None and not self._paused:
            group = self._groups.popleft()
            self._rows -= len(group.lines)
            self.owed -= group.nbytes
            self._headers = group.headers
            self._write(group.text or b"")
        if self._ended and not self._lines and not self._groups and not self._paused:
            self._end()

    def _write(self, text: bytes) -> None:
        if self._sync:
            last = text.rfind(b"\n", 0, -1) + 1
            text, self._kept = self._kept + text[:last], text[last:]
        if text and not self._request.over:
            self._begin()
            self._request.write(text)

    def _begin(self) -> None:
        if not self._request.startedWriting:
            self._request.start(200, self._headers, final=False)
            self._request.registerProducer(self, True)
            self._request.write(b"")

    def _end(self) -> None:
        if not self._sync:
            self._finish()
        elif not self._syncing:
            self._syncing = True
            self._api.pipeline.when_kept(partial(self._api.cache.sync, self._synced))

    def _synced(self, error: Exception | None) -> None:
        if self._request.over:
            return
        self._sync = False
        if error is not None:
            told = f"the rows are answered, but not all of them are kept: {error}"
            self._fault = self._fault or Problem(500, told, title="Not kept", reason="not_kept")
        self._flush()

    def _finish(self) -> None:
        if self._request.over:
            return
        if self._fault is not None and not self._request.startedWriting and not self._kept:
            fault, self._fault = self._fault, None
            self._request.respond_fault(fault)
            return
        self._begin()
        text = self._kept
        if self._fault is not None:
            text += ndjson.encode_problem_line(self._fault, self._read + 1)
        if text:
            self._request.write(text)
        self._request.unregisterProducer()
        self._request.finish()

    def _gone(self) -> None:
        """The client has hung up: nothing of this is wanted any more."""
        self._lines.clear()
        groups, self._groups = self._groups, deque()
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        for group in groups:
            if group.cancel is not None:
                group.cancel()

    def pauseProducing(self) -> None:  # noqa: N802
        """The client does not take its answers."""
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        """It does again."""
        self._paused = False
        self._go_on()
        if not self.full:
            self._request.pump()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection has gone; `_gone` follows."""
        self._paused = True
