"""Transactions of the LMDB file: views on the reactor thread (and in tools), updates on the cache writer thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rowserve.cache.errors import StoreFailed
from rowserve.cache.store import Space


class LmdbView:
    """See store.View; over one transaction."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn
        self.get: Callable[[bytes], bytes | None] = txn.get

    def scan(self, start: bytes, stop: bytes, limit: int, values: bool = True) -> list[tuple[bytes, bytes]]:
        """See store.View."""
        found: list[tuple[bytes, bytes]] = []
        with self._txn.cursor() as cursor:
            if limit <= 0 or not cursor.set_range(start):
                return found
            for item in cursor.iternext(keys=True, values=values):
                key, value = item if values else (item, b"")
                if key >= stop:
                    break
                found.append((key, value))
                if len(found) == limit:
                    break
        return found

    def last(self, start: bytes, stop: bytes) -> bytes | None:
        """See store.View."""
        with self._txn.cursor() as cursor:
            there = cursor.prev() if cursor.set_range(stop) else cursor.last()
            key: bytes = cursor.key()
            return key if there and key >= start else None


class LmdbUpdate(LmdbView):
    """See store.Update; over one write transaction."""

    def __init__(self, env: Any, txn: Any) -> None:
        super().__init__(txn)
        self._env = env

    def put(self, key: bytes, value: bytes | memoryview) -> None:
        """See store.Update."""
        self._txn.put(key, value)

    def add(self, key: bytes, value: bytes | memoryview) -> bool:
        """See store.Update."""
        return bool(self._txn.put(key, value, overwrite=False))

    def append(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """See store.Update."""
        with self._txn.cursor() as cursor:
            _, added = cursor.putmulti(pairs, append=True)
        if added < len(pairs):
            raise StoreFailed("appended out of order")

    def delete(self, key: bytes) -> bool:
        """See store.Update."""
        return bool(self._txn.delete(key))

    def space(self) -> Space:
        """See store.Update."""
        return space_of(self._txn.stat(), self._env.info())


def space_of(stat: dict[str, int], info: dict[str, int]) -> Space:
    """Pages in use (the tree's and the two meta pages), in the file, in the map."""
    used = 2 + stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return Space(used, info["last_pgno"] + 1, info["map_size"] // stat["psize"], stat["psize"])
