"""Keeping the file within its cap: oldest first, with a second chance for what was hit. And forgetting throw-away rows.

Cache writer thread, inside updates. The cap counts pages in use. LMDB writes a changed page anew and can use the old
one again only two commits later, so the file is larger than what is in use by a few updates' worth of pages: that much
is left free below the cap, and updates are cut to a size that keeps it small.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rowserve.cache import layout
from rowserve.cache.books import Books
from rowserve.cache.layout import Entry
from rowserve.cache.store import Space

LEAST_SIZE = 4 * 2**20
"""The smallest cap, in bytes."""

MAP_OVER_CAP = 1.25
RESERVED_UPDATES = 16
LEAST_PAGES = 16
MOST_PAGES = 2048


@dataclass(frozen=True, slots=True)
class Budget:
    """What a cap means in pages.

    `update`: how many an update may touch. `soft`: above it, each update evicts. `hard`: above it, nothing is added.
    `cap`: where the file shall end.
    """

    cap: int
    update: int
    soft: int
    hard: int

    @classmethod
    def of(cls, size: int, page: int = 4096) -> Budget:
        """The budget of a cap of `size` bytes."""
        cap = size // page
        update = min(max(cap // 128, LEAST_PAGES), MOST_PAGES)
        return cls(cap, update, cap - RESERVED_UPDATES * update, cap - RESERVED_UPDATES * update // 2)

    @property
    def longest(self) -> int:
        """Pages of the longest row that is kept."""
        return self.update * 2

    def pressing(self, space: Space) -> bool:
        """Whether the hand moves or soon will, so that hits are worth marking."""
        return space.used > self.soft * 3 // 4


@dataclass(frozen=True, slots=True)
class Swept:
    """What one pass of the hand did: entries looked at, records dropped, their bytes."""

    looked: int = 0
    dropped: int = 0
    freed: int = 0


def make_room(books: Books, budget: Budget, pages: int, size: int, chances: bool) -> bool:
    """Evict where pages run short; whether `pages` more, for rows of `size` bytes, may be added in this update.

    Dropping small rows frees no page at once, only space inside pages that new rows then fill; so where the cap is
    reached each update drops twice the bytes that it adds, and no less than what is over.
    """
    space = books.update.space()
    short = space.used + pages - budget.soft
    if short > 0:
        sweep(books, budget.update, max(2 * size, short * space.page), chances)
        space = books.update.space()
    return space.used + pages <= budget.hard


def sweep(books: Books, looks: int, wanted: int, chances: bool = True) -> Swept:
    """Move the hand over at most `looks` entries, until `wanted` bytes are dropped: those to be forgotten soon first.

    A marked row loses its mark and goes to the end of the order; with `chances` off it is dropped like any other.
    """
    done = Swept()
    for start, stop in layout.ORDERS:
        part = pass_over(books, start, stop, looks - done.looked, wanted - done.freed, chances)
        done = Swept(done.looked + part.looked, done.dropped + part.dropped, done.freed + part.freed)
    books.counters.evicted += done.dropped
    return done


def forget_throw_away(books: Books, looks: int) -> bool:
    """Drop throw-away rows, at most so many; whether there may be more."""
    start, stop = layout.ORDERS[0]
    return pass_over(books, start, stop, looks, sys.maxsize, chances=False).looked == looks


def pass_over(books: Books, start: bytes, stop: bytes, looks: int, wanted: int, chances: bool) -> Swept:
    """One order, from its oldest entry on."""
    looked = dropped = freed = 0
    for place, value in books.update.scan(start, stop, looks):
        if freed >= wanted:
            break
        looked += 1
        books.update.delete(place)
        entry = Entry.unpack(value)
        if entry is None:
            continue
        if not books.owns(entry):
            continue
        if books.update.delete(layout.mark_key(entry.key)) and chances:
            books.line_up(entry)
            continue
        freed += books.drop(entry.key) + len(place) + len(value)
        dropped += 1
    return Swept(looked, dropped, freed)
