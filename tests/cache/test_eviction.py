"""The order, the second chance and the cap."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.cache import layout
from rowserve.cache.books import Books
from rowserve.cache.eviction import LEAST_SIZE, Budget, sweep
from rowserve.cache.record import Kind, pieces_of
from rowserve.cache.store import Space
from tests.cache.stepping import MIB, START, SteppedCache, child, heard, key, memory_store

BLOB = bytes(random.Random(0).randbytes(300_000))
MIXED = [100, 100, 4000, 4000, 4000, 20_000, 50_000, 300_000]
SIZES = {"100 B": [100], "4 kB": [4000], "mixed to 300 kB": MIXED}
# Caps, and how much is poured in: ten times the cap in the file, where a row of 100 B takes about 400.
CAPS = {"100 B": (4 * MIB, 10 * MIB), "4 kB": (8 * MIB, 80 * MIB), "mixed to 300 kB": (32 * MIB, 320 * MIB)}


@pytest.fixture
def quick(tmp_path):
    """A folder in memory where there is one: these tests commit thousands of times."""
    import shutil
    import tempfile

    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def filled(rows: int):
    store = memory_store()
    with store.update() as update:
        books = Books(update, int(START))
        for number in range(rows):
            books.put(Kind.ROW, key(number), b"body", b"tag!")
        books.finish()
    return store


def there(store, rows: int) -> list[int]:
    return [number for number, value in enumerate(store.get_many([key(i) for i in range(rows)])) if value]


def swept(store, *marked: int, looks: int = 100, wanted: int = 1, chances: bool = True, times: int = 1) -> None:
    with store.update() as update:
        books = Books(update, int(START))
        for number in marked:
            books.mark(key(number))
        for _ in range(times):
            sweep(books, looks, wanted, chances)
        books.finish()


def test_the_oldest_goes_first():
    store = filled(4)
    swept(store, times=2)
    assert there(store, 4) == [2, 3]


def test_a_hit_row_gets_a_second_chance_and_not_a_third():
    store = filled(4)
    swept(store, 0, 1)
    assert there(store, 4) == [0, 1, 3]
    swept(store)
    assert there(store, 4) == [0, 1]
    swept(store)
    assert there(store, 4) == [1]


def test_without_chances_marked_rows_go_too():
    store = filled(3)
    swept(store, 0, 1, 2, chances=False)
    assert there(store, 3) == [1, 2]


def test_a_sweep_looks_at_so_many_and_no_more():
    store = filled(9)
    swept(store, *range(9), looks=4, wanted=10**6)
    assert there(store, 9) == list(range(9))
    swept(store, looks=3, wanted=10**6)
    assert there(store, 9) == list(range(9))
    swept(store, looks=5, wanted=10**6)
    assert there(store, 9) == [3, 4, 5, 6, 7, 8]


def test_a_mark_is_made_once_and_for_rows_that_stand():
    store = filled(2)
    with store.update() as update:
        books = Books(update, int(START))
        assert books.mark(key(1))
        assert not books.mark(key(1))
        assert not books.mark(key(7))
        assert len(update.scan(layout.MARKS, layout.end(layout.MARKS), 9)) == 1


def test_entries_of_rows_that_are_gone_or_made_anew_drop_nothing():
    store = filled(2)
    with store.update() as update:
        books = Books(update, int(START) + 9)
        books.drop(key(0))
        books.put(Kind.ROW, key(0), b"anew", b"tag!")
        books.drop(key(1))
        books.finish()
        update.put(layout.order_key(50), b"junk")
    with store.update() as update:
        books = Books(update, int(START) + 9)
        result = sweep(books, 2, 10**6)
        assert (result.looked, result.dropped) == (2, 0)
        assert update.get(key(0)) is not None
        sweep(books, 9, 10**6)
        assert update.get(key(0)) is None
        assert update.scan(layout.ORDER, layout.ORDER_END, 9) == []
        assert books.drop(key(0)) == 0


def test_counters_follow():
    store = filled(5)
    with store.update() as update:
        books = Books(update, int(START))
        books.put(Kind.ALIAS, key(9), key(1), b"tag!")
        sweep(books, 3, 10**6)
        counters = books.finish()
    assert (counters.rows, counters.aliases, counters.evicted) == (2, 1, 3)
    with store.update() as update:
        assert Books(update, 0).counters == counters
        update.put(layout.document_key(b"\0counters"), b"junk")
        assert Books(update, 0).counters.rows == 0


@given(st.lists(st.tuples(st.sampled_from(["put", "mark", "sweep", "drop"]), st.integers(0, 7)), max_size=40))
@settings(max_examples=80, deadline=None)
def test_every_record_has_one_place_in_the_order_and_every_place_at_most_one_record(steps):
    store = memory_store()
    now = int(START)
    with store.update() as update:
        for what, number in steps:
            now += 1
            books = Books(update, now)
            if what == "put":
                books.put(Kind.ROW, key(number), bytes(number * 3000), b"tag!")
            elif what == "mark":
                books.mark(key(number))
            elif what == "drop":
                books.drop(key(number))
            else:
                sweep(books, number + 1, 1)
            books.finish()
            rows = {each for each in map(key, range(8)) if update.get(each) is not None}
            order = update.scan(layout.ORDER, layout.ORDER_END, 99)
            owned = [e.key for e in (layout.Entry.unpack(value) for _, value in order) if e and books.owns(e)]
            assert sorted(owned) == sorted(rows)
            assert books.counters.rows == len(rows)
            pieces = len(update.scan(layout.PIECES, layout.end(layout.PIECES), 999))
            assert pieces == sum(pieces_of(update.get(each) or b"")[1] for each in rows)


@given(st.integers(LEAST_SIZE, 2**42))
def test_a_budget_leaves_room_below_the_cap(size):
    budget = Budget.of(size)
    assert 0 < budget.soft < budget.hard < budget.cap <= size // 4096
    assert budget.cap - budget.soft >= 16 * budget.update
    assert not budget.pressing(Space(budget.soft // 2, 0, 0))
    assert budget.pressing(Space(budget.soft, 0, 0))


def pour(stepped: SteppedCache, folder: Path, sizes: list[int], total: int, hot: list[bytes]) -> float:
    """Pours `total` bytes of rows; the file's largest size. The hot rows are asked for every fifty rows."""
    rng = random.Random(1)
    largest, poured, number = 0, 0, 1000
    while poured < total:
        for _ in range(50):
            size = rng.choice(sizes)
            poured, number = poured + size, number + 1
            assert stepped.cache.keep([key(number)], [BLOB[:size]])
        assert stepped.cache.lookup(hot) == [BLOB[:4000]] * len(hot)
        while stepped.stats.queued_rows:
            stepped.now += 0.02
            stepped.step()
            if sizes is MIXED:
                stepped.cache.lookup(hot)
        largest = max(largest, (folder / "rows" / "data.mdb").stat().st_size)
    return largest


