"""Writes groups of rows into the store: room first, then the rows, then the marks of rows that were hit.

Cache writer thread; made on the thread that opens the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rowserve.cache.books import Books, Counters, pages_needed, read_about, read_counters
from rowserve.cache.errors import StoreFailed
from rowserve.cache.eviction import Budget, forget_throw_away, make_room
from rowserve.cache.layout import ORDERS, mark_key
from rowserve.cache.record import Kind
from rowserve.cache.stats import FAILING, CacheStats
from rowserve.cache.store import Space, Store
from rowserve.graphs.rows import Buffer

MOST_BEHIND = 2
"""Commits that a reader may lag behind while the pages kept free below the cap suffice."""
READ_BACK = 8  # keys of a group, about


@dataclass(frozen=True, slots=True)
class Limits:
    """`rows` and `bytes` bound the queue; a group is committed at `group_rows` rows or after `group_seconds`.

    Hits are folded in and numbers refreshed every `tick` seconds, dead readers looked for every `check` seconds. After
    a failed write nothing is tried for `pause` seconds. Where a reader pins the pages that a write would need, it is
    tried `patience` times, `group_seconds` apart, before it is dropped. A group that finds no room is preceded by at
    most `sweeps` updates that only evict. Throw-away rows are forgotten `throw_away` seconds after they were last asked
    for.
    """

    rows: int = 8192
    bytes: int = 64 * 2**20
    group_rows: int = 256
    group_seconds: float = 0.02
    tick: float = 0.5
    check: float = 60.0
    pause: float = 1.0
    patience: int = 25
    sweeps: int = 6
    throw_away: float = 10.0


@dataclass(slots=True, eq=False)  # frozen ones take four times as long to make
class Item:
    """One thing to write; a `kind` of None deletes the record of `key` if it is damaged."""

    kind: Kind | None
    key: bytes
    body: Buffer
    tag: bytes


class PagesPinned(StoreFailed):
    """A reader holds on to the pages that the write would need."""


class Commits:
    """One writer's way into a store. `noted` gathers the keys of rows that were hit; the reactor thread adds to it.

    `update_pages` is what one update may touch, `longest` the bytes of the longest row that the cap allows.
    """

    def __init__(self, store: Store, stats: CacheStats, clock: Callable[[], float], limits: Limits) -> None:
        self.noted: set[bytes] = set()
        self.update_pages = 1
        self.longest = 0
        self._store = store
        self._stats = stats
        self._clock = clock
        self._limits = limits
        self._next_check = 0.0
        self._look()

    def write(self, group: Sequence[Item]) -> bool:
        """Whether the group was written; if not, nothing could be evicted for it. Raises StoreFailed."""
        pages = sum(pages_needed(len(item.body)) for item in group)
        size = sum(len(item.body) + 100 for item in group)
        for turn in range(self._limits.sweeps):
            with self._store.update() as update:
                about = read_about(update)
                if about is None:
                    raise StoreFailed("the file does not say what it is")
                books = Books(update, int(self._clock()))
                budget = Budget.of(about.size, update.space().page)
                self._refuse_if_pinned(budget, update.space())
                room = make_room(books, budget, pages, size, chances=turn < self._limits.sweeps - 2)
                if room:
                    for item in group:
                        write_item(books, item)
                    self._fold(books, budget)
                counters = books.finish()
            self._observe(budget, counters)
            if room:
                self._read_back(group)
                return True
        return False

    def _read_back(self, group: Sequence[Item]) -> None:
        """Looks for some of the rows. Damage that nobody has met may hide them: where one is missing, the next start
        looks at all pages. (So it does where another process has cleared the file meanwhile.) Raises StoreFailed."""
        keys = [item.key for item in group if item.kind is not None]
        with self._store.view() as view:
            if any(view.get(key) is None for key in keys[:: len(keys) // READ_BACK or 1]):
                self._store.sound = False

    def forget_some(self) -> bool:
        """Forget a group's worth of throw-away rows, in one update; whether there may be more. Raises StoreFailed."""
        with self._store.view() as view:
            if not view.scan(*ORDERS[0], 1, values=False):
                return False
        with self._store.update() as update:
            books = Books(update, int(self._clock()))
            more = forget_throw_away(books, self._limits.group_rows)
            books.finish()
        self._look()
        return more

    def _refuse_if_pinned(self, budget: Budget, space: Space) -> None:
        if space.file + 3 * budget.update <= budget.cap or self._store.behind() <= MOST_BEHIND:
            return
        self._store.check_readers()
        if self._store.behind() > MOST_BEHIND:
            raise PagesPinned("a stopped reader pins the pages that are needed")

    def tick(self, now: float, fold: bool = True) -> None:
        """Numbers, marks and dead readers, when there may be nothing to write."""
        try:
            if not 0 <= self._next_check - now <= self._limits.check:
                self._next_check = now + self._limits.check
                self._store.check_readers()
            budget = self._look()
            if budget is None or not fold or not self.noted:
                return
            self.noted.difference_update(self._marked())
            if self.noted and budget.pressing(self._store.space()):
                with self._store.update() as update:
                    self._fold(Books(update, int(now)), budget)
        except StoreFailed as error:
            self._stats.errors += 1
            self._stats.become(FAILING, str(error))
        except Exception:  # noqa: BLE001  a damaged file may show in any way, and the thread must live
            self._stats.errors += 1

    def _marked(self) -> list[bytes]:
        """Those noted that have their mark already: no write for them."""
        with self._store.view() as view:
            return [key for key in self.noted.copy() if view.get(mark_key(key)) is not None]

    def _fold(self, books: Books, budget: Budget) -> None:
        """Mark rows that were hit, while it matters: when the hand moves, or soon will."""
        # The reactor thread may add between copy and clear: a hit unnoted now and then does no harm.
        noted = self.noted.copy()
        self.noted.clear()
        if not noted or not budget.pressing(books.update.space()):
            return
        room = budget.update // 2
        for key in noted:
            room -= books.mark(key)
            if not room:
                break

    def _look(self) -> Budget | None:
        """Refresh the numbers that other processes change too; None where the file does not say what it is."""
        with self._store.view() as view:
            about, counters = read_about(view), read_counters(view)
        if about is None:
            return None
        budget = Budget.of(about.size, self._store.space().page)
        self._observe(budget, counters)
        return budget

    def _observe(self, budget: Budget, counters: Counters) -> None:
        space, stats = self._store.space(), self._stats
        stats.rows, stats.aliases, stats.evicted = counters.rows, counters.aliases, counters.evicted
        stats.bytes, stats.file_bytes = space.used * space.page, space.file * space.page
        stats.size = budget.cap * space.page
        self.update_pages, self.longest = budget.update, budget.longest * space.page


def write_item(books: Books, item: Item) -> None:
    """Put one item into the update."""
    if item.kind is None:
        books.drop_if_damaged(item.key)
    elif item.kind is Kind.DOCUMENT:
        books.remember(item.key, item.body)
    else:
        books.put(item.kind, item.key, item.body, item.tag)
