"""Write-behind: hands new rows from the reactor thread to the one cache writer thread, which commits them in groups.

`keep`, `forget`, `sync` and their like are called on the reactor thread and never block; `run` is the writer thread's
whole life, `step` one turn of it. What is queued or being written is in `pending`, and counts as a hit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from rowserve.cache import stats as states
from rowserve.cache.books import pages_needed
from rowserve.cache.commits import Commits, Item, Limits, PagesPinned
from rowserve.cache.errors import RowsNotKept, StoreFailed
from rowserve.cache.layout import THROW_AWAY_TAG
from rowserve.cache.record import Kind
from rowserve.cache.stats import CacheStats
from rowserve.cache.store import Store
from rowserve.graphs.rows import Buffer

RECORDS = (Kind.ROW, Kind.ALIAS)
Call = Callable[[], None]
Done = Callable[[Exception | None], None]


class Writer:
    """The queue before the store and the thread behind it.

    `clock` is wall time in seconds; `call_in_reactor` runs a callable on the reactor thread. `ready` says on the
    writer thread whether the store may be used in this turn.
    """

    def __init__(
        self,
        store: Store,
        stats: CacheStats,
        *,
        clock: Callable[[], float],
        call_in_reactor: Callable[[Call], None],
        limits: Limits | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.store = store
        self.stats = stats
        self.limits = limits or Limits()
        self.pending: dict[bytes, Buffer] = {}
        self._commits = Commits(store, stats, clock, self.limits)
        self.noted = self._commits.noted
        self.finished = threading.Event()
        self._clock = clock
        self._ready = ready
        self._call_in_reactor = call_in_reactor
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque()
        self._barriers: deque[tuple[int, Done]] = deque()
        self._waiting: list[Call] = []
        self._put = 0
        self._got = 0
        self._lost = 0
        self._lost_why = ""
        self._closing = False
        self._held = 0
        self._paused_until = 0.0
        self._next_tick = 0.0
        self._forget_at: float | None = 0.0  # at once, if a process that was killed has left any
        self._forgetting = False
        self._stop_by = 0.0

    # reactor thread

    def keep(self, kind: Kind, keys: Iterable[bytes], bodies: Iterable[Buffer], tag: bytes) -> int:
        """Queue records; how many were taken. What finds no room is dropped and counted."""
        return self._offer([Item(kind, key, body, tag) for key, body in zip(keys, bodies, strict=True)])

    def _offer(self, items: Sequence[Item]) -> int:
        stats, taken, longest = self.stats, 0, self._commits.longest
        with self._changed:
            waiting = len(self._queue)
            for item in items:
                if self._closing or not self.has_room() or len(item.body) > longest:
                    continue
                stats.queued_rows += 1
                stats.queued_bytes += len(item.body)
                self._queue.append(item)
                if item.kind is not None:
                    self.pending[item.key] = item.body
                taken += 1
            self._put += taken
            if taken < len(items):
                stats.dropped += len(items) - taken
                self._lost += len(items) - taken
                self._lost_why = self._lost_why or "no room for them"
        if taken and (not waiting or waiting < self.limits.group_rows <= waiting + taken):
            # Not at once: the thread would ask for the interpreter while these rows' answers are being handed out.
            self._call_in_reactor(self._wake)
        return taken

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def forget(self, key: bytes) -> None:
        """Delete the record of `key` if it is still damaged when the turn comes."""
        self._offer([Item(None, key, b"", b"")])

    def put_off_forgetting(self) -> None:
        """Throw-away rows are asked for, or (writer thread) written: they are forgotten some seconds later."""
        with self._changed:
            self._forget_at = self._clock() + self.limits.throw_away

    def has_room(self) -> bool:
        """Whether the queue takes another row."""
        return self.stats.queued_rows < self.limits.rows and self.stats.queued_bytes < self.limits.bytes

    def room_for(self, bodies: Iterable[Buffer]) -> int:
        """How many of these, from the first on, the queue takes now."""
        rows, nbytes = self.stats.queued_rows, self.stats.queued_bytes
        number = 0
        for body in bodies:
            if rows + number >= self.limits.rows or nbytes >= self.limits.bytes:
                break
            nbytes += len(body)
            number += 1
        return number

    def when_room(self, call: Call) -> None:
        """Call back on the reactor thread when the queue is half empty."""
        with self._changed:
            if self._half_empty() or self._closing:
                self._call_in_reactor(call)
            else:
                self._waiting.append(call)

    def _half_empty(self) -> bool:
        stats, limits = self.stats, self.limits
        return stats.queued_rows * 2 <= limits.rows and stats.queued_bytes * 2 <= limits.bytes

    def sync(self, done: Done) -> None:
        """Call back when all that was offered so far is committed and on the disk, or with what kept it from there."""
        with self._changed:
            self._barriers.append((self._put, done))
            self._changed.notify()

    def close(self, timeout: float) -> bool:
        """Take nothing more, write what is queued; whether the thread ended within `timeout` seconds. Blocks."""
        with self._changed:
            self._closing = True
            self._stop_by = self._clock() + timeout / 2
            self._changed.notify()
        return self.finished.wait(timeout)

    # writer thread

    def run(self) -> None:
        """The writer thread: groups until closed and empty."""
        try:
            while self._wait():
                self.step()
        finally:
            self.finished.set()

    def _wait(self) -> bool:
        limits = self.limits
        with self._changed:
            if not self._busy() and not self._closing:
                self._changed.wait(limits.tick)
            elif self._held:
                self._changed.wait(limits.group_seconds)
            if 0 < len(self._queue) < limits.group_rows and not self._barriers and not self._closing:
                self._changed.wait(limits.group_seconds)
            return not self._closing or self._busy() or self._forget_at is not None

    def _busy(self) -> bool:
        return bool(self._queue or self._barriers or self._forgetting)

    def step(self) -> None:
        """One turn: a group of rows, marks and numbers when their time has come, the barriers that are passed."""
        group = self._group()
        if not self._ready():
            self._skip(group)
            return
        if group:
            self._write(group)
            if any(item.tag == THROW_AWAY_TAG for item in group):
                self.put_off_forgetting()  # however long ago they were asked for
        now = self._clock()
        if now >= self._next_tick or now < self._next_tick - 10 * self.limits.tick:
            self._next_tick = now + self.limits.tick
            self._commits.tick(now, fold=not self._held)
        self._forgetting = self._forget(now)
        self._pass_barriers()
        self._call_waiting()

    def _skip(self, group: Sequence[Item]) -> None:
        """A turn without a file to write to."""
        self._done(group, failed=self.stats.why or "there is no file")
        with self._changed:
            self._forgetting = False
            if self._closing:
                self._forget_at = None
        self._pass_barriers()
        self._call_waiting()

    def _forget(self, now: float) -> bool:
        """Some of the throw-away rows, when their time has come; whether to go on at once."""
        at = self._forget_at
        if at is None or (not self._closing and 0 <= at - now <= self.limits.throw_away):
            return False
        after: float | None = None
        try:
            if (not self._closing or now < self._stop_by) and self._commits.forget_some():
                return True
        except Exception:  # noqa: BLE001  a damaged file may show in any way; tick and writes say so
            after = None if self._closing else now + min(self.limits.pause, self.limits.throw_away)
        with self._changed:
            if self._forget_at == at:  # else somebody has asked for such rows meanwhile
                self._forget_at = after
        return False

    def _group(self) -> list[Item]:
        """The next items, as many as one update may hold; they stay queued until they are written."""
        with self._changed:
            group: list[Item] = []
            pages = 0
            for item in self._queue:
                pages += pages_needed(len(item.body))
                if group and (pages * 2 > self._commits.update_pages or len(group) == self.limits.group_rows):
                    break
                group.append(item)
            return group

    def _write(self, group: Sequence[Item]) -> None:
        now = self._clock()
        if now < self._paused_until <= now + self.limits.pause:
            self._done(group, failed=self.stats.why)
            return
        try:
            kept = self._commits.write(group)
        except PagesPinned as error:
            self._held += 1
            if self._held > self.limits.patience:
                self._done(group, dropped=str(error))
        except Exception as error:  # noqa: BLE001  a damaged file may show in any way, and the thread must live
            why = str(error) if isinstance(error, StoreFailed) else repr(error)
            self._paused_until = now + self.limits.pause
            self.stats.become(states.FAILING, why)
            self._done(group, failed=why)
        else:
            self._held = 0
            self.stats.become(states.OK)
            self._done(group, dropped="" if kept else "nothing could be evicted")

    def _done(self, group: Sequence[Item], dropped: str = "", failed: str = "") -> None:
        """The group leaves the queue, written or not."""
        stats, count = self.stats, sum(item.kind in RECORDS for item in group)
        with self._changed:
            for item in group:
                self._queue.popleft()
                if self.pending.get(item.key) is item.body:
                    del self.pending[item.key]
            self._got += len(group)
            stats.queued_rows -= len(group)
            stats.queued_bytes -= sum(len(item.body) for item in group)
            if dropped or failed:
                self._lost += count
                self._lost_why = self._lost_why or dropped or failed
        if failed:
            stats.failed += count
        elif dropped:
            stats.dropped += count
        else:
            stats.committed += count
            stats.commits += 1

    def _pass_barriers(self) -> None:
        with self._changed:
            passed = []
            while self._barriers and self._barriers[0][0] <= self._got:
                passed.append(self._barriers.popleft()[1])
            if not passed:
                return
            lost, why = self._lost, self._lost_why
            self._lost, self._lost_why = 0, ""
        error: Exception | None = RowsNotKept(lost, why) if lost else None
        try:
            self.store.sync()
        except StoreFailed as failure:
            error = error or failure
        for done in passed:
            self._call_in_reactor(lambda done=done: done(error))  # type: ignore[misc]

    def _call_waiting(self) -> None:
        with self._changed:
            if not self._waiting or not self._half_empty():
                return
            calls, self._waiting = self._waiting, []
        for call in calls:
            self._call_in_reactor(call)
