"""A store in memory, for tests: the same contract as the LMDB store, without a file.

Any thread, one at a time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rowserve.cache.errors import StoreFailed, StoreFull
from rowserve.cache.store import Reader, Space

PAGE = 4096


class MemoryView:
    """Reads over one state of a sorted dictionary."""

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes], pages: int) -> None:
        self._keys = keys
        self._values = values
        self._pages = pages

    def get(self, key: bytes) -> bytes | None:
        """See store.View."""
        return self._values.get(key)

    def abort(self) -> None:
        """See store.Reader."""

    def scan(self, start: bytes, stop: bytes, limit: int, values: bool = True) -> list[tuple[bytes, bytes]]:
        """See store.View."""
        at = bisect_left(self._keys, start)
        keys = [key for key in self._keys[at : at + limit] if key < stop]
        return [(key, self._values[key] if values else b"") for key in keys]

    def last(self, start: bytes, stop: bytes) -> bytes | None:
        """See store.View."""
        at = bisect_left(self._keys, stop) - 1
        return self._keys[at] if at >= 0 and self._keys[at] >= start else None


class MemoryUpdate(MemoryView):
    """Writes on a copy."""

    def put(self, key: bytes, value: bytes | memoryview) -> None:
        """See store.Update."""
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = bytes(value)
        if self.space().used > self._pages:
            raise StoreFull("the map is full")

    def add(self, key: bytes, value: bytes | memoryview) -> bool:
        """See store.Update."""
        if key in self._values:
            return False
        self.put(key, value)
        return True

    def append(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """See store.Update."""
        for key, value in pairs:
            if self._keys and key <= self._keys[-1]:
                raise StoreFailed("appended out of order")
            self.put(key, value)

    def delete(self, key: bytes) -> bool:
        """See store.Update."""
        if self._values.pop(key, None) is None:
            return False
        del self._keys[bisect_left(self._keys, key)]
        return True

    def space(self) -> Space:
        """See store.Update."""
        used = -(-sum(len(key) + len(value) + 10 for key, value in self._values.items()) // PAGE)
        return Space(used, used, self._pages, PAGE)


class MemoryStore:
    """A sorted dictionary of at most `pages` pages; `lag` is what `behind` shall say."""

    errors: tuple[type[Exception], ...] = ()
    damaged = ""
    sound = True

    def __init__(self, pages: int = 4096) -> None:
        self._state = MemoryUpdate([], {}, pages)
        self._pages = pages
        self.lag = 0
        self.syncs = 0
        self.closed = False

    def _open(self) -> MemoryUpdate:
        if self.closed:
            raise StoreFailed("the store is closed")
        return self._state

    def give_up(self, why: str) -> None:
        """See store.Store."""

    def exchange(self, other: MemoryStore) -> None:
        """See store.Store."""
        self.__dict__, other.__dict__ = other.__dict__, self.__dict__

    def note(self, error: Exception) -> None:
        """See store.Store."""

    def read(self) -> Reader:
        """See store.Store."""
        return self._open()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See store.Store."""
        state = self._open()
        return [state.get(key) for key in keys]

    @contextmanager
    def view(self) -> Iterator[MemoryView]:
        """See store.Store."""
        yield self._open()

    @contextmanager
    def update(self) -> Iterator[MemoryUpdate]:
        """See store.Store."""
        state = self._open()
        copy = MemoryUpdate(list(state._keys), dict(state._values), self._pages)
        yield copy
        self._state = copy

    def space(self) -> Space:
        """See store.Store."""
        return self._open().space()

    def behind(self) -> int:
        """See store.Store."""
        return self.lag

    def check_readers(self) -> int:
        """See store.Store."""
        self._open()
        return 0

    def sync(self) -> None:
        """See store.Store."""
        self._open()
        self.syncs += 1

    def close(self) -> None:
        """See store.Store."""
        self.closed = True
