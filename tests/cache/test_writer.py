"""The queue and its thread, moved by hand over a memory store."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rowserve.cache import layout
from rowserve.cache.commits import Limits
from rowserve.cache.errors import RowsNotKept, StoreFailed, StoreFull
from rowserve.cache.layout import PREFIX
from rowserve.cache.memory_store import MemoryStore
from rowserve.cache.record import Kind
from rowserve.cache.store import Space
from tests.cache.stepping import START, SteppedCache, key, memory_store


class Faulty(MemoryStore):
    """Fails on demand, before an update or when it is committed."""

    def __init__(self, pages: int = 4096) -> None:
        super().__init__(pages)
        self.before: Exception | None = None
        self.commit: Exception | None = None
        self.reads: Exception | None = None
        self.syncing: Exception | None = None
        self.updates = 0
        self.checks = 0

    def update(self):
        from contextlib import contextmanager

        @contextmanager
        def faulty():
            self.updates += 1
            if self.before:
                raise self.before
            with MemoryStore.update(self) as update:
                yield update
                if self.commit:
                    raise self.commit

        return faulty()

    def view(self):
        if self.reads:
            raise self.reads
        return super().view()

    def read(self):
        if self.reads:
            raise self.reads
        return super().read()

    def get_many(self, keys):
        if self.reads:
            raise self.reads
        return super().get_many(keys)

    def sync(self):
        if self.syncing:
            raise self.syncing
        super().sync()

    def check_readers(self):
        self.checks += 1
        return super().check_readers()


def faulty() -> Faulty:
    store = Faulty()
    store._state = memory_store()._state
    return store


@pytest.fixture
def store():
    return faulty()


@pytest.fixture
def stepped(store):
    return SteppedCache(store=store, limits=Limits(rows=10, bytes=1000, group_rows=4, pause=1.0, patience=2))


def test_nothing_touches_the_store_before_the_writers_turn(stepped, store):
    assert stepped.cache.keep([key(1)], [b"one"]) == 1
    assert store.updates == 0
    assert store.get_many([key(1)]) == [None]
    assert stepped.cache.lookup([key(1)]) == [b"one"]
    stepped.step()
    assert store.updates == 1
    assert stepped.cache.lookup([key(1)]) == [b"one"]
    assert not stepped.writer.pending


def test_a_row_being_written_is_a_hit_all_the_while(stepped, store):
    stepped.cache.keep([key(1)], [b"one"])
    seen = []

    def watch(self, key_, value):
        seen.append(stepped.cache.lookup([key(1)])[0])

    put = type(store._state).put
    try:
        type(store._state).put = lambda self, k, v: (watch(self, k, v), put(self, k, v))[1]
        stepped.step()
    finally:
        type(store._state).put = put
    assert seen
    assert set(seen) == {b"one"}


def test_groups_are_bounded_in_rows(stepped):
    stepped.cache.keep([key(i) for i in range(9)], [b"x"] * 9)
    sizes = []
    while stepped.stats.queued_rows:
        before = stepped.stats.queued_rows
        stepped.step()
        sizes.append(before - stepped.stats.queued_rows)
    assert sizes == [4, 4, 1]
    assert stepped.stats.commits == 3
    assert stepped.stats.committed == stepped.stats.rows == 9


def test_a_full_queue_drops_the_write_and_counts_it(stepped):
    assert stepped.cache.room_for([b"x"] * 12) == 10
    assert stepped.cache.keep([key(i) for i in range(12)], [b"x"] * 12) == 10
    assert stepped.stats.dropped == 2
    assert not stepped.cache.room_for([b"x"])
    assert stepped.cache.lookup([key(9), key(10)]) == [b"x", None]
    stepped.settle()
    assert stepped.cache.room_for([b"x"]) == 1
    assert stepped.stats.committed == 10


def test_the_queue_is_bounded_in_bytes(stepped):
    assert stepped.cache.room_for([bytes(600)] * 3) == 2
    assert stepped.cache.keep([key(1), key(2), key(3)], [bytes(600)] * 3) == 2
    assert not stepped.cache.room_for([b"x"])
    assert stepped.stats.queued_bytes == 1200
    stepped.settle()
    assert stepped.stats.queued_bytes == 0


def test_room_is_told_when_the_queue_is_half_empty(stepped):
    told = []
    stepped.cache.when_room(lambda: told.append("at once"))
    stepped.react()
    assert told == ["at once"]
    stepped.cache.keep([key(i) for i in range(10)], [b"x"] * 10)
    stepped.cache.when_room(lambda: told.append("later"))
    stepped.react()
    stepped.step()
    stepped.react()
    assert told == ["at once"]
    stepped.step()
    assert told == ["at once"]  # on the reactor thread, not here
    stepped.react()
    assert told == ["at once", "later"]


def test_a_sync_comes_after_all_that_was_kept_before_it(stepped, store):
    done: list[Any] = []
    stepped.cache.keep([key(i) for i in range(6)], [b"x"] * 6)
    stepped.cache.sync(done.append)
    stepped.cache.keep([key(7)], [b"x"])
    stepped.step()
    stepped.react()
    assert (done, store.syncs) == ([], 0)
    stepped.step()
    stepped.react()
    assert (done, store.syncs) == ([None], 1)
    assert store.get_many([key(5)]) != [None]


def test_a_sync_of_nothing_is_a_sync(stepped, store):
    done: list[Any] = []
    stepped.cache.sync(done.append)
    stepped.step()
    stepped.react()
    assert (done, store.syncs) == ([None], 1)


def test_a_sync_says_what_was_lost_and_only_once(stepped):
    done: list[Any] = []
    stepped.cache.keep([key(i) for i in range(11)], [b"x"] * 11)
    stepped.cache.sync(done.append)
    stepped.settle()
    assert isinstance(done[0], RowsNotKept)
    assert done[0].count == 1
    stepped.cache.sync(done.append)
    stepped.step()
    stepped.react()
    assert done[1] is None


def test_a_sync_that_fails_says_so(stepped, store):
    store.syncing = StoreFailed("disk gone")
    done: list[Any] = []
    stepped.cache.sync(done.append)
    stepped.step()
    stepped.react()
    assert done == [store.syncing]


@pytest.mark.parametrize("error", [StoreFull("the map is full"), StoreFailed("No space left on device")])
@pytest.mark.parametrize("where", ["before", "commit"])
def test_a_failed_write_is_counted_said_once_and_got_over(stepped, store, where, error):
    setattr(store, where, error)
    done: list[Any] = []
    stepped.cache.keep([key(1), key(2)], [b"x"] * 2)
    stepped.cache.sync(done.append)
    stepped.step()
    stepped.react()
    assert stepped.stats.failed == 2
    assert stepped.stats.committed == 0
    assert stepped.stats.state == "failing"
    assert str(error) in stepped.stats.described
    assert done[0].count == 2
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.now += 2
    stepped.cache.keep([key(3)], [b"x"])
    stepped.step()
    assert len(stepped.lines) == 1
    setattr(store, where, None)
    stepped.now += 2
    stepped.cache.keep([key(4)], [b"x"])
    stepped.step()
    assert stepped.stats.state == "ok"
    assert stepped.lines == [f"cache: failing: {error}", "cache: works again"]
    assert stepped.cache.lookup([key(4)]) == [b"x"]


def test_after_a_failure_the_disk_has_a_pause(stepped, store):
    store.before = StoreFailed("no")
    stepped.cache.keep([key(1)], [b"x"])
    stepped.step()
    tried = store.updates
    stepped.cache.keep([key(2)], [b"x"])
    stepped.step()
    assert store.updates == tried
    assert stepped.stats.failed == 2
    stepped.now -= 1000  # a clock put back must not make the pause last
    stepped.cache.keep([key(3)], [b"x"])
    stepped.step()
    assert store.updates == tried + 1


def test_a_file_that_says_nothing_of_itself_is_not_written(stepped, store):
    with MemoryStore.update(store) as update:
        update.delete(layout.document_key(b"\0about"))
    stepped.cache.keep([key(1)], [b"x"])
    stepped.step()
    assert stepped.stats.described == "failing: the file does not say what it is"
    assert store.get_many([key(1)]) == [None]


def test_a_stopped_reader_holds_up_then_drops(store, monkeypatch):
    stepped = SteppedCache(store=store, limits=Limits(patience=2, group_rows=4))
    high = Space(10, 1020, 4096)
    monkeypatch.setattr(type(store._state), "space", lambda self: high)
    store.lag = 3
    stepped.cache.keep([key(1)], [b"x"])
    for _ in range(2):
        stepped.step()
        assert stepped.stats.queued_rows == 1
        assert stepped.cache.lookup([key(1)]) == [b"x"]
    stepped.step()
    assert (stepped.stats.queued_rows, stepped.stats.dropped) == (0, 1)
    stepped.cache.keep([key(2)], [b"x"])
    stepped.step()
    assert stepped.stats.dropped == 2  # no second wait for the same reader
    assert store.checks
    store.lag = 0
    stepped.cache.keep([key(3)], [b"x"])
    stepped.step()
    assert stepped.stats.committed == 1
    assert stepped.cache.lookup([key(1), key(2), key(3)]) == [None, None, b"x"]


def test_a_dead_reader_is_found_before_anything_is_held_up(store, monkeypatch):
    stepped = SteppedCache(store=store)
    monkeypatch.setattr(type(store._state), "space", lambda self: Space(10, 1020, 4096))
    store.lag = 3

    def check_readers() -> int:
        store.lag = 0
        return 1

    monkeypatch.setattr(store, "check_readers", check_readers)
    stepped.cache.keep([key(1)], [b"x"])
    stepped.step()
    assert stepped.stats.committed == 1


def test_where_nothing_can_be_evicted_rows_are_dropped(store, monkeypatch):
    stepped = SteppedCache(store=store)
    monkeypatch.setattr(type(store._state), "space", lambda self: Space(1024, 900, 4096))
    stepped.cache.keep([key(1)], [b"x"])
    stepped.step()
    assert (stepped.stats.dropped, stepped.stats.committed, stepped.stats.state) == (1, 0, "ok")


def test_a_row_too_long_for_the_cap_is_not_taken(store):
    stepped = SteppedCache(store=store)
    longest = stepped.writer._commits.longest
    assert stepped.cache.keep([key(1), key(2)], [bytes(longest + 1), bytes(longest)]) == 1
    stepped.settle()
    assert stepped.cache.lookup([key(2)]) == [bytes(longest)]


def test_a_newer_answer_replaces_the_one_being_written(stepped):
    stepped.cache.keep([key(1)], [b"old"])
    stepped.cache.keep([key(1)], [b"new"])
    assert stepped.cache.lookup([key(1)]) == [b"new"]
    stepped.settle()
    assert stepped.cache.lookup([key(1)]) == [b"new"]
    assert stepped.stats.rows == 1
    assert not stepped.writer.pending


def test_a_row_kept_again_while_its_group_is_written_stays_pending(store, monkeypatch):
    stepped = SteppedCache(store=store)
    stepped.cache.keep([key(1)], [b"old"])
    write = stepped.writer._commits.write

    def busy(group):
        stepped.cache.keep([key(1)], [b"new"])
        return write(group)

    monkeypatch.setattr(stepped.writer._commits, "write", busy)
    stepped.step()
    assert stepped.cache.lookup([key(1)]) == [b"new"]
    monkeypatch.undo()
    stepped.settle()
    assert stepped.cache.lookup([key(1)]) == [b"new"]


def test_dead_readers_are_looked_for_each_minute(stepped, store):
    stepped.step()
    assert store.checks == 1
    stepped.now += 30
    stepped.step()
    assert store.checks == 1
    stepped.now += 31
    stepped.step()
    assert store.checks == 2


def test_numbers_that_others_change_are_seen(stepped, store):
    other = SteppedCache(store=store)
    other.cache.keep([key(1)], [b"x"])
    other.settle()
    assert stepped.stats.rows == 0
    stepped.now += 1
    stepped.step()
    assert stepped.stats.rows == 1


def test_a_tick_that_fails_is_counted_and_no_more(stepped, store):
    store.reads = StoreFailed("no")
    stepped.now += 1
    stepped.step()
    assert stepped.stats.errors == 1
    store.reads = None
    with MemoryStore.update(store) as update:
        update.delete(layout.document_key(b"\0about"))
    stepped.now += 1
    stepped.step()
    assert stepped.stats.errors == 1


def test_closing_writes_what_is_queued(store):
    stepped = SteppedCache(store=store, limits=Limits(group_rows=4))
    stepped.cache.keep([key(i) for i in range(9)], [b"x"] * 9)
    done: list[Any] = []
    stepped.cache.sync(done.append)
    stepped.close()
    stepped.react()
    assert done == [None]
    assert store.closed
    store.closed = False
    assert store.get_many([key(8)]) != [None]


def test_after_closing_nothing_is_taken(store):
    stepped = SteppedCache(store=store)
    writer = stepped.writer
    stepped.close()
    assert writer.keep(Kind.ROW, [key(1)], [b"x"], b"tag!") == 0
    assert stepped.cache.keep([key(1)], [b"x"]) == 0
    called = []
    writer.when_room(lambda: called.append(1))
    stepped.react()
    assert called == [1]
    stepped.close()


def test_a_thread_that_does_not_end_is_left_alone(store):
    stepped = SteppedCache(store=store)
    stepped.cache.keep([key(1)], [b"x"])
    stepped.cache.close(0)
    assert not store.closed
    assert stepped.stats.described == "off: stopped with 1 rows unwritten"


def test_the_thread_wakes_for_rows_groups_and_held_ones(store, monkeypatch):
    """The real thread, with all its waits; no time is asserted."""
    from rowserve.cache.row_cache import RowCache, start_daemon

    first = threading.Event()
    cache = RowCache(
        store,
        start_thread=start_daemon,
        limits=Limits(tick=0.001, group_seconds=0.001, patience=2, group_rows=4),
    )
    cache.keep([key(1)], [b"x"])
    cache.sync(lambda error: first.set())
    assert first.wait(60)
    dropped = threading.Event()
    store.lag = 9
    monkeypatch.setattr(type(store._state), "space", lambda self: Space(10, 1020, 4096))
    cache.keep([key(2)], [b"x"])
    cache.sync(lambda error: dropped.set())
    assert dropped.wait(60)
    assert cache.stats.dropped == 1
    store.lag = 0
    for number in range(20):
        cache.keep([key(number)], [b"x"])
    cache.close(60)
    assert cache.stats.state == "off"
    assert cache.stats.committed >= 20


@pytest.mark.parametrize("damage", [b"z" + b"\xff" * 8, b"z" + b"\xff" * 30, b"p" + b"\xff" * 9])
def test_the_thread_outlives_a_file_whose_numbers_are_damaged(stepped, store, damage):
    with MemoryStore.update(store) as update:
        update.put(PREFIX + damage, b"junk")
    done: list[Any] = []
    stepped.cache.keep([key(1)], [bytes(900)])
    stepped.cache.sync(done.append)
    stepped.step()
    stepped.react()
    assert stepped.stats.state == "failing" or stepped.stats.committed
    assert len(done) == 1
    assert stepped.cache.lookup([key(2)]) == [None]


class WriterMachine(RuleBasedStateMachine):
    """Whatever the order of keeping, failing and writing: what is taken is a hit until it is lost and counted."""

    def __init__(self) -> None:
        super().__init__()
        self.store = faulty()
        self.stepped = SteppedCache(store=self.store, limits=Limits(rows=6, bytes=10_000, group_rows=3, pause=0))
        self.taken: dict[bytes, bytes] = {}
        self.queued: list[bytes] = []
        self.offered = 0
        self.syncs: list[object] = []

    @rule(number=st.integers(0, 9), size=st.sampled_from([0, 10, 3000]))
    def keep(self, number: int, size: int) -> None:
        body = bytes([number]) * size
        self.offered += 1
        if self.stepped.cache.keep([key(number)], [body]):
            self.taken[key(number)] = body
            self.queued.append(key(number))

    @rule()
    def step(self) -> None:
        before = self.stepped.stats.queued_rows
        self.stepped.now += 1
        self.stepped.step()
        done = before - self.stepped.stats.queued_rows
        gone, self.queued = self.queued[:done], self.queued[done:]
        if self.store.commit:
            for each in gone:
                if each not in self.queued:
                    self.taken.pop(each, None)

    @rule()
    def sync(self) -> None:
        self.stepped.cache.sync(self.syncs.append)

    @precondition(lambda self: not self.queued)
    @rule(fails=st.booleans())
    def fail(self, fails: bool) -> None:
        self.store.commit = StoreFailed("no") if fails else None
        self.taken.clear()
        with MemoryStore.update(self.store) as update:
            for number in range(10):
                update.delete(key(number))

    @invariant()
    def every_row_is_somewhere(self) -> None:
        stats = self.stepped.stats
        assert self.offered == stats.committed + stats.dropped + stats.failed + stats.queued_rows
        assert stats.queued_rows == len(self.queued)
        assert set(self.stepped.writer.pending) == set(self.queued)

    @invariant()
    def what_was_taken_is_a_hit(self) -> None:
        keys = list(self.taken)
        assert self.stepped.cache.lookup(keys) == [self.taken[each] for each in keys]


TestWriterMachine = WriterMachine.TestCase
TestWriterMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_clock_is_whole_seconds_in_records(stepped, store):
    stepped.now = START + 0.9
    stepped.cache.keep([key(1)], [b"x"])
    stepped.step()
    (value,) = store.get_many([key(1)])
    assert int.from_bytes(value[12:16], "big") == int(START)
