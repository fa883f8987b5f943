from __future__ import annotations

import threading
import time

import pytest

from rowserve.cache import admin, layout, resizing
from rowserve.cache.errors import CacheRefused
from rowserve.cache.keys import Generation
from rowserve.cache.opening import Opened
from rowserve.cache.record import pieces_of
from tests.cache.stepping import MIB, START, SteppedCache, child, heard, key
from tests.cache.test_opening import HOLD
from tests.cache.test_row_cache import SIGNATURE, flip

SIZE = 16 * MIB
ROWS = [bytes([number]) * 4 for number in range(30)]


class Filled(SteppedCache):
    """Two models' generations beside the cache."""

    one: Generation
    two: Generation


@pytest.fixture
def stepped(tmp_path):
    """30 rows of one model (one of them long), 5 of another, an alias, a document."""
    stepped = Filled(tmp_path, SIZE)
    one = stepped.cache.generation(fingerprint="one", signature=SIGNATURE)
    two = stepped.cache.generation(fingerprint="two", signature=SIGNATURE)
    stepped.cache.keep(one.row_keys(ROWS), [bytes(9000) if i == 7 else bytes(400) for i in range(30)], one)
    stepped.settle()
    stepped.now += 10
    stepped.cache.keep(two.row_keys(ROWS[:5]), [b"two"] * 5, two)
    stepped.cache.keep_aliases([one.alias_key(b"file", b"")], one.row_keys(ROWS[:1]), one)
    stepped.cache.remember(b"model", b"description")
    stepped.settle()
    stepped.one, stepped.two = one, two
    yield stepped
    stepped.close()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(admin, "CHUNK", 7)
    monkeypatch.setattr(resizing, "CHUNK", 7)


def test_stat(stepped):
    report = admin.stat(stepped.store)
    assert (report.rows, report.aliases, report.evicted) == (35, 1, 0)
    assert report.size == SIZE
    assert report.map_size == SIZE * 5 // 4
    assert 0 < report.used <= report.file < report.map_size
    one, two = stepped.one.tag.hex(), stepped.two.tag.hex()
    assert report.generations == {one: 31, two: 5}
    assert report.names[one] == {"fingerprint": "one", "signature": "s", "models": []}
    assert set(report.names) == {one, two}


def test_a_name_that_was_damaged_is_left_out(stepped):
    flip(stepped, layout.document_key(b"generation/" + stepped.one.tag.hex().encode()))
    assert set(admin.names(stepped.store)) == {stepped.two.tag.hex()}


def test_ls(stepped):
    listed = list(admin.ls(stepped.store))
    assert [each.kind for each in listed] == ["row"] * 35 + ["alias"]
    assert [each.created for each in listed] == [int(START)] * 30 + [int(START) + 10] * 6
    assert [each.bytes for each in listed[6:9]] == [400, 9000, 400]
    assert [bytes.fromhex(each.key) for each in listed[:30]] == stepped.one.row_keys(ROWS)
    assert len(list(admin.ls(stepped.store, stepped.two.tag.hex()))) == 5
    assert not listed[0].hit
    with stepped.store.update() as update:
        update.put(layout.mark_key(stepped.one.row_keys(ROWS)[0]), b"")
    assert next(admin.ls(stepped.store)).hit


def test_ls_passes_over_what_is_gone_or_damaged(stepped):
    keys = stepped.one.row_keys(ROWS)
    flip(stepped, keys[0])
    with stepped.store.update() as update:
        update.delete(keys[1])
        update.put(layout.order_key(10**6), b"junk")
    assert len(list(admin.ls(stepped.store))) == 34


def test_a_long_listing_pins_nothing(stepped):
    listing = admin.ls(stepped.store)
    next(listing)
    for number in range(5):
        stepped.cache.keep([key(number)], [b"x"])
        stepped.settle()
    assert stepped.store.behind() == 0


def test_verify_finds_and_drops_the_damaged(stepped):
    keys = stepped.one.row_keys(ROWS)
    assert admin.verify(stepped.store) == admin.Verified(41, ())
    flip(stepped, keys[3])
    with stepped.store.view() as view:
        first, _ = pieces_of(view.get(keys[7]))
    flip(stepped, layout.piece_key(first))
    flip(stepped, layout.document_key(b"model"))
    found = admin.verify(stepped.store)
    assert found.checked == 41
    assert set(found.damaged) == {keys[3].hex(), keys[7].hex(), layout.document_key(b"model").hex()}
    assert admin.verify(stepped.store, drop=True) == found
    assert admin.verify(stepped.store) == admin.Verified(38, ())
    assert admin.stat(stepped.store).rows == 33


