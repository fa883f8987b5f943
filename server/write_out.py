"""Writes a large answer in pieces, as fast as the client takes it. Reactor thread."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

PIECE = 65536


@implementer(IPushProducer)
class WriteOut:
    """One answer's body. The connection's deadline for a client that does not read runs for each pause anew."""

    def __init__(self, request: Any, body: bytes) -> None:
        self._request = request
        self._body = memoryview(body)
        self._at = 0
        self._paused = False
        self._writing = False

    @property
    def owed(self) -> int:
        """The bytes that it holds."""
        return len(self._body)

    def begin(self) -> None:
        """Register and write."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:  # noqa: N802
        """The transport is full."""
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        """Write until the transport is full."""
        self._paused = False
        if self._writing:
            return
        self._writing = True
        try:
            while not self._paused and self._at < len(self._body):
                piece = bytes(self._body[self._at : self._at + PIECE])
                self._at += len(piece)
                self._request.write(piece)
        finally:
            self._writing = False
        if self._at >= len(self._body) and not self._request.finished:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection has gone."""
        self._paused = True
        self._at = len(self._body)
