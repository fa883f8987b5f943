"""A question on its way from the lane to the pipeline, and its answer on the way back.

Each method says its thread: lane or reactor. What both threads share is handed over by call, never read by the other.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rowserve.handlers.items import Answer
from rowserve.server.pieces import answer_in_pieces

if TYPE_CHECKING:
    from rowserve.server.grpc_service import Asked
    from rowserve.server.pipeline import RowPipeline


class Asking:
    """One question on its way. `begin` and `cancel` are for the reactor thread, `answer` is the lane's.

    The row's deadline is the call's (`left` seconds from now) or its own, whichever comes first.
    """

    def __init__(
        self, pipeline: RowPipeline, asked: Asked, left: float | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pipeline = pipeline
        self._asked = asked
        self._loop = loop
        self._pending: Deferred[Answer] | None = None
        self._gone = False
        self._options = asked.question.options
        if left is not None and (self._options.timeout is None or left < self._options.timeout):
            self._options = replace(self._options, timeout=max(left, 0.0))
        self.answer: asyncio.Future[Answer] = loop.create_future()

    def begin(self) -> None:
        """Asks the pipeline, unless the client has gone by now."""
        if self._gone:
            return
        question = self._asked.question
        try:
            answer = answer_in_pieces(
                self._pipeline, self._asked.served, question.signature, question.items, self._options
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            self._hand_over(error)
            return
        if isinstance(answer, Deferred):
            self._pending = answer
            answer.addCallbacks(self._hand_over, self._failed)
        else:
            self._hand_over(answer)

    def cancel(self) -> None:
        """The client has gone: its rows leave the queue."""
        self._gone = True
        if self._pending is not None:
            self._pending.cancel()

    def _failed(self, failure: Failure) -> None:
        self._hand_over(failure.value or RuntimeError("no error"))

    def _hand_over(self, result: Answer | BaseException) -> None:
        if not self._gone and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._resolve, result)

    def _resolve(self, result: Answer | BaseException) -> None:
        if self.answer.done():
            return
        if isinstance(result, Answer):
            self.answer.set_result(result)
        else:
            self.answer.set_exception(result)
