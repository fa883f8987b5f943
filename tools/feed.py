"""Between the reader thread and the reactor: chunks of rows, and the bound on how many are on their way.

`Feed.run` is the reader thread; `Window` may be used from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rowserve.handlers.items import Item

WINDOW_ROWS = 4096
WINDOW_BYTES = 64 << 20


@dataclass(slots=True, eq=False)
class Chunk:
    """Rows that are asked together: the answers to `rows` lines, of which the first is number `first`.

    `names` are the paths of those lines that are paths, None where none is. `nbytes` is what it holds in memory, its
    answers included.
    """

    first: int
    rows: int
    nbytes: int
    items: Sequence[Item] = field(default_factory=list)
    names: Sequence[str | None] | None = None

    def name(self, index: int) -> str | None:
        """The path of a line."""
        return None if self.names is None else self.names[index]


class Window:
    """Room for the chunks that are read and not yet written."""

    def __init__(self, rows: int = WINDOW_ROWS, nbytes: int = WINDOW_BYTES) -> None:
        self._limits = rows, nbytes
        self._rows = 0
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return self._rows == 0

    def enter(self, chunk: Chunk) -> bool:
        """Waits for room; False when the window is closed. One chunk, however large, has room when it is alone."""
        rows, nbytes = self._limits
        with self._changed:
            while not self._closed and self._rows:
                if self._rows + chunk.rows <= rows and self._bytes + chunk.nbytes <= nbytes:
                    break
                self._changed.wait()
            if self._closed:
                return False
            self._rows += chunk.rows
            self._bytes += chunk.nbytes
            return True

    def leave(self, chunk: Chunk) -> None:
        """Frees the chunk's room."""
        with self._changed:
            self._rows -= chunk.rows
            self._bytes -= chunk.nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nothing in any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Feed:
    """Hands chunks to the reactor as there is room; then `ended(None)`, or `ended(error)` where reading failed."""

    def __init__(
        self,
        chunks: Iterable[Chunk],
        window: Window,
        *,
        call_in_reactor: Callable[[Callable[[], None]], Any],
        take: Callable[[Chunk], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._chunks = chunks
        self._window = window
        self._call_in_reactor = call_in_reactor
        self._take = take
        self._ended = ended

    def run(self) -> None:
        """Reader thread."""
        failure: BaseException | None = None
        try:
            for chunk in self._chunks:
                if not self._window.enter(chunk):
                    return
                self._call_in_reactor(partial(self._take, chunk))
        except BaseException as error:  # noqa: BLE001 - the reactor tells it
            failure = error
        self._call_in_reactor(partial(self._ended, failure))