@pytest.mark.parametrize("mix", SIZES)
def test_ten_times_the_cap_stays_within_it_and_hot_rows_stay(mix, quick):
    size, total = CAPS[mix]
    stepped = SteppedCache(quick, size)
    hot = [key(i) for i in range(20)]
    stepped.cache.keep(hot, [BLOB[:4000]] * len(hot))
    stepped.settle()
    largest = pour(stepped, quick, SIZES[mix], total, hot)
    stats = stepped.stats
    assert largest <= size
    assert stats.bytes > size * 2 // 3  # and it is used
    assert stats.dropped == stats.failed == 0
    assert stats.evicted > stats.rows
    stepped.close()


POUR = """
import json, random, sys, threading
from pathlib import Path
from rowserve.cache.opening import open_cache
from tests.cache.stepping import key
size, sizes, total, first = int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
room = threading.Event()
cache = open_cache(Path(sys.argv[1]))
blob, rng, poured, number = random.Random(0).randbytes(300_000), random.Random(2), 0, first
while poured < total:
    size = rng.choice(sizes)
    if not cache.room_for([b""]):
        room.clear()
        cache.when_room(room.set)
        room.wait()
    assert cache.keep([key(number)], [blob[:size]])
    poured, number = poured + size, number + 1
done = threading.Event()
cache.sync(lambda error: (print(error, flush=True), done.set()))
done.wait()
cache.close(60)
"""


