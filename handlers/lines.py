"""Bytes to lines, with a limit: what comes in by chunks goes out as whole lines.

Pure, for one stream and one thread. A line that is too long costs no memory: it is dropped as it comes, and
stands in its place as a Problem.
"""

from __future__ import annotations

from rowserve.handlers.json_values import BOM
from rowserve.handlers.problem import Problem

MAX_LINE = 16 * 1024 * 1024
Line = bytes | Problem


class LineSplitter:
    """Feed it chunks; it gives the lines that they complete, without their ends (LF or CRLF), nor a byte order mark
    before the first."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self.max_line = max_line
        self._begun: list[bytes] = []  # the pieces of the line that has no end yet
        self._length = 0
        self._dropped = False
        self._first = True

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that this chunk completes."""
        first, *pieces = chunk.split(b"\n")
        self._add(first)
        if not pieces:
            return []
        lines = [self._take()]
        last = pieces.pop()
        if len(chunk) > self.max_line:  # one of them may be too long
            for piece in pieces:
                self._add(piece)
                lines.append(self._take())
        elif b"\r" in chunk:
            lines += [piece.removesuffix(b"\r") for piece in pieces]
        else:
            lines += pieces
        self._add(last)
        return lines

    def finish(self) -> list[Line]:
        """The last line, where the stream ended without an end of line."""
        return [self._take()] if self._begun or self._dropped else []

    def _add(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > self.max_line + 1:  # a CR at its end does not count, and may still come
            self._begun, self._dropped = [], True
        elif piece:
            self._begun.append(piece)

    def _take(self) -> Line:
        line = b"".join(self._begun).removesuffix(b"\r")
        if self._first:
            line, self._first = line.removeprefix(BOM), False
        dropped, length = self._dropped or len(line) > self.max_line, self._length
        self._begun, self._length, self._dropped = [], 0, False
        if dropped:
            told = f"a line of {length:,} bytes; at most {self.max_line:,} are taken"
            return Problem(413, told, title="Line too long", reason="too_large")
        return line