def test_a_row_evicted_while_verifying_is_no_fault(stepped, monkeypatch):
    gone = stepped.one.row_keys(ROWS)
    real = admin.pairs

    def pairs(*arguments, **ways):
        found = list(real(*arguments, **ways))
        with stepped.store.update() as update:
            for each in gone[:2]:
                update.delete(each)
        yield from found

    monkeypatch.setattr(admin, "pairs", pairs)
    assert admin.verify(stepped.store) == admin.Verified(39, ())


def test_purging_one_generation(stepped, tmp_path):
    secret = (tmp_path / "secret").read_bytes()
    assert admin.purge(stepped.store, stepped.one.tag.hex()) == 31
    assert stepped.cache.lookup(stepped.one.row_keys(ROWS)) == [None] * 30
    assert stepped.cache.lookup(stepped.two.row_keys(ROWS[:5])) == [b"two"] * 5
    report = admin.stat(stepped.store)
    assert (report.rows, report.aliases) == (5, 0)
    assert stepped.cache.recall(b"model") == b"description"
    assert (tmp_path / "secret").read_bytes() == secret
    with stepped.store.view() as view:
        assert view.scan(layout.PIECES, layout.end(layout.PIECES), 9) == []


def test_purging_all_rows_beside_others(stepped, tmp_path):
    secret = (tmp_path / "secret").read_bytes()
    with stepped.store.update() as update:
        update.put(layout.order_key(10**6), b"junk")
    assert admin.purge_all(tmp_path) == 36
    report = admin.stat(stepped.store)
    assert (report.rows, report.aliases, report.generations, report.names) == (0, 0, {}, {})
    assert stepped.cache.recall(b"model") is None
    assert (tmp_path / "secret").read_bytes() == secret
    stepped.cache.keep([key(1)], [b"x"])
    stepped.settle()
    assert stepped.cache.lookup([key(1)]) == [b"x"]


def test_purging_all_when_nobody_has_it(stepped, tmp_path):
    stepped.close()
    secret = (tmp_path / "secret").read_bytes()
    assert admin.purge_all(tmp_path) is None
    assert not (tmp_path / "rows").exists()
    assert (tmp_path / "secret").read_bytes() == secret
    with pytest.raises(CacheRefused, match="no cache"):
        admin.purge_all(tmp_path)


def test_purging_helps_where_the_secret_does_not_belong(stepped, tmp_path):
    stepped.close()
    (tmp_path / "secret").write_bytes(bytes(32))
    assert SteppedCache(tmp_path).stats.state == "off"
    admin.purge_all(tmp_path)
    again = SteppedCache(tmp_path)
    assert again.stats.state == "ok"
    assert (tmp_path / "secret").read_bytes() == bytes(32)
    again.close()


def test_explain(stepped):
    found = admin.explain(stepped.store, stepped.one, ROWS[0])
    assert found.key == stepped.one.row_keys(ROWS)[0].hex()
    assert (found.state, found.row_bytes) == ("kept", 4)
    assert found.listed is not None
    assert found.listed.bytes == 400
    labels = [(field.label, field.name) for field in found.fields]
    assert labels == [
        ("format", ""),
        ("tenant", ""),
        ("fingerprint", ""),
        ("signature", ""),
        ("input", "x"),
        ("output", "y"),
    ]
    text = "\n".join(found.lines())
    assert found.key in text
    assert "3 bytes" in text
    assert "kept" in text
    secret = stepped.cache._secret
    assert secret.hex() not in text
    assert admin.explain(stepped.store, stepped.one, b"nobody asked").state == "absent"
    assert admin.explain(stepped.store, stepped.one, ROWS[0], {key(1): b""}).state == "kept"
    assert admin.explain(stepped.store, stepped.one, ROWS[0], {bytes.fromhex(found.key): b""}).state == "queued"
    flip(stepped, bytes.fromhex(found.key))
    assert admin.explain(stepped.store, stepped.one, ROWS[0]).state == "damaged"


