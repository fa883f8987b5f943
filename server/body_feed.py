"""A request's body on its way to the sink that takes it, as much in a turn as the reactor can spare. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from rowserve.handlers.problem import Problem
from rowserve.server.bodies import STEP_BYTES, BodySink

if TYPE_CHECKING:
    from rowserve.server.request import ApiRequest

TURN_BYTES = 4 * STEP_BYTES


class BodyFeed:
    """Hands `sink` the pieces that have come, and stops the connection's reading while it is full.

    A Problem that the sink raises is the request's answer.
    """

    __slots__ = ("_again", "_ended", "_feeding", "_pieces", "_request", "_sink", "_turn")

    def __init__(self, request: ApiRequest, sink: BodySink) -> None:
        self._request = request
        self._sink: BodySink | None = sink
        self._pieces: list[bytes] = []
        self._again = False
        self._ended = False
        self._feeding = False
        self._turn: Any = None

    @property
    def owing(self) -> bool:
        """Whether it is we who keep the client waiting: then the rate of its body is not held against it."""
        return self._sink is not None and self._sink.owing

    def take(self, piece: bytes, ended: bool) -> None:
        """The next bytes; the last, where `ended`."""
        if piece:
            self._pieces.append(piece)
        self._ended = ended
        self.pump()

    def pump(self) -> None:
        """Hands the sink what there is, some of it in the reactor's next turns."""
        if self._feeding or self._sink is None or self._turn is not None:
            return
        self._feeding = True
        try:
            self._feed()
        except Problem as problem:
            self.fail(problem)
        except Exception:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self._sink = None
            self._request.crashed(Failure())
        finally:
            self._feeding = False

    def _feed(self) -> None:
        fed = 0
        while self._sink is not None and (self._pieces or self._again):
            if self._sink.full:
                self._hold()
                return
            if fed >= TURN_BYTES or (self._again and fed):
                self._hold()
                self._turn = self._request.channel.clock.callLater(0, self._next_turn)
                return
            piece = self._next_piece(self._sink.piece_bytes)
            fed += max(len(piece), 1)
            self._again = self._sink.feed(piece)
        if self._sink is None:
            return
        if self._sink.full and not self._ended:
            self._hold()
            return
        self._request.channel.read_again()
        if self._ended:
            sink, self._sink = self._sink, None
            sink.complete()

    def _hold(self) -> None:
        if not self._ended:
            self._request.channel.stop_reading()

    def _next_piece(self, most: int) -> bytes:
        if not self._pieces or self._again:
            return b""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if len(body) > most:
            self._pieces.append(body[most:])
            body = body[:most]
        return body

    def _next_turn(self) -> None:
        self._turn = None
        self.pump()

    def fail(self, problem: Problem) -> None:
        """No more of the body will come, and it is not complete; or it is not what the sink takes."""
        sink, self._sink = self._sink, None
        pieces, self._pieces = self._pieces, []
        request = self._request
        if request.over:
            return
        if sink is not None and sink.endless and not self._feeding:
            sink.feed(b"".join(pieces))  # the whole lines among them still get their answers
        if (sink is None or not sink.fail(problem)) and not request.startedWriting:
            request.respond_fault(problem)

    def stop(self) -> None:
        """Nothing more is fed."""
        self._sink = None
        self._pieces.clear()
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None
