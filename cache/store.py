"""What the cache asks of an ordered file of keys and values; `lmdb_store` and `memory_store` answer alike.

Types only. Reads come from the reactor thread (and from tools), updates from the one cache writer thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Space:
    """Pages of `page` bytes: in use, in the file at its highest, and in the map (the file's bound)."""

    used: int
    file: int
    map: int
    page: int = 4096


class View(Protocol):
    """Consistent reads, in one short transaction."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`."""

    def scan(self, start: bytes, stop: bytes, limit: int, values: bool = True) -> list[tuple[bytes, bytes]]:
        """The first `limit` pairs with start <= key < stop, in order; values may be left out (empty)."""

    def last(self, start: bytes, stop: bytes) -> bytes | None:
        """The last key with start <= key < stop."""


class Update(View, Protocol):
    """All of it or nothing; sees what it has written."""

    def put(self, key: bytes, value: bytes | memoryview) -> None:
        """Write, whether there or not. Raises StoreFull, StoreFailed."""

    def add(self, key: bytes, value: bytes | memoryview) -> bool:
        """Write where nothing is there yet; whether it was written. Raises as `put` does."""

    def append(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Write keys in order, the first greater than every other in the file. Raises as `put` does."""

    def delete(self, key: bytes) -> bool:
        """Whether there was something to delete."""

    def space(self) -> Space:
        """Pages now; `file` as of the last commit."""


class Reader(Protocol):
    """One short read transaction. `get` may raise one of the store's `errors`; `abort` ends it, whatever happened."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`."""

    def abort(self) -> None:
        """It pins no pages any more."""


class Store(Protocol):
    """An ordered file. Every method may raise StoreFailed, and nothing else.

    `errors` are what a Reader may raise. `damaged` says what was found wrong with the file, or "": from then on every
    read and write raises StoreDamaged. `sound` is true until anything goes wrong, of whatever kind: who has met
    nothing may say that the file is good.
    """

    errors: tuple[type[Exception], ...]
    damaged: str
    sound: bool

    def give_up(self, why: str) -> None:
        """The file is damaged: it is used no more."""

    def exchange(self, other: Any) -> None:
        """Each becomes what the other, of the same class, was. Between two reads, and while nobody writes."""

    def note(self, error: Exception) -> None:
        """A Reader has raised this one of `errors`: it may show that the file is damaged."""

    def read(self) -> Reader:
        """What a look-up reads by: the store's own transaction as it is, for nothing is called more often."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of the keys, in one transaction."""

    def view(self) -> AbstractContextManager[View]:
        """Reads that see one state; keep it short, for it pins pages."""

    def update(self) -> AbstractContextManager[Update]:
        """A write transaction: committed when the block ends, dropped when it raises. Writer thread only."""

    def space(self) -> Space:
        """Pages as of the last commit."""

    def behind(self) -> int:
        """How many commits the oldest reader lags behind: what it still sees cannot be used again."""

    def check_readers(self) -> int:
        """Free the slots of readers that died; how many there were."""

    def sync(self) -> None:
        """Return when every commit is on the disk."""

    def close(self) -> None:
        """Let go of the file; once is enough, twice does no harm."""


class Nothing:
    """What a cache that is off reads by."""

    def get(self, key: bytes) -> None:
        """Nothing is there."""

    def abort(self) -> None:
        """Nothing was begun."""