def test_a_file_that_says_nothing_of_itself_has_no_stat(stepped):
    flip(stepped, layout.document_key(b"\0about"))
    with pytest.raises(CacheRefused):
        admin.stat(stepped.store)


def test_resize_within_the_map_beside_others(stepped, tmp_path):
    report = resizing.resize(tmp_path, SIZE // 2)
    assert report.size == SIZE // 2
    assert report.map_size == SIZE * 5 // 4
    stepped.cache.keep([key(1)], [b"x"])
    stepped.settle()
    assert stepped.stats.size == SIZE // 2  # the server follows
    assert resizing.resize(tmp_path, SIZE).size == SIZE


def test_a_cap_that_the_map_does_not_hold_needs_it_alone(stepped, tmp_path):
    with child(HOLD, tmp_path) as other:
        assert heard(other) == "ok"
        stepped.close()
        with pytest.raises(CacheRefused, match="others have"):
            resizing.resize(tmp_path, 2 * SIZE)
    assert resizing.resize(tmp_path, 2 * SIZE).size == 2 * SIZE


def test_resize_beyond_the_map_copies_everything(stepped, tmp_path):
    stepped.close()
    before = (tmp_path / "rows" / "data.mdb").stat().st_ino
    (tmp_path / "rows.new").mkdir()
    report = resizing.resize(tmp_path, 4 * SIZE)
    assert (report.size, report.map_size) == (4 * SIZE, 5 * SIZE)
    assert (report.rows, report.aliases) == (35, 1)
    assert (tmp_path / "rows" / "data.mdb").stat().st_ino != before
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "lock", "rows"}
    again = SteppedCache(tmp_path)
    assert again.lines == []
    assert again.cache.lookup(stepped.one.row_keys(ROWS)) == [bytes(9000) if i == 7 else bytes(400) for i in range(30)]
    assert again.cache.recall(b"model") == b"description"
    assert admin.verify(again.store).damaged == ()
    again.close()


def test_resize_below_what_is_in_use_evicts_the_oldest_and_shrinks_the_file(stepped, tmp_path):
    stepped.cache.keep([key(i) for i in range(2000)], [bytes(4000)] * 2000)
    stepped.settle()
    stepped.close()
    report = resizing.resize(tmp_path, 5 * MIB)
    assert report.size == 5 * MIB
    assert report.file <= 5 * MIB
    assert report.evicted > 500
    again = SteppedCache(tmp_path)
    assert again.cache.lookup([key(1999)]) == [bytes(4000)]
    assert again.cache.lookup(stepped.one.row_keys(ROWS[:1])) == [None]
    again.close()


def test_shrinking_ends_where_there_is_nothing_left_to_evict(stepped):
    from rowserve.cache.eviction import Budget

    with stepped.store.update() as update:
        for number in range(3000):
            update.put(b"z" + key(number), bytes(4000))
    resizing.shrink(stepped.store, Budget.of(4 * MIB))
    assert admin.stat(stepped.store).rows == 0


def test_a_cap_too_small_is_refused(stepped, tmp_path):
    with pytest.raises(CacheRefused, match="smallest cap"):
        resizing.resize(tmp_path, 1000)


def test_there_must_be_a_cache_to_resize(tmp_path):
    with pytest.raises(CacheRefused, match="no cache"):
        resizing.resize(tmp_path / "nowhere", SIZE)


def test_tools_and_a_server_take_turns(stepped, tmp_path):
    """Purging beside a writing thread: neither waits for ever, nothing is damaged."""
    opened = Opened(tmp_path, existing=True)
    stop = threading.Event()

    def purge() -> None:
        while not stop.is_set():
            admin.purge(opened.store)

    thread = threading.Thread(target=purge)
    thread.start()
    for start in range(0, 300, 10):
        stepped.cache.keep([key(i) for i in range(start, start + 10)], [bytes(5000)] * 10)
        stepped.settle()
    stop.set()
    thread.join(60)
    assert stepped.stats.failed == 0
    admin.purge(opened.store)
    report = admin.stat(opened.store)
    assert (report.rows, report.aliases) == (0, 0)
    opened.store.close()
    opened.close()
    assert time.time() > START
