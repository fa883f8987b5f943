"""Where the bytes of a request's body go as they come in: never to a file, never through stock form parsing.

Reactor thread; each step takes at most a few milliseconds, whatever the bytes are.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rowserve.handlers.multipart import MultipartLimits, MultipartReader, Part
from rowserve.handlers.problem import Problem
from rowserve.server.limits import MIB, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.graphs.rows import Buffer
    from rowserve.handlers.items import Encoded, Question
    from rowserve.server.models import ServedModel

# What most sinks work through in a millisecond or two.
STEP_BYTES = 16384
# So much is inflated in one step: about 0.2 ms.
INFLATE_BYTES = 65536
# The content codings that are taken, and zlib's window bits for each.
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
EMPTY_MEMBERS = 1000
# A multipart step with more parts than this ends the turn.
PARTS_A_TURN = 64


class BodySink:
    """Takes a body, piece by piece. `feed` and `complete` may raise a Problem."""

    # Whether the body as a whole has no limit.
    endless = False
    # How much one call of `feed` takes.
    piece_bytes = STEP_BYTES

    @property
    def full(self) -> bool:
        """Whether nothing may be fed now; the sink calls `request.pump()` when that has changed."""
        return False

    @property
    def owing(self) -> bool:
        """Whether it is we who keep the client waiting, so that its rate is not held against it."""
        return False

    def expect(self, size: int) -> None:
        """Before the first of them: there will be so many bytes, which is within the limit."""

    def feed(self, piece: bytes) -> bool:
        """The next bytes. True asks to be called again in another turn, with b"" if need be."""
        raise NotImplementedError

    def complete(self) -> None:
        """There are no more."""
        raise NotImplementedError

    def fail(self, problem: Problem) -> bool:
        """The body broke off. True when the sink answers for itself."""
        return False


class Discarded(BodySink):
    """Throws the body away, then does `then`."""

    piece_bytes = MIB

    def __init__(self, then: Callable[[], None], limit: int) -> None:
        self._then = then
        self._left = limit

    def feed(self, piece: bytes) -> bool:
        """Nothing is kept."""
        self._left -= len(piece)
        if self._left < 0:
            raise Problem(413, "this request takes no body of that size", reason="too_large")
        return False

    def complete(self) -> None:
        """Go on."""
        self._then()


class Collected(BodySink):
    """The body as one buffer of at most `limit` bytes, handed to `then`: bytes up to 1 MiB, above a memoryview."""

    piece_bytes = MIB

    def __init__(self, then: Callable[[Buffer], None], limit: int) -> None:
        self._then = then
        self._limit = limit
        self._size = 0
        self._pieces: list[bytes] = []
        # Grows by moving pages, not by copying: joining 64 MiB at the end would hold the reactor for 20 ms and more.
        self._large = bytearray()
        self._room: memoryview | None = None
        self._expected = 0

    def expect(self, size: int) -> None:
        """A large body gets its room at once, but not before its first MiB is here: to promise bytes costs nothing."""
        self._expected = size

    def feed(self, piece: bytes) -> bool:
        """The next bytes."""
        self._size += len(piece)
        if self._size > self._limit:
            self._forget()
            raise too_large(self._limit)
        if self._room is not None:
            self._room[self._size - len(piece) : self._size] = piece
            return False
        self._pieces.append(piece)
        if self._size > MIB and self._expected:
            room, at = np.empty(self._expected, np.uint8).data, 0
            for each in self._pieces:
                room[at : at + len(each)] = each
                at += len(each)
            self._room = room
            self._pieces.clear()
        elif self._size > MIB:
            self._large += piece if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
        return False

    def complete(self) -> None:
        """Hand it over."""
        pieces, large, room = self._pieces, self._large, self._room
        self._forget()
        if room is not None:
            self._then(room.toreadonly())
        elif large:
            self._then(memoryview(large).toreadonly())
        else:
            self._then(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _forget(self) -> None:
        self._pieces, self._large, self._room = [], bytearray(), None


class Asked(Collected):
    """A body that will be read by `read` to what is asked of `served`.

    Both follow from the head of the request and the models alone: they are good for every request with that head.
    """

    def __init__(
        self,
        then: Callable[[Buffer], None],
        limit: int,
        served: ServedModel,
        read: Callable[[Buffer], Question[Any] | Encoded],
    ) -> None:
        super().__init__(then, limit)
        self.served = served
        self.read = read


class Parts(BodySink):
    """The parts of multipart/form-data, handed to `then`."""

    def __init__(self, then: Callable[[list[Part]], None], content_type: str, limits: Limits) -> None:
        self._then = then
        self._reader = MultipartReader(content_type, MultipartLimits(body=limits.body_bytes, parts=limits.parts))
        self._boundary = b"--" + self._reader.boundary.encode()

    def feed(self, piece: bytes) -> bool:
        """The next bytes."""
        self._reader.feed(piece)
        return piece.count(self._boundary) > PARTS_A_TURN

    def complete(self) -> None:
        """Hand them over."""
        self._then(self._reader.finish())


class Inflated(BodySink):
    """A gzip or deflate body on its way to another sink, which applies its limits to the inflated bytes.

    `coding` is one of CODINGS. deflate is zlib's form (RFC 9110, section 8.4.1.2). Members of a gzip body that hold
    nothing cost time and count against no limit on bytes: there may be EMPTY_MEMBERS of them.
    """

    def __init__(self, sink: BodySink, coding: str) -> None:
        self._sink = sink
        self._coding = coding
        self._inflate = zlib.decompressobj(CODINGS[coding])
        self._rest = b""
        self._began = False
        self._member_bytes = 0
        self._empty_members = 0
        self._busy = False

    @property
    def full(self) -> bool:
        """Whether the sink behind is."""
        return self._sink.full

    @property
    def owing(self) -> bool:
        """Whether the sink behind is."""
        return self._sink.owing

    def fail(self, problem: Problem) -> bool:
        """Passed on."""
        return self._sink.fail(problem)

    def feed(self, piece: bytes) -> bool:
        """The next deflated bytes; inflates one step, unless the sink is still busy with the one before."""
        self._began = self._began or bool(piece)
        data = self._rest + piece if self._rest else piece
        if self._busy:
            self._rest = data
            self._busy = self._sink.feed(b"")
            return True
        if self._inflate.eof:
            if not data:
                return False
            if self._coding == "deflate":
                raise Problem(400, "deflate: something follows the end of the stream", reason="malformed")
            self._next_member()
        try:
            inflated = self._inflate.decompress(data, INFLATE_BYTES)
        except zlib.error as error:
            raise Problem(400, f"{self._coding}: {error}", reason="malformed") from None
        self._member_bytes += len(inflated)
        self._rest = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._busy = self._sink.feed(inflated)
        return self._busy or bool(self._rest) or len(inflated) == INFLATE_BYTES

    def _next_member(self) -> None:
        """Members may follow each other (RFC 1952). Raises Problem 400."""
        self._empty_members += not self._member_bytes
        if self._empty_members > EMPTY_MEMBERS:
            raise Problem(400, f"{self._coding}: more than {EMPTY_MEMBERS} members are empty", reason="malformed")
        self._member_bytes = 0
        self._inflate = zlib.decompressobj(CODINGS[self._coding])

    def complete(self) -> None:
        """The end, which must be the end of the gzip stream as well."""
        if self._began and not self._inflate.eof:
            raise Problem(400, f"{self._coding}: the body ends too early", reason="malformed")
        self._sink.complete()


def too_large(limit: int) -> Problem:
    """The body is over the limit."""
    return Problem(413, f"the body has more than {limit:,} bytes", title="Request too large", reason="too_large")
