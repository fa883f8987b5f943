"""A model's graph thread: takes batches by itself while there are any, and other work in between.

The class is called on the reactor thread; `_live` runs on the graph thread, which alone ever touches the session.
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
        """The signature's outputs for these rows. Raises graphs.errors.

        The rows' memory is used again afterwards, unless something still refers to the arrays: an engine that keeps any
        of it keeps them too.
        """

    def close(self) -> None:
        """Frees the graph."""


class Batches(Protocol):
    """Where the thread finds its batches. Graph thread only."""

    def take(self) -> Any:
        """The next batch, or None: then `GraphThread.wake` must follow when there is one."""

    def run(self, batch: Any, session: Session) -> Any:
        """Runs it. May raise anything."""

    def over(self, batch: Any, result: Any) -> None:
        """It has run: what `run` returned or raised, or why the model did not load. Never raises."""


class GraphThread:
    """One model's thread: it loads the model when it is first asked for anything, then does one thing at a time.

    Batches come from what was given to `pull_from`, one after the other without anybody's help. `run` may be called at
    any time: such work goes before the next batch, and `done` comes in the reactor with the result or the exception, in
    order. A model that does not load fails every piece of work with the exception of its load.
    """

    def __init__(
        self,
        load: Callable[[], Session],
        *,
        start_thread: StartThread,
        call_in_reactor: CallInReactor,
        clock: Callable[[], float],
    ) -> None:
        self.call_in_reactor = call_in_reactor
        self._load = load
        self._start_thread = start_thread
        self._clock = clock
        self._batches: Batches | None = None
        self._inbox: queue.SimpleQueue[Callable[[Session | None, BaseException | None], None] | None]
        self._inbox = queue.SimpleQueue()
        self._started = False
        self._busy_since: float | None = None

    def busy_seconds(self) -> float:
        """How long the piece of work that runs now has been running, in seconds (0.0 when none does)."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def pull_from(self, batches: Batches) -> None:
        """From now on batches are found there. Once, before the first `wake`."""
        self._batches = batches

    def wake(self) -> None:
        """There is a batch again, after `take` found none."""
        self._post(nothing)

    def run(self, work: Callable[[Session], T], done: Callable[[T | BaseException], None]) -> None:
        """Does `work` with the session on the graph thread, then calls `done` in the reactor."""

        def task(session: Session | None, failure: BaseException | None) -> None:
            result = self._attempt(work, session, failure)
            self.call_in_reactor(partial(done, result))

        self._post(task)

    def stop(self) -> None:
        """Ends the thread after the work it has, and closes the session. Nothing may be run afterwards."""
        self._inbox.put(None)

    def _post(self, task: Callable[[Session | None, BaseException | None], None]) -> None:
        self._inbox.put(task)
        if not self._started:
            self._started = True
            self._start_thread(self._live)

    def _live(self) -> None:
        session, failure = None, None
        try:
            session = self._load()
        except BaseException as error:  # noqa: BLE001  told to whoever asks; the thread must live on to tell them
            failure = error
        while True:
            if self._inbox.empty() and self._batch_ran(session, failure):
                continue
            task = self._inbox.get()
            if task is None:
                break
            task(session, failure)
            del task  # an idle thread holds on to no rows
        if session is not None:
            session.close()

    def _batch_ran(self, session: Session | None, failure: BaseException | None) -> bool:
        """Runs the next batch, if there is one."""
        batches = self._batches
        batch = None if batches is None else batches.take()
        if batches is None or batch is None:
            return False
        batches.over(batch, self._attempt(partial(batches.run, batch), session, failure))
        return True

    def _attempt(self, work: Callable[[Session], Any], session: Session | None, failure: BaseException | None) -> Any:
        if session is None:
            return failure
        self._busy_since = self._clock()
        try:
            return work(session)
        except BaseException as error:  # noqa: BLE001  the reactor decides what it means
            return error
        finally:
            self._busy_since = None


def nothing(session: Session | None, failure: BaseException | None) -> None:
    """Work that only wakes the thread."""
