"""Where the body of a request ends: after a known length, or with its last chunk (RFC 9112, section 7.1).

Pure values, reactor thread.
"""

from __future__ import annotations

import re

from rowserve.server.request_head import Malformed

# So many chunks are read in one turn, however small they are.
CHUNKS_A_TURN = 256
SIZE_BYTES = 1024
TRAILER_BYTES = 16384
SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")
TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class LengthReader:
    """Takes what comes until `done`; as a ChunkReader."""

    __slots__ = ("_left", "done")
    again = False
    fault = ""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The body's bytes in `data`, and how many those are."""
        piece = data if len(data) <= self._left else data[: self._left]
        self._left -= len(piece)
        self.done = not self._left
        return piece, len(piece)


class ChunkReader:
    """Takes what comes until `done`, or until `fault` says what is wrong; extensions and trailers are dropped.

    `again` tells that the last call left bytes that could be read, for another turn.
    """

    __slots__ = ("_in_chunk", "_left", "_trailers", "again", "done", "fault")

    def __init__(self) -> None:
        self._in_chunk = False
        self._left = 0  # of the chunk
        self._trailers = -1  # bytes of trailers, once the last chunk has come
        self.again = False
        self.done = False
        self.fault = ""

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The body's bytes in `data`, and how many bytes of `data` are used: the next call begins with the others."""
        pieces: list[bytes] = []
        self.again = False
        try:
            used = self._read(data, pieces)
        except Malformed as fault:
            used, self.fault = len(data), str(fault)
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
            raise Malformed("the request cannot be parsed: a chunk is longer than its size")
        self._in_chunk = len(line_end) < 2
        return not self._in_chunk

    def _read_size(self, data: bytes, at: int) -> int:
        """The line with a chunk's size: its length, 0 where it is not complete."""
        end = data.find(b"\r\n", at, at + SIZE_BYTES + 2)
        if end < 0:
            if len(data) - at > SIZE_BYTES:
                raise Malformed("the request cannot be parsed: a chunk has no size")
            return 0
        size = SIZE.fullmatch(data, at, end)
        if size is None:
            raise Malformed("the request cannot be parsed: a chunk's size is no hexadecimal number")
        self._left = int(size[1], 16)
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
            raise Malformed(f"the request cannot be parsed: its trailers are larger than {TRAILER_BYTES} bytes")
        if used == 2:
            self.done = True
        elif used and TRAILER.fullmatch(data, at, end) is None:
            raise Malformed("the request cannot be parsed: a trailer is no header")
        return used
