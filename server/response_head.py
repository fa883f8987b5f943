"""The head of an answer. Pure values, reactor thread; on the path of every request."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from rowserve.handlers.problem import phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NO_BODY = (204, 304)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class FirstLines:
    """The lines that begin an answer (status, Server, Date, and Connection where it is told), made once a second.

    An old client, which closes connections unless told, is told where one is kept.

    `now` gives the time in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._second = -1
        self._made: dict[tuple[bytes, int, bool], bytes] = {}

    def get(self, version: bytes, status: int, close: bool) -> bytes:
        """With the usual reason phrase."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._made.clear()
        key = (version, status, close)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self.make(version, status, close, phrase(status))
        return made

    def make(self, version: bytes, status: int, close: bool, reason: str) -> bytes:
        """With that reason phrase; what is no Latin-1 in it, or ends a line, becomes a question mark."""
        words = "".join(letter if letter >= " " else "?" for letter in reason).encode("latin-1", "replace")
        date = formatdate(self._now(), usegmt=True).encode()
        first = b"%b %d %b\r\nServer: rowserve\r\nDate: %b\r\n" % (version, status, words, date)
        if close:
            return first + b"Connection: close\r\n"
        return first + b"Connection: keep-alive\r\n" if version == b"HTTP/1.0" else first


def head_lines(headers: Sequence[tuple[str, str]]) -> bytes:
    """The headers as lines. Line ends in a value become spaces: none of them can begin a header of its own."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        text = "".join([f"{name}: {' '.join(value.splitlines())}\r\n" for name, value in headers])
    return text.encode()
