"""Reads the answers on one of `bench`'s connections: status, Cache-Status, and where the body ends. Reactor thread.

Bodies are counted, not kept.
"""

from __future__ import annotations

LONGEST_HEAD = 65536


class BrokenAnswer(ValueError):
    """What came is no HTTP answer."""


class AnswerReader:
    """One request at a time: after `feed` has said True, `status`, `cache` and `closes` tell of the answer.

    `cache` is the value of Cache-Status, b"" where there is none; `closes`: the server will close the connection.
    """

    def __init__(self) -> None:
        self.status = 0
        self.cache = b""
        self.closes = False
        self._head = b""
        self._missing = 0
        self._chunks: ChunkEnd | None = None

    @property
    def begun(self) -> bool:
        """Whether a part of an answer has come, but not all."""
        return bool(self._head or self._missing or self._chunks)

    def feed(self, data: bytes) -> bool:
        """Whether the answer is complete with this. Raises BrokenAnswer."""
        if self._missing:
            self._missing -= len(data)
            if self._missing < 0:
                raise BrokenAnswer("more came than the answer was to have")
            return not self._missing
        if self._chunks is not None:
            return self._ended(self._chunks.feed(data))
        if self._head:
            data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > LONGEST_HEAD:
                raise BrokenAnswer("a head without an end")
            self._head = data
            return False
        self._head = b""
        return self._begin(data[: end + 2], data, end + 4)

    def _begin(self, head: bytes, data: bytes, at: int) -> bool:
        if head[:7] != b"HTTP/1." or not head[9:12].isdigit():
            raise BrokenAnswer("no HTTP answer")
        self.status = int(head[9:12])
        fields = head.lower()
        self.cache = value(head, fields, b"\r\ncache-status:")
        self.closes = value(fields, fields, b"\r\nconnection:") == b"close"
        if self.status < 200:
            return self.feed(data[at:]) if len(data) > at else False
        length = value(fields, fields, b"\r\ncontent-length:")
        if length.isdigit():
            self._missing = int(length) - (len(data) - at)
            if self._missing < 0:
                raise BrokenAnswer("more came than the answer was to have")
            return not self._missing
        if value(fields, fields, b"\r\ntransfer-encoding:") != b"chunked":
            raise BrokenAnswer("an answer without a length")
        self._chunks = ChunkEnd()
        return self._ended(self._chunks.feed(data[at:]))

    def _ended(self, ended: bool) -> bool:
        if ended:
            self._chunks = None
        return ended


class ChunkEnd:
    """Finds the end of a chunked body."""

    def __init__(self) -> None:
        self._skipped = 0
        self._text = b""
        self._last = False

    def feed(self, data: bytes) -> bool:
        """Whether it ended with this. Raises BrokenAnswer."""
        at = min(self._skipped, len(data))
        self._skipped -= at
        data = self._text + data[at:]
        at = 0
        while not self._skipped and (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            if self._last and not line:
                return True
            if not self._last:
                size = chunk_size(line)
                self._last = not size
                self._skipped = size + 2 if size else 0
            at = min(end + 2 + self._skipped, len(data))
            self._skipped -= at - end - 2
        self._text = data[at:]
        return False


def chunk_size(line: bytes) -> int:
    """The size that a chunk's first line tells."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise BrokenAnswer("no size of a chunk") from None


def value(head: bytes, lower: bytes, name: bytes) -> bytes:
    """The value of a header field; `lower` is the head in lower case."""
    at = lower.find(name)
    if at < 0:
        return b""
    at += len(name)
    return head[at : head.index(b"\r\n", at)].strip()
