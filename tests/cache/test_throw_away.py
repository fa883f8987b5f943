"""Rows that are forgotten soon: by a writer moved by hand, over a memory store and over a file."""

from __future__ import annotations

import pytest

from rowserve.cache import admin, integrity, layout
from rowserve.cache.books import Books
from rowserve.cache.errors import StoreFailed
from rowserve.cache.eviction import sweep
from rowserve.cache.record import Kind
from rowserve.graphs.signature import Signature, TensorSpec
from tests.cache.stepping import START, SteppedCache, key, memory_store
from tests.cache.test_writer import Faulty

SIGNATURE = Signature("s", (TensorSpec("x", "float32", (4,)),), (TensorSpec("y", "float32", (4,)),))
ROWS = [number.to_bytes(16, "little") for number in range(600)]
BODIES = [bytes(9000 if number == 7 else 100) for number in range(600)]


@pytest.fixture
def stepped():
    return SteppedCache(store=memory_store())


def names(stepped: SteppedCache):
    return [stepped.cache.generation(fingerprint="f", signature=SIGNATURE, throw_away=each) for each in (False, True)]


def fill(stepped: SteppedCache, kept: int = 5, thrown_away: int = 600) -> None:
    for name, count in zip(names(stepped), (kept, thrown_away), strict=True):
        stepped.cache.keep(name.row_keys(ROWS[:count]), BODIES[:count], name)
        stepped.cache.keep_aliases([name.alias_key(b"file", b"")], name.row_keys(ROWS[:1]), name)
    stepped.settle()


def found(stepped: SteppedCache) -> list[int]:
    """Rows that are hits, of the kept and of the thrown away."""
    return [sum(row is not None for row in stepped.cache.lookup(name.row_keys(ROWS))) for name in names(stepped)]


def test_they_meet_nobody_elses_and_no_other_process_names_them(stepped):
    plain, other = names(stepped)
    assert set(plain.row_keys(ROWS)).isdisjoint(other.row_keys(ROWS))
    assert SteppedCache(store=memory_store()).cache.generation(fingerprint="f", signature=SIGNATURE) == plain
    again = SteppedCache(store=memory_store()).cache.generation(fingerprint="f", signature=SIGNATURE, throw_away=True)
    assert again.digest != other.digest


def test_they_are_hits_until_some_seconds_after_the_last_request_and_then_gone_in_small_steps(stepped):
    fill(stepped)
    assert found(stepped) == [5, 600]
    stepped.now += 9
    stepped.cache.put_off_forgetting()
    stepped.now += 9
    stepped.step()
    assert found(stepped) == [5, 600]
    stepped.now += 2
    stepped.step()
    assert found(stepped)[0] == 5
    assert 300 <= found(stepped)[1] <= 400
    for _ in range(3):
        stepped.step()
    assert found(stepped) == [5, 0]
    assert (stepped.stats.rows, stepped.stats.aliases, stepped.stats.evicted) == (5, 1, 0)
    with stepped.store.view() as view:  # no piece, mark or order entry of theirs
        assert len(view.scan(layout.PREFIX, layout.ORDER_END, 10**6)) == 6 + len(admin.names(stepped.store)) + 2


def test_a_request_in_the_middle_stops_the_forgetting(stepped):
    fill(stepped)
    stepped.now += 11
    stepped.step()
    stepped.cache.put_off_forgetting()
    left = found(stepped)[1]
    assert left > 0
    stepped.step()
    assert found(stepped)[1] == left
    stepped.now += 11
    for _ in range(4):
        stepped.step()
    assert found(stepped) == [5, 0]


def test_what_is_written_late_is_forgotten_too(stepped):
    name = names(stepped)[1]
    stepped.cache.keep(name.row_keys(ROWS), BODIES, name)
    stepped.now += 60
    stepped.step()  # a group of them, and no request for a minute
    stepped.now += 5
    stepped.settle()
    assert found(stepped)[1] == 600
    stepped.now += 11
    for _ in range(4):
        stepped.step()
    assert found(stepped)[1] == 0


def test_the_next_process_forgets_what_a_killed_one_has_left(stepped):
    fill(stepped)
    after = SteppedCache(store=stepped.store)
    for _ in range(4):
        after.step()
    assert after.stats.rows == 5
    assert found(stepped) == [5, 0]


def test_they_are_forgotten_at_the_end(tmp_path):
    stepped = SteppedCache(tmp_path / "cache")
    fill(stepped)
    integrity.walk_in_child(tmp_path / "cache" / integrity.ROWS, beside=True)  # as after a kill: nothing is damaged
    stepped.close()
    again = SteppedCache(tmp_path / "cache")
    assert (again.stats.rows, again.stats.aliases) == (5, 1)
    again.close()


def test_a_disk_that_fails_is_tried_again():
    store = Faulty()
    with store.update() as update:
        from rowserve.cache.books import About

        Books(update, int(START)).describe(About(4 << 20, "00"))
    stepped = SteppedCache(store=store)
    fill(stepped, thrown_away=3)
    stepped.now += 11
    store.before = StoreFailed("no")
    stepped.step()
    store.before = None
    assert found(stepped) == [5, 3]
    stepped.now += 2
    stepped.step()
    assert found(stepped) == [5, 0]


def test_they_make_room_before_others_do():
    store = memory_store()
    with store.update() as update:
        books = Books(update, int(START))
        for number, tag in enumerate([b"kept", b"kept", layout.THROW_AWAY_TAG, layout.THROW_AWAY_TAG]):
            books.put(Kind.ROW, key(number), b"body", tag)
        books.mark(key(2))
        sweep(books, 100, 1)
        books.finish()
        assert [update.get(key(number)) is not None for number in range(4)] == [True, True, True, False]
        sweep(books, 100, 10**6)
        assert books.finish().rows == 0


def test_a_purge_and_a_list_cover_them(stepped):
    fill(stepped, thrown_away=3)
    assert len(list(admin.ls(stepped.store))) == 10
    assert admin.stat(stepped.store).generations[layout.THROW_AWAY_TAG.hex()] == 4
    assert admin.stat(stepped.store).names[layout.THROW_AWAY_TAG.hex()]["fingerprint"] == "throw-away rows"
    assert admin.purge(stepped.store, layout.THROW_AWAY_TAG.hex()) == 4
    assert found(stepped) == [5, 0]
    fill(stepped, thrown_away=3)
    admin.purge(stepped.store)
    assert found(stepped) == [0, 0]