@pytest.mark.parametrize("mix", SIZES)
def test_another_process_pours_while_this_ones_hot_rows_stay(mix, quick, monkeypatch):
    size, total = CAPS[mix]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    stepped = SteppedCache(quick, size)
    hot = [key(i) for i in range(20)]
    stepped.cache.keep(hot, [BLOB[:4000]] * len(hot))
    stepped.settle()
    asked = hits = largest = 0
    with child(POUR, quick, size, SIZES[mix], total, 10**6) as pouring:
        while pouring.poll() is None:
            found = stepped.cache.lookup(hot)
            asked, hits = asked + len(hot), hits + sum(each is not None for each in found)
            missing = [each for each, value in zip(hot, found, strict=True) if value is None]
            stepped.cache.keep(missing, [BLOB[:4000]] * len(missing))  # as the server would
            if asked % 1000 == 0 or missing:
                stepped.now += 1
                stepped.step()
            largest = max(largest, (quick / "rows" / "data.mdb").stat().st_size)
        assert heard(pouring) == "None"
    assert largest <= size
    assert stepped.stats.evicted > 0
    assert hits / asked > 0.95
    assert stepped.stats.bad_checksums == 0
    stepped.close()


READER = """
import sys
from pathlib import Path
from rowserve.cache.lmdb_store import LmdbStore
with LmdbStore(Path(sys.argv[1])).view() as view:
    view.get(b"a")
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_a_stopped_reader_costs_writes_and_nothing_else(quick):
    size = 8 * MIB
    stepped = SteppedCache(quick, size)
    hot = [key(i) for i in range(20)]
    stepped.cache.keep(hot, [BLOB[:4000]] * len(hot))
    stepped.settle()
    with child(READER, quick / "rows") as reader:
        assert heard(reader) == "reading"
        for number in range(1000, 6000):
            stepped.cache.keep([key(number)], [BLOB[:4000]])
            assert stepped.cache.lookup(hot) == [BLOB[:4000]] * len(hot)
            while stepped.stats.queued_rows:
                stepped.now += 0.02
                stepped.step()
        dropped = stepped.stats.dropped
        assert dropped > 1000
        assert (quick / "rows" / "data.mdb").stat().st_size <= size
        assert stepped.stats.state == "ok"
    stepped.cache.keep([key(10**6)], [BLOB[:4000]])
    stepped.settle()
    assert stepped.cache.lookup([key(10**6)]) == [BLOB[:4000]]
    assert stepped.stats.dropped == dropped
    stepped.close()


def test_hits_become_marks_only_near_the_cap_and_once_a_pass(quick):
    stepped = SteppedCache(quick, 4 * MIB)
    hot = [key(i) for i in range(5)]
    stepped.cache.keep(hot, [BLOB[:4000]] * 5)
    stepped.settle()

    def marks() -> int:
        with stepped.store.view() as view:
            return len(view.scan(layout.MARKS, layout.end(layout.MARKS), 99))

    stepped.cache.lookup(hot)
    stepped.now += 1
    stepped.step()
    assert marks() == 0
    stepped.cache.keep([key(i) for i in range(100, 700)], [BLOB[:4000]] * 600)
    stepped.settle()
    stepped.cache.lookup(hot)
    stepped.now += 1
    stepped.step()
    assert marks() == 5
    commits = stepped.store._env.info()["last_txnid"]
    stepped.cache.lookup(hot)
    stepped.now += 1
    stepped.step()
    assert stepped.store._env.info()["last_txnid"] == commits  # marked already: nothing to write
    stepped.cache.lookup([key(i) for i in range(100, 700)])
    stepped.now += 1
    stepped.step()
    assert 5 < marks() <= 5 + stepped.writer._commits.update_pages // 2
    stepped.close()


@pytest.mark.parametrize(("size", "bound"), [(100, 400), (4000, 4600)])
def test_what_a_row_costs_on_disk(quick, size, bound):
    rows = 50_000
    stepped = SteppedCache(quick, 2**28)
    for start in range(0, rows, 500):
        stepped.cache.keep([key(i) for i in range(start, start + 500)], [BLOB[:size]] * 500)
        stepped.settle()
    stepped.close()
    assert (quick / "rows" / "data.mdb").stat().st_size / rows <= bound
