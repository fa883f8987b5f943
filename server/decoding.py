"""The pictures of one request on their way to rows.

Reactor thread; the decoding itself runs on the decode pool, no further ahead of the graph than it is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rowserve.graphs.rows import Rows
from rowserve.handlers.items import Picture
from rowserve.handlers.problem import Problem

if TYPE_CHECKING:
    from rowserve.server.pipeline import RowPipeline

Decoded = Callable[[int, Picture, Rows, "bytes | None"], None]


class Decoding:
    """Decodes pictures by their places in the request; at most `ahead` are decoded, or being so, and not yet settled.

    `decoded(position, picture, rows, key the picture was known by)` or `failed(position, problem)` comes once for each,
    unless `stop` comes first.
    """

    def __init__(
        self, pipeline: RowPipeline, decoded: Decoded, failed: Callable[[int, Problem], None], *, ahead: int
    ) -> None:
        self._pipeline = pipeline
        self._on_decoded = decoded
        self._on_failed = failed
        self._ahead = ahead
        self._waiting: deque[tuple[int, Picture, bytes | None]] = deque()
        self._begun: set[int] = set()
        self._stopped = False
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._begun)

    def add(self, position: int, picture: Picture, known: bytes | None) -> None:
        """Takes a picture in line."""
        self._waiting.append((position, picture, known))

    def go_on(self) -> None:
        """Begins as many pictures as may be on their way."""
        while self._waiting and len(self._begun) < self._ahead:
            position, picture, known = self._waiting.popleft()
            self._begun.add(position)
            decoding = self._pipeline.defer_to_pool(partial(self._decode, picture))
            decoding.addCallback(self._decoded, position, picture, known)
            decoding.addErrback(self._failed, position)

    def settled(self, position: int) -> None:
        """A row is answered or failed: if it was one of these pictures, the next may begin."""
        if position in self._begun:
            self._begun.discard(position)
            self.go_on()

    def stop(self) -> None:
        """Begins no further picture, and says no more of those begun."""
        self._stopped = True
        self._waiting.clear()
        self._begun.clear()

    def _decode(self, picture: Picture) -> tuple[Rows, float] | None:
        """Decode pool: None where nobody waits any more."""
        if self._stopped:
            return None
        began = self._pipeline.monotonic()
        rows = picture.decoder.decode(picture.upload)
        return rows, self._pipeline.monotonic() - began

    def _decoded(self, result: tuple[Rows, float] | None, position: int, picture: Picture, known: bytes | None) -> None:
        if result is None or self._stopped:
            return
        rows, seconds = result
        self.seconds += seconds
        self._pipeline.metrics.decode_seconds.observe(seconds)
        self._on_decoded(position, picture, rows, known)

    def _failed(self, failure: Any, position: int) -> None:
        if self._stopped:
            return
        fault = failure.value
        if not isinstance(fault, Problem):
            self._pipeline.report(failure)
            fault = Problem(500, "the server failed on this picture; its log says why", reason="internal")
        self._on_failed(position, fault)
