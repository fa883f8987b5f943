"""What can go wrong with the cache, named by what happened.

Pure values, safe on any thread. None of these reaches a request: a cache that fails is a miss and a metric.
"""

from __future__ import annotations


class CacheError(Exception):
    """The cache cannot do what was asked; the message is one readable line."""


class CacheRefused(CacheError):
    """The cache cannot be used as it stands (foreign, damaged, held by others, on a network file system)."""


class WalkEnded(CacheError):
    """Somebody ended the process that looked at the file: nothing is known of it."""


class SecretRefused(CacheRefused):
    """The secret file is not one to trust; the message names it and says what is wrong."""


class StoreFailed(CacheError):
    """A read or a write of the store failed; nothing of the update was kept."""


class StoreFull(StoreFailed):
    """The map has no page left."""


class StoreDamaged(StoreFailed):
    """The file is not whole, and must not be used any more."""


class RowsNotKept(CacheError):
    """Rows taken since the last sync were dropped or failed. `count` says how many."""

    def __init__(self, count: int, why: str) -> None:
        super().__init__(f"{count} rows were not kept: {why}")
        self.count = count


class UsedAfterFork(RuntimeError):
    """The store was used in a forked child, where LMDB must not be touched: a programming error."""
