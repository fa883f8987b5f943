from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowserve.cache import layout, record
from rowserve.cache.books import served_names
from rowserve.cache.errors import StoreFailed
from rowserve.cache.record import Kind, Stamp
from rowserve.cache.row_cache import MOST_GENERATIONS, MOST_NOTED, RowCache
from rowserve.graphs.signature import Signature, TensorSpec
from tests.cache.stepping import START, SteppedCache, key
from tests.cache.test_writer import faulty

SIGNATURE = Signature("s", (TensorSpec("x", "float32", (4,)),), (TensorSpec("y", "float32", (2,)),))
BODY = bytes(range(250)) * 40


@pytest.fixture(params=["memory", "lmdb"])
def stepped(request, tmp_path):
    stepped = SteppedCache(tmp_path / "cache", 2**25) if request.param == "lmdb" else SteppedCache(store=faulty())
    yield stepped
    stepped.close()


def flip(stepped: SteppedCache, place: bytes, at: int = -1, bit: int = 1) -> None:
    """Flips a bit of the value in the file."""
    with stepped.store.update() as update:
        value = bytearray(update.get(place))
        value[at] ^= bit
        update.put(place, bytes(value))


def test_rows_come_back_as_they_were_kept(stepped):
    bodies = [BODY[:size] for size in (0, 1, 100, 4000, 4056, 4057, 9000)]
    keys = [key(i) for i in range(len(bodies))]
    assert stepped.cache.keep(keys, [memoryview(body) for body in bodies]) == len(bodies)
    assert stepped.cache.lookup(keys) == bodies
    stepped.settle()
    assert stepped.cache.lookup(keys) == bodies
    assert stepped.cache.lookup([key(99), keys[3], key(98)]) == [None, bodies[3], None]
    assert stepped.cache.lookup([]) == []
    assert stepped.stats.bad_checksums == 0
    assert stepped.stats.rows == len(bodies)


def test_they_outlive_the_process(tmp_path):
    for turn in range(2):
        stepped = SteppedCache(tmp_path, 2**25)
        assert stepped.cache.lookup([key(1)]) == [BODY if turn else None]
        stepped.cache.keep([key(1)], [BODY])
        stepped.close()
        assert stepped.lines == []


def test_queued_and_written_rows_mix(stepped):
    stepped.cache.keep([key(1)], [b"one"])
    stepped.settle()
    stepped.cache.keep([key(2)], [b"two"])
    assert stepped.cache.lookup([key(1), key(2), key(3)]) == [b"one", b"two", None]
    stepped.cache.keep([key(1)], [b"anew"])
    assert stepped.cache.lookup([key(1)]) == [b"anew"]


class Meanwhile:
    """A reader in whose first look the writer thread commits all that is queued."""

    def __init__(self, stepped: SteppedCache) -> None:
        self.stepped = stepped
        self.reader = stepped.store.read()
        self.abort = self.reader.abort

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self.reader.get(key)
        self.stepped.settle()
        return value


def test_a_row_that_is_committed_while_it_is_looked_up_is_found(stepped, monkeypatch):
    stepped.cache.keep([key(1)], [b"one"])
    with monkeypatch.context() as patch:
        patch.setattr(stepped.cache, "_read", lambda: Meanwhile(stepped))
        assert stepped.cache.lookup([key(1)]) == [b"one"]
    assert not stepped.writer.pending
    assert stepped.cache.lookup([key(1)]) == [b"one"]


def test_an_alias_that_is_committed_while_it_is_looked_up_is_found(stepped, monkeypatch):
    stepped.cache.keep_aliases([key(2)], [key(1)])
    read = stepped.store.get_many

    def get_many(keys: Any) -> Any:
        values = read(keys)
        stepped.settle()
        return values

    monkeypatch.setattr(stepped.store, "get_many", get_many)
    assert stepped.cache.lookup_aliases([key(2)]) == [key(1)]
    assert not stepped.writer.pending


