"""Where the body of a request ends: after a known length, or with its last chunk (RFC 9112, section 7.1).

Pure values, reactor thread.
"""

from __future__ import annotations

import re

from rowserve.handlers.problem import Problem
from rowserve.server.bodies import too_large
from rowserve.server.request_head import MAX_LENGTH_DIGITS, malformed

# So many chunks are read in one turn, however small they are.
CHUNKS_A_TURN = 256
SIZE_BYTES = 1024
TRAILER_BYTES = 16384
# The limit of a body that has none: as for lengths, no proxy in front reads another number.
ENDLESS = 10**MAX_LENGTH_DIGITS - 1
SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")
TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
# The same however the bytes are cut.
NO_SIZE = "the request cannot be parsed: a chunk's size is no hexadecimal number"
# What may still become one of them, and a line end.
SIZE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:;[\t -~\x80-\xff]*)?\r?)?")
TRAILER_BEGUN = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?::[\t -~\x80-\xff]*\r?)?|\r)?")


class LengthReader:
    """Takes what comes until `done`; as a ChunkReader."""

    __slots__ = ("_left", "done", "limit")
    again = False
    fault = None

    def __init__(self, length: int) -> None:
        self.limit = self._left = length
        self.done = False

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The body's bytes in `data`, and how many those are."""
        piece = data if len(data) <= self._left else data[: self._left]
        self._left -= len(piece)
        self.done = not self._left
        return piece, len(piece)


class ChunkReader:
    """Takes what comes until `done`, or until `fault` says what is wrong; extensions and trailers are dropped.

    A chunk that would bring the body over `limit` bytes is a fault as soon as its size is known. `again` tells that the
    last call left bytes that could be read, for another turn.
    """

    __slots__ = ("_announced", "_in_chunk", "_left", "_trailers", "again", "done", "fault", "limit")

    def __init__(self, limit: int = ENDLESS) -> None:
        self.limit = limit
        self._announced = 0  # bytes of all chunks so far
        self._in_chunk = False
        self._left = 0  # of the chunk
        self._trailers = -1  # bytes of trailers, once the last chunk has come
        self.again = False
        self.done = False
        self.fault: Problem | None = None

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The body's bytes in `data`, and how many bytes of `data` are used: the next call begins with the others."""
        pieces: list[bytes] = []
        self.again = False
        try:
            used = self._read(data, pieces)
        except Problem as fault:
            used, self.fault = len(data), fault.with_traceback(None)  # its frames hold the data
        return b"".join(pieces), used

    def _read(self, data: bytes, pieces: list[bytes]) -> int:
        at = chunks = 0
        while True:
            if self._in_chunk:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left or not self._ends(data[at : at + 2]):
                    break
                at += 2
                chunks += 1
            if self._trailers < 0:
                if chunks == CHUNKS_A_TURN:
                    self.again = at < len(data)
                    break
                used = self._read_size(data, at)
            else:
                used = self._read_trailers(data, at)
            at += used
            if not used or self.done:
                break
        return at

    def _ends(self, line_end: bytes) -> bool:
        """Whether the line end behind a chunk is there."""
        if not b"\r\n".startswith(line_end):
            raise malformed("the request cannot be parsed: a chunk is longer than its size")
        self._in_chunk = len(line_end) < 2
        return not self._in_chunk

    def _read_size(self, data: bytes, at: int) -> int:
        """The line with a chunk's size: its length, 0 where it is not complete."""
        end = data.find(b"\r\n", at, at + SIZE_BYTES + 2)
        if end < 0:
            if len(data) - at > SIZE_BYTES or SIZE_BEGUN.fullmatch(data, at) is None:
                raise malformed(NO_SIZE)
            return 0
        size = SIZE.fullmatch(data, at, end)
        if size is None:
            raise malformed(NO_SIZE)
        self._left = int(size[1], 16)
        self._announced += self._left
        if self._announced > self.limit:
            raise too_large(self.limit)
        if self._left:
            self._in_chunk = True
        else:
            self._trailers = 0
        return end + 2 - at

    def _read_trailers(self, data: bytes, at: int) -> int:
        """A line behind the last chunk: its length, 0 where it is not complete."""
        end = data.find(b"\r\n", at)
        used = 0 if end < 0 else end + 2 - at
        self._trailers += used
        if self._trailers + (0 if used else len(data) - at) > TRAILER_BYTES:
            raise malformed(f"the request cannot be parsed: its trailers are larger than {TRAILER_BYTES} bytes")
        if used == 2:
            self.done = True
        elif (TRAILER.fullmatch(data, at, end) if used else TRAILER_BEGUN.fullmatch(data, at)) is None:
            raise malformed("the request cannot be parsed: a trailer is no header")
        return used
