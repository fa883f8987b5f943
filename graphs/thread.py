"""Hands work to a model's graph thread and its results back to the reactor.

The class lives on the reactor thread; `_live` runs on the graph thread, which alone ever touches the session.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.rows import Array, Rows

T = TypeVar("T")
Task = Callable[[], None]
StartThread = Callable[[Task], object]
CallInReactor = Callable[[Task], object]


class Session(Protocol):
    """A loaded graph, of whatever engine. Graph thread only, but for `description`."""

    @property
    def description(self) -> ModelDescription:
        """What was found at load."""

    def run(self, signature: str, rows: Rows) -> dict[str, Array]:
        """The signature's outputs for these rows. Raises graphs.errors."""

    def close(self) -> None:
        """Frees the graph."""


class GraphThread:
    """One model's thread: it loads the model when it is first asked for anything, then does one thing at a time.

    `run` may be called at any time; `done` comes in the reactor with the result or the exception, in order.
    A model that does not load fails every piece of work with the exception of its load.
    """

    def __init__(
        self,
        load: Callable[[], Session],
        *,
        start_thread: StartThread,
        call_in_reactor: CallInReactor,
        clock: Callable[[], float],
    ) -> None:
        self._load = load
        self._start_thread = start_thread
        self._call_in_reactor = call_in_reactor
        self._clock = clock
        self._inbox: queue.SimpleQueue[tuple[Callable[[Session], Any], Callable[[Any], None]] | None]
        self._inbox = queue.SimpleQueue()
        self._started = False
        self._busy_since: float | None = None
        self._waiting = 0

    @property
    def idle(self) -> bool:
        """Whether work would begin at once."""
        return self._waiting == 0

    def busy_seconds(self) -> float:
        """How long the piece of work that runs now has been running, in seconds (0.0 when none does)."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def run(self, work: Callable[[Session], T], done: Callable[[T | BaseException], None]) -> None:
        """Does `work` with the session on the graph thread, then calls `done` in the reactor."""
        self._waiting += 1
        self._inbox.put((work, done))
        if not self._started:
            self._started = True
            self._start_thread(self._live)

    def stop(self) -> None:
        """Ends the thread after the work it has, and closes the session. Nothing may be run afterwards."""
        self._inbox.put(None)

    def _live(self) -> None:
        session, failure = None, None
        try:
            session = self._load()
        except BaseException as error:  # noqa: BLE001  told to whoever asks; the thread must live on to tell them
            failure = error
        while (task := self._inbox.get()) is not None:
            work, done = task
            result = failure if session is None else self._attempt(work, session)
            self._call_in_reactor(partial(self._finished, done, result))
            del task, work, done, result  # an idle thread holds on to no rows
        if session is not None:
            session.close()

    def _attempt(self, work: Callable[[Session], Any], session: Session) -> Any:
        self._busy_since = self._clock()
        try:
            return work(session)
        except BaseException as error:  # noqa: BLE001  the reactor decides what it means
            return error
        finally:
            self._busy_since = None

    def _finished(self, done: Callable[[Any], None], result: Any) -> None:
        self._waiting -= 1
        done(result)