def test_a_flipped_bit_is_a_miss_a_count_and_a_deletion(stepped):
    keys = [key(1), key(2), key(3)]
    stepped.cache.keep(keys, [BODY[:4000]] * 3)
    stepped.settle()
    for place, at in ((keys[0], -1), (keys[1], 0)):
        flip(stepped, place, at)
    assert stepped.cache.lookup(keys) == [None, None, BODY[:4000]]
    assert stepped.stats.bad_checksums == 2
    stepped.settle()
    assert stepped.store.get_many(keys)[:2] == [None, None]
    assert stepped.stats.rows == 1
    assert stepped.cache.lookup(keys) == [None, None, BODY[:4000]]
    assert stepped.stats.bad_checksums == 2
    stepped.cache.keep([keys[0]], [b"again"])
    stepped.settle()
    assert stepped.cache.lookup(keys[:1]) == [b"again"]


@pytest.mark.parametrize("size", [0, 1, 50])
def test_junk_in_place_of_a_record_is_a_miss(stepped, size):
    with stepped.store.update() as update:
        update.put(key(1), b"\xff" * size)
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.cache.lookup_aliases([key(1)]) == [None]
    stepped.settle()
    assert stepped.store.get_many([key(1)]) == [None]


def test_a_flipped_bit_in_a_piece_is_detected(stepped):
    stepped.cache.keep([key(1)], [BODY])
    stepped.settle()
    flip(stepped, layout.piece_key(1))
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.stats.bad_checksums == 1
    stepped.settle()
    with stepped.store.view() as view:
        assert view.scan(layout.PIECES, layout.end(layout.PIECES), 9) == []


def test_a_header_that_claims_impossible_pieces_is_harmless(stepped):
    for first, count in ((0, 2**31), (2**64 - 1, 5), (2**64 - 5, 5)):
        rest = record.REST.pack(record.VERSION, Kind.ROW | record.PIECED, 0, 1, 1, b"abcd")
        rest += record.PIECES.pack(first, count)
        with stepped.store.update() as update:
            update.put(key(1), record.checksum(Kind.ROW | record.PIECED, key(1), rest + b"x") + rest)
        assert stepped.cache.lookup([key(1)]) == [None]
        stepped.settle()
        assert stepped.store.get_many([key(1)]) == [None]


def test_a_good_record_is_not_forgotten(stepped):
    stepped.cache.keep([key(1)], [b"one"])
    stepped.writer.forget(key(1))
    stepped.writer.forget(key(2))
    stepped.settle()
    assert stepped.cache.lookup([key(1)]) == [b"one"]


def test_a_record_moved_under_another_key_is_never_served(stepped):
    stepped.cache.keep([key(1)], [b"one"])
    stepped.settle()
    (value,) = stepped.store.get_many([key(1)])
    with stepped.store.update() as update:
        update.put(key(2), value)
    assert stepped.cache.lookup([key(2)]) == [None]
    assert stepped.stats.bad_checksums == 1


def test_a_row_evicted_while_it_is_looked_at_closer_is_a_plain_miss(stepped):
    assert stepped.cache._look_closer(Kind.ROW, key(1)) is None
    assert stepped.stats.bad_checksums == 0


def test_max_age(stepped):
    stepped.cache.keep([key(1)], [b"old"])
    stepped.settle()
    stepped.now += 100
    stepped.cache.keep([key(2)], [b"new"])
    stepped.settle()
    both = [key(1), key(2)]
    assert stepped.cache.lookup(both) == [b"old", b"new"]
    assert stepped.cache.lookup(both, 100) == [b"old", b"new"]
    assert stepped.cache.lookup(both, 99.5) == [None, b"new"]
    assert stepped.cache.lookup(both, 0) == [None, b"new"]
    stepped.now += 0.1
    assert stepped.cache.lookup(both, 0) == [None, None]
    assert stepped.stats.bad_checksums == 0
    stepped.cache.keep([key(1)], [b"fresh"])
    assert stepped.cache.lookup(both, 0) == [b"fresh", None]
    stepped.settle()
    assert stepped.cache.lookup(both, 1) == [b"fresh", b"new"]


