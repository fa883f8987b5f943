"""The pictures of one request on their way to rows.

Reactor thread; the decoding itself runs on the decode pool, no further ahead of the graph than it is told, and within
the memory that there is for all (`decode_memory`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from rowserve.graphs.rows import Rows
from rowserve.handlers.items import Picture
from rowserve.handlers.problem import Problem
from rowserve.server.decode_memory import Turn

if TYPE_CHECKING:
    from rowserve.server.pipeline import RowPipeline

LARGE = 4 << 20  # bytes; hashing more than this takes the reactor a millisecond, so the pool does it
Decoded = tuple[Rows, bytes | None, float]  # a row, its key, and the seconds that it took
UNNAMED = b""  # in place of a key: the upload is not hashed yet


@dataclass(slots=True)
class Upload:
    """A picture at its place in the request. `key`: the row it was known by, None, or UNNAMED. `alias`: its own key."""

    position: int
    picture: Picture
    key: bytes | None = None
    alias: bytes | None = None


class Decoder(Protocol):
    """Who wants the rows."""

    def named(self, upload: Upload) -> bool:
        """A large upload has its alias now: whether its row was found by it, and is settled."""

    def key_of(self, rows: Rows) -> bytes | None:
        """Decode pool: the row's key, None where it has none. To hash a row's 600 kB would cost the reactor 0.2 ms."""

    def decoded(self, upload: Upload, rows: Rows, key: bytes | None) -> None:
        """It has become one row."""

    def undecodable(self, upload: Upload, problem: Problem) -> None:
        """It will not."""


class Decoding:
    """Decodes pictures in their order; at most `ahead` are decoded, or being so, and not yet settled.

    `decoded` or `undecodable` comes once for each, unless `named` says it is settled, or `stop` comes first.
    """

    def __init__(self, pipeline: RowPipeline, owner: Decoder, name: Callable[[Picture], bytes], *, ahead: int) -> None:
        self._pipeline = pipeline
        self._owner = owner
        self._name = name
        self._ahead = ahead
        self._waiting: deque[Upload] = deque()
        self._begun: set[int] = set()
        self._memory = pipeline.decode_memory
        self._turns: dict[int, Turn] = {}  # of those that wait for memory
        self._stopped = False
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._begun)

    def add(self, upload: Upload) -> None:
        """Takes a picture in line."""
        self._waiting.append(upload)

    def go_on(self) -> None:
        """Begins as many pictures as may be on their way."""
        while self._waiting and len(self._begun) < self._ahead:
            upload = self._waiting.popleft()
            self._begun.add(upload.position)
            if upload.key == UNNAMED:
                naming = self._pipeline.defer_to_pool(partial(self._name, upload.picture))
                naming.addCallback(self._named, upload)
                naming.addErrback(self._failed, upload)
            else:
                self._begin(upload)

    def _named(self, alias: bytes, upload: Upload) -> None:
        upload.alias = alias
        if not self._stopped and not self._owner.named(upload):
            self._begin(upload)

    def _begin(self, upload: Upload) -> None:
        self._on_pool(partial(self._try, upload.picture), upload)

    def _on_pool(self, call: Callable[[], Decoded | int | None], upload: Upload) -> None:
        decoding = self._pipeline.defer_to_pool(call)
        decoding.addCallback(self._decoded, upload)
        decoding.addErrback(self._failed, upload)

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
        if self._turns:
            for turn in self._turns.values():
                self._memory.leave(turn)
            self._turns.clear()
            self._memory.admit()

    def _try(self, picture: Picture) -> Decoded | int | None:
        """Decode pool: the memory wanted where there is no room for it now; None where nobody waits any more."""
        if self._stopped:
            return None
        size = picture.decoder.peak_bytes(picture.upload)
        return self._decode(picture, size) if self._memory.take(size) else size

    def _decode(self, picture: Picture, size: int) -> Decoded | None:
        """Decode pool: in memory that has been taken."""
        try:
            if self._stopped:
                return None
            began = self._pipeline.monotonic()
            rows = picture.decoder.decode(picture.upload)
            return rows, self._owner.key_of(rows), self._pipeline.monotonic() - began
        finally:
            self._memory.give_back(size)

    def _decoded(self, result: Decoded | int | None, upload: Upload) -> None:
        self._memory.admit()
        if result is None or self._stopped:
            return
        if isinstance(result, int):
            self._turns[upload.position] = self._memory.wait(result, partial(self._in_turn, upload, result))
            self._memory.admit()
            return
        rows, key, seconds = result
        self.seconds += seconds
        self._pipeline.metrics.decode_seconds.observe(seconds)
        self._owner.decoded(upload, rows, key)

    def _in_turn(self, upload: Upload, size: int) -> None:
        """Its memory has been taken."""
        del self._turns[upload.position]
        self._on_pool(partial(self._decode, upload.picture, size), upload)

    def _failed(self, failure: Any, upload: Upload) -> None:
        self._memory.admit()
        if self._stopped:
            return
        fault = failure.value
        if not isinstance(fault, Problem):
            self._pipeline.report(failure)
            fault = Problem(500, "the server failed on this picture; its log says why", reason="internal")
        self._owner.undecodable(upload, fault)
