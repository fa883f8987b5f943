"""The ways between the lane and the reactor, and a question that goes over and back.

Each method says its thread. What waits when the other thread wakes goes over together: waking it is what costs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rowserve.handlers.items import Answer
from rowserve.server.pieces import answer_in_pieces

if TYPE_CHECKING:
    import asyncio

    from rowserve.server.grpc_service import Asked
    from rowserve.server.pipeline import RowPipeline


log = logging.getLogger(__name__)


class Way:
    """Calls from one thread to another. `wake` makes the other thread call `make_all`, soon.

    `put` is for the one thread; every call is made, in order. It is in the line before the flag is looked at, and the
    flag is taken down before the line is looked at, so none is overlooked.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self._line: deque[Callable[[], None]] = deque()
        self._woken = False

    def put(self, call: Callable[[], None]) -> None:
        """Has a call made on the other thread."""
        self._line.append(call)
        if not self._woken:
            self._woken = True
            self._wake(self.make_all)

    def make_all(self) -> None:
        """The other thread makes the calls that wait."""
        self._woken = False
        line = self._line
        while line:
            call = line.popleft()
            try:
                call()
            except Exception:  # the others must not wait for somebody to wake this thread again
                log.exception("a call from another thread failed")


class Asking:
    """One question on its way: over to the pipeline, back to `answer`, a future of the lane.

    The row's deadline is the call's (`left` seconds from now) or its own, whichever comes first.
    """

    def __init__(
        self, asked: Asked, left: float | None, answer: asyncio.Future[Answer], over: Way, back: Way
    ) -> None:
        self._asked = asked
        self._answer = answer
        self._over = over
        self._back = back
        self._result: Answer | BaseException | None = None
        self._pending: Deferred[Answer] | None = None
        self._gone = False
        self._options = asked.question.options
        if left is not None and (self._options.timeout is None or left < self._options.timeout):
            self._options = replace(self._options, timeout=max(left, 0.0))

    # On the lane

    def begin(self, pipeline: RowPipeline) -> None:
        """Sets it going."""
        self._over.put(partial(self._ask, pipeline))

    def leave(self) -> None:
        """The client has gone: its rows leave the queue."""
        self._gone = True
        self._over.put(self._cancel)

    def _arrive(self) -> None:
        if self._answer.done():
            return
        if isinstance(self._result, Answer):
            self._answer.set_result(self._result)
        elif self._result is not None:
            self._answer.set_exception(self._result)

    # On the reactor thread

    def _ask(self, pipeline: RowPipeline) -> None:
        if self._gone:
            return
        question, served = self._asked.question, self._asked.served
        try:
            answer = answer_in_pieces(pipeline, served, question.signature, question.items, self._options)
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            self._hand_over(error)
            return
        if isinstance(answer, Deferred):
            self._pending = answer
            answer.addCallbacks(self._hand_over, self._failed)
        else:
            self._hand_over(answer)

    def _cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def _failed(self, failure: Failure) -> None:
        self._hand_over(failure.value or RuntimeError("no error"))

    def _hand_over(self, result: Answer | BaseException) -> None:
        if not self._gone:
            self._result = result
            self._back.put(self._arrive)