def test_aliases(stepped):
    stepped.cache.keep_aliases([key(10)], [key(1)])
    assert stepped.cache.lookup_aliases([key(10), key(11)]) == [key(1), None]
    stepped.settle()
    assert stepped.cache.lookup_aliases([key(11), key(10)]) == [None, key(1)]
    assert (stepped.stats.rows, stepped.stats.aliases) == (0, 1)
    assert stepped.cache.lookup([key(10)]) == [None]  # an alias is no row
    stepped.settle()
    flip(stepped, key(10))
    assert stepped.cache.lookup_aliases([key(10)]) == [None]
    stepped.settle()
    assert stepped.stats.aliases == 0


def test_documents(stepped):
    long = BODY * 3
    assert stepped.cache.recall(b"model") is None
    stepped.cache.remember(b"model", b"first")
    assert stepped.cache.recall(b"model") == b"first"
    stepped.settle()
    assert stepped.cache.recall(b"model") == b"first"
    stepped.cache.remember(b"model", long)
    stepped.settle()
    assert stepped.cache.recall(b"model") == long
    stepped.cache.remember(b"model", b"third")
    stepped.settle()
    assert stepped.cache.recall(b"model") == b"third"
    with stepped.store.view() as view:
        assert view.scan(layout.PIECES, layout.end(layout.PIECES), 9) == []
    assert (stepped.stats.rows, stepped.stats.committed) == (0, 0)
    flip(stepped, layout.document_key(b"model"))
    assert stepped.cache.recall(b"model") is None


def test_overwriting_a_long_row_frees_its_pieces(stepped):
    for body in (BODY, BODY * 2, b"short"):
        stepped.cache.keep([key(1)], [body])
        stepped.settle()
        assert stepped.cache.lookup([key(1)]) == [body]
    with stepped.store.view() as view:
        assert view.scan(layout.PIECES, layout.end(layout.PIECES), 9) == []
        assert len(view.scan(layout.ORDER, layout.ORDER_END, 9)) == 1
    assert stepped.stats.rows == 1


def test_reads_that_fail_are_misses_and_a_metric(tmp_path):
    store = faulty()
    stepped = SteppedCache(store=store)
    stepped.cache.keep([key(1), key(10)], [b"one", b"x"])
    stepped.cache.keep_aliases([key(11)], [key(1)])
    stepped.settle()
    stepped.cache.keep([key(2)], [b"two"])
    store.reads = StoreFailed("gone")
    assert stepped.cache.lookup([key(1), key(2)]) == [None, b"two"]
    assert stepped.cache.lookup_aliases([key(11)]) == [None]
    assert stepped.cache.recall(b"model") is None
    assert stepped.cache._look_closer(Kind.ROW, key(1)) is None
    stepped.writer.pending.clear()
    assert stepped.cache.lookup([key(1), key(2)]) == [None, None]
    assert stepped.stats.errors == 5
    assert stepped.stats.described == "failing: gone"
    assert stepped.lines == ["cache: failing: gone"]
    store.reads = None
    stepped.step()
    assert stepped.cache.lookup([key(1)]) == [b"one"]
    assert stepped.stats.state == "ok"


def test_without_a_store_everything_is_a_miss():
    cache = RowCache()
    calls: list[Any] = []
    generation = cache.generation(fingerprint="f", signature=SIGNATURE)
    keys = generation.row_keys([b"row"])
    assert cache.keep(keys, [b"x"], generation) == 0
    assert cache.keep_aliases(keys, keys) == 0
    assert cache.lookup(keys) == [None]
    assert cache.lookup(keys, 5) == [None]
    assert cache.lookup_aliases(keys) == [None]
    assert cache.room_for([b"x"] * 3) == 3
    cache.when_room(lambda: calls.append("room"))
    cache.sync(calls.append)
    assert calls == ["room", None]
    cache.remember(b"model", b"x")
    assert cache.recall(b"model") is None
    assert cache.stats.described == "off"
    assert cache.stats.dropped == 0
    cache.close(0)
    assert RowCache().generation(fingerprint="f", signature=SIGNATURE) != generation


def test_after_closing_everything_is_a_miss(stepped):
    stepped.cache.keep([key(1)], [b"one"])
    stepped.close()
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.cache.recall(b"model") is None
    assert stepped.stats.described == "off: closed"


