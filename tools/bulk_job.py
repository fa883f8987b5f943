"""A bulk run: chunks go through a door, their answers come out in order, and at the end all is on disk.

Reactor thread. The reader (`feed`) and the writer (`output`) have threads of their own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from rowserve.handlers.items import Outcome
from rowserve.handlers.ndjson import encode_problem_line
from rowserve.handlers.problem import Problem
from rowserve.tools.feed import Chunk, Window
from rowserve.tools.groups import Group
from rowserve.tools.tally import Tally

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reply:
    """The answers to a chunk. `encode` makes the lines that are printed; it is called on the writer thread.

    `faults` are the rows that failed, by their places in the chunk. `fatal` says why nothing can be computed at all.
    """

    encode: Callable[[], bytes]
    outcomes: Mapping[Outcome, int]
    faults: Mapping[int, Problem] = field(default_factory=dict)
    fatal: str = ""


class Door(Protocol):
    """Where chunks are answered: the pipeline in this process, or a server."""

    def ask(self, chunk: Chunk) -> Reply | Deferred[Reply]:
        """The answers. May be cancelled."""

    def finish(self) -> Deferred[str]:
        """Fires when all that was computed is on disk: with "", or with why not all of it is."""


@dataclass(frozen=True)
class Ready:
    """A door that is open, and how groups become chunks for it."""

    chunks: Callable[[Iterable[Group]], Iterable[Chunk]]
    door: Door


class Sink(Protocol):
    """Where answers go, in order. `leave` of the window follows when they have gone."""

    def put(self, chunk: Chunk, reply: Reply) -> None:
        """Takes answers."""

    def end(self, done: Callable[[], None]) -> None:
        """Calls, in the reactor, when all has gone."""


class Ending(Enum):
    """How a run ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"  # by a signal
    CLOSED = "closed"  # nobody reads the answers any more
    BROKEN = "broken"  # the model, the input or the output; `BulkJob.why` says how


@dataclass(slots=True, eq=False)
class Entry:
    """A chunk on its way."""

    chunk: Chunk
    reply: Reply | None = None
    asking: Deferred[Any] | None = None


class BulkJob:
    """`take` chunks, then `ended`; `done` fires with the Ending when what is known is written and on disk.

    `not_kept` says, then, why not all of it is on disk ("" when it is).
    """

    def __init__(self, door: Door, sink: Sink, window: Window) -> None:
        self.tally = Tally()
        self.done: Deferred[Ending] = Deferred()
        self.why = ""
        self.not_kept = ""
        self._door = door
        self._sink = sink
        self._window = window
        self._entries: deque[Entry] = deque()
        self._ending: Ending | None = None
        self._finishing = False

    def take(self, chunk: Chunk) -> None:
        """The next chunk."""
        if self._ending is not None:
            self._window.leave(chunk)
            return
        entry = Entry(chunk)
        self._entries.append(entry)
        try:
            reply = self._door.ask(chunk)
        except Exception:
            log.exception("a chunk failed by a fault of this program")
            reply = refusal(chunk, Problem(500, "rowserve failed on this row; its log says why", reason="internal"))
        if isinstance(reply, Deferred):
            entry.asking = reply
            reply.addCallbacks(partial(self._replied, entry), partial(self._failed, entry))
        else:
            self._replied(entry, reply)

    def _replied(self, entry: Entry, reply: Reply) -> None:
        entry.reply = reply
        self._flush()

    def _failed(self, entry: Entry, failure: Any) -> None:
        if self._ending in (None, Ending.COMPLETE):
            if not isinstance(failure.value, Problem):
                log.error("a chunk failed", exc_info=(failure.type, failure.value, failure.getTracebackObject()))
            problem = failure.value if isinstance(failure.value, Problem) else Problem(500, str(failure.value))
            self._replied(entry, refusal(entry.chunk, problem))

    def _flush(self) -> None:
        while self._entries and self._entries[0].reply is not None:
            entry = self._entries.popleft()
            reply = entry.reply
            assert reply is not None
            if reply.fatal:
                self._break_off(Ending.BROKEN, reply.fatal)
                return
            self.tally.add(reply.outcomes)
            self._sink.put(entry.chunk, reply)
        self._finish_if_over()

    def ended(self, failure: BaseException | None) -> None:
        """The input is over, or could not be read any further."""
        if self._ending is None:
            self._ending = Ending.COMPLETE
            if failure is not None:
                self._ending, self.why = Ending.BROKEN, f"the input could not be read: {failure}"
                if not isinstance(failure, OSError | ValueError):
                    log.error("the reader failed", exc_info=failure)
        self._finish_if_over()

    def interrupt(self) -> None:
        """Reads no more, and forgets what is not known yet."""
        self._break_off(Ending.INTERRUPTED, "")

    def output_failed(self, error: BaseException) -> None:
        """The answers cannot be written any more."""
        if isinstance(error, BrokenPipeError):
            self._break_off(Ending.CLOSED, "")
        else:
            self._break_off(Ending.BROKEN, f"the answers cannot be written: {error}")

    def _break_off(self, ending: Ending, why: str) -> None:
        if self._ending not in (None, Ending.COMPLETE):
            return
        self._ending, self.why = ending, why
        self._window.close()
        entries, self._entries = self._entries, deque()
        for entry in entries:
            if entry.asking is not None and entry.reply is None:
                entry.asking.cancel()
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._ending is None or self._entries or self._finishing:
            return
        self._finishing = True
        self._sink.end(self._written)

    def _written(self) -> None:
        self._door.finish().addCallback(self._kept).addErrback(self.done.errback)

    def _kept(self, why: str) -> None:
        self.not_kept = why
        self.done.callback(self._ending or Ending.COMPLETE)


def refusal(chunk: Chunk, problem: Problem) -> Reply:
    """The reply to a chunk none of whose rows was answered."""
    return refusals(chunk, [problem] * chunk.rows)


def refusals(chunk: Chunk, problems: Sequence[Problem]) -> Reply:
    """The same, each row with its own problem."""

    def encode() -> bytes:
        lines = [encode_problem_line(each, chunk.first + i, chunk.name(i)) for i, each in enumerate(problems)]
        return b"".join(lines)

    return Reply(encode, {Outcome.FAILED: chunk.rows}, dict(enumerate(problems)))
