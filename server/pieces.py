"""A request of very many rows, asked piece by piece, so that other requests have their turns. Reactor thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, Item, Options, Priority
from rowserve.handlers.problem import Problem

if TYPE_CHECKING:
    from rowserve.server.models import ServedModel
    from rowserve.server.pipeline import RowPipeline

PIECE_ROWS = 512
# What an answer takes until it is sent, beside three times its rows' bytes: so much a row.
ROW_OVERHEAD = 384


def answer_in_pieces(
    pipeline: RowPipeline, model: ServedModel, signature: Signature, items: Sequence[Item], options: Options
) -> Answer | Deferred[Answer]:
    """As `RowPipeline.answer`; what fits into one piece is just that.

    The pieces of a larger request follow one another, once there is room for its answer. The first must find room in
    the queue as any request; the others wait for it, as bulk does.
    """
    if signature.alone or (len(items) == 1 and type(items[0]) is Rows and items[0].count <= PIECE_ROWS):
        return pipeline.answer(model, signature, items, options)
    pieces = list(cut(items))
    if len(pieces) <= 1:
        return pipeline.answer(model, signature, items, options)
    return Pieces(pipeline, model, signature, pieces, options).start()


def cut(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in their order, in lists of at most PIECE_ROWS rows."""
    piece: list[Item] = []
    room = PIECE_ROWS
    for item in items:
        start, count = 0, item.count if isinstance(item, Rows) else 1
        while count - start > room:
            if room:
                piece.append(item.slice(start, start + room) if isinstance(item, Rows) else item)
            yield piece
            start, piece, room = start + room, [], PIECE_ROWS
        piece.append(item.slice(start, count) if isinstance(item, Rows) and start else item)
        room -= count - start
    if piece:
        yield piece


class Pieces:
    """Asks one piece after the other; lets go of everything when it ends, so that it is freed at once."""

    def __init__(
        self,
        pipeline: RowPipeline,
        model: ServedModel,
        signature: Signature,
        pieces: Sequence[Sequence[Item]],
        options: Options,
    ) -> None:
        self._pipeline = pipeline
        self._model = model
        self._signature = signature
        self._pieces = deque(pieces)
        self._options = options
        self._began = pipeline.clock.seconds()
        self._answer = Answer(RowLayout(signature.outputs), [], [])
        self._asked: Deferred[Answer] | None = None
        self._done: Deferred[Answer] | None = None
        self._late = options.timeout is not None and pipeline.clock.callLater(options.timeout, self._out_of_time)
        row_bytes = 3 * (self._answer.layout.row_bytes or 0) + ROW_OVERHEAD
        rows = sum(item.count if isinstance(item, Rows) else 1 for piece in pieces for item in piece)
        self._claim = pipeline.unsent.claim(rows * row_bytes)

    def start(self) -> Deferred[Answer]:
        """The whole answer, or how the first piece that fails whole has failed; cancelled, no more begin."""
        done = self._done = Deferred(lambda _: self._cancel())
        self._claim.when_room(self._begin)
        return done

    def _begin(self) -> None:
        if self._late:
            self._late.cancel()
        self._next()

    def _out_of_time(self) -> None:
        self._failed(Problem(504, f"no answer within {self._options.timeout:g} s", reason="deadline"))

    def _next(self) -> None:
        if self._done is None:
            return
        if not self._pieces:
            answer = self._answer
            self._end().callback(answer)
            return
        options = self._options
        if options.timeout is not None:
            spent = self._pipeline.clock.seconds() - self._began
            options = replace(options, timeout=max(options.timeout - spent, 0.0))
        if len(self._answer):
            options = replace(options, priority=Priority.BULK)
        try:
            answered = self._pipeline.answer(self._model, self._signature, self._pieces.popleft(), options)
        except Exception:  # noqa: BLE001  nobody else is there to take it
            self._failed(Failure())
            return
        if isinstance(answered, Answer):
            self._answered(answered)
        else:
            self._asked = answered
            answered.addCallbacks(self._answered, self._failed)

    def _answered(self, answer: Answer) -> None:
        whole = self._answer
        whole.errors.update((len(whole) + at, problem) for at, problem in answer.errors.items())
        # Views of what the cache or a batch holds are ten times as large as the rows, and there are very many.
        whole.packed += [row if row is None else bytes(row) for row in answer.packed]
        whole.outcomes += answer.outcomes
        whole.timing.add(answer.timing)
        if answer.forward != "miss":
            whole.forward = answer.forward
        self._pipeline.clock.callLater(0, self._next)

    def _failed(self, failure: Failure | Problem) -> None:
        if self._done is not None:
            self._end().errback(failure)

    def _end(self) -> Deferred[Answer]:
        """What to tell, once: nothing refers to this object, nor it to the answer, any more."""
        assert self._done is not None
        done, self._done = self._done, None
        self._claim.release()
        self._pieces.clear()
        self._answer = Answer(self._answer.layout, [], [])
        return done

    def _cancel(self) -> None:
        if self._done is not None:
            self._end()
        if self._late and self._late.active():
            self._late.cancel()
        if self._asked is not None:
            self._asked.cancel()