def test_generations_are_remembered_and_bounded(stepped):
    first = stepped.cache.generation(fingerprint="0", signature=SIGNATURE)
    assert stepped.cache.generation(fingerprint="0", signature=SIGNATURE) is first
    static = {"k": np.array([1, 2])}
    other = stepped.cache.generation(fingerprint="0", signature=SIGNATURE, static=static, execution={"a": "b"})
    assert other != first
    again = {"k": np.array([1, 2])}
    assert stepped.cache.generation(fingerprint="0", signature=SIGNATURE, static=again, execution={"a": "b"}) is other
    for number in range(MOST_GENERATIONS):
        stepped.cache.generation(fingerprint=str(number + 1), signature=SIGNATURE)
    assert stepped.cache.generation(fingerprint="0", signature=SIGNATURE) is not first
    assert stepped.cache.generation(fingerprint="0", signature=SIGNATURE) == first
    assert len(stepped.cache._generations) == MOST_GENERATIONS


def test_a_generation_is_written_down_once(stepped):
    generation = stepped.cache.generation(fingerprint="f", signature=SIGNATURE)
    name = b"generation/" + generation.tag.hex().encode()
    stepped.settle()
    assert stepped.cache.recall(name) == b'{"fingerprint": "f", "signature": "s", "models": []}'
    stepped.cache._generations.clear()
    stepped.cache.generation(fingerprint="f", signature=SIGNATURE)
    assert stepped.stats.queued_rows == 0


def test_a_generation_keeps_the_last_names_it_was_served_under(stepped):
    for model in ("a/1", "b/1", "a/2", "a/3", "a/4"):
        generation = stepped.cache.generation(fingerprint="f", signature=SIGNATURE, model=model)
        stepped.settle()
    stepped.cache.generation(fingerprint="f", signature=SIGNATURE)  # by somebody who has no name for it
    stepped.settle()
    document = stepped.cache.recall(b"generation/" + generation.tag.hex().encode())
    assert served_names(document) == ["b/1", "a/2", "a/3", "a/4"]


def test_a_generation_that_was_written_down_without_names_gets_one(stepped):
    generation = stepped.cache.generation(fingerprint="f", signature=SIGNATURE)
    name = b"generation/" + generation.tag.hex().encode()
    stepped.cache.remember(name, b'{"fingerprint": "f", "signature": "s"}')
    stepped.settle()
    assert stepped.cache.generation(fingerprint="f", signature=SIGNATURE, model="a/1") == generation
    stepped.settle()
    assert served_names(stepped.cache.recall(name)) == ["a/1"]


def test_hits_are_noted_and_bounded(stepped):
    stepped.cache.keep([key(1), key(2)], [b"x"] * 2)
    stepped.cache.keep_aliases([key(3)], [key(1)])
    stepped.settle()
    noted = stepped.writer.noted
    noted.clear()
    stepped.cache.lookup([key(1), key(9)])
    assert noted == {key(1)}
    stepped.cache.lookup([key(1), key(2)])
    stepped.cache.lookup_aliases([key(3)])
    assert noted == {key(1), key(2), key(3)}
    noted.update(key(i) for i in range(MOST_NOTED))
    size = len(noted)
    stepped.cache.keep([key(10**6)], [b"x"])
    stepped.settle()
    noted.update(key(i) for i in range(MOST_NOTED))
    size = len(noted)
    stepped.cache.lookup([key(10**6)])
    stepped.cache.lookup([key(10**6), key(10**6 + 1)])
    stepped.cache.lookup_aliases([key(3)])
    assert len(noted) == size


def test_creation_times_come_from_the_clock_handed_in(stepped):
    stepped.cache.keep([key(1)], [b"x"])
    stepped.settle()
    (value,) = stepped.store.get_many([key(1)])
    assert record.stamp_of(value) == Stamp(int(START), int(START))
    stepped.now += 50
    stepped.cache.keep([key(1)], [b"y"])
    stepped.settle()
    (value,) = stepped.store.get_many([key(1)])
    assert record.stamp_of(value) == Stamp(int(START) + 50, int(START))
