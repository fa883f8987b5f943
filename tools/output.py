"""Answers on their way out: encoded and written in order by a thread of their own, or only counted.

`put` and `end` are called on the reactor thread; `Output.run` is the writer thread.
"""

from __future__ import annotations

import logging
import os
import queue
import select
from collections.abc import Callable
from functools import partial
from typing import Any

from rowserve.handlers.problem import Problem
from rowserve.tools.bulk_job import Reply, refusal
from rowserve.tools.feed import Chunk, Window

log = logging.getLogger(__name__)
Call = Callable[[], None]


class Output:
    """A Sink that prints.

    After an error of `write` nothing more is written; `failed`, to be set before `run`, hears of it in the reactor.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        window: Window,
        *,
        call_in_reactor: Callable[[Call], Any],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._write = write
        self._window = window
        self._call_in_reactor = call_in_reactor
        self.failed: Callable[[BaseException], None] = lambda error: None
        self._progress = progress
        self._inbox: queue.SimpleQueue[tuple[Chunk, Reply] | Call] = queue.SimpleQueue()

    def put(self, chunk: Chunk, reply: Reply) -> None:
        """See Sink."""
        self._inbox.put((chunk, reply))

    def end(self, done: Call) -> None:
        """See Sink. Ends the thread."""
        self._inbox.put(done)

    def run(self) -> None:
        """Writer thread."""
        broken = False
        while not callable(task := self._inbox.get()):
            chunk, reply = task
            if not broken:
                try:
                    self._write(self._encoded(chunk, reply))
                except OSError as error:
                    broken = True
                    self._call_in_reactor(partial(self.failed, error))
            self._window.leave(chunk)
            self._progress(chunk.rows)
            del task, chunk, reply  # while it waits it holds on to no rows
        self._call_in_reactor(task)

    @staticmethod
    def _encoded(chunk: Chunk, reply: Reply) -> bytes:
        try:
            return reply.encode()
        except Exception:
            log.exception("answers could not be encoded")
            return refusal(chunk, Problem(500, "rowserve failed on this row; its log says why")).encode()


class Silence:
    """A Sink for runs that print no answers: `failed` hears of each row that has none."""

    def __init__(
        self,
        window: Window,
        failed: Callable[[Chunk, int, Problem], None],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._window = window
        self._failed = failed
        self._progress = progress

    def put(self, chunk: Chunk, reply: Reply) -> None:
        """See Sink."""
        for index, problem in sorted(reply.faults.items()):
            self._failed(chunk, index, problem)
        self._window.leave(chunk)
        self._progress(chunk.rows)

    def end(self, done: Call) -> None:
        """See Sink."""
        done()


def write_all(descriptor: int, text: bytes) -> None:
    """Writes all of it, past every buffer. Raises OSError."""
    view = memoryview(text)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody who shares the descriptor has made it so
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
