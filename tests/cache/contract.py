"""What every store does; run on the memory store and on the LMDB store."""

from __future__ import annotations

import pytest

from rowserve.cache.errors import StoreFailed, StoreFull
from rowserve.cache.store import Store
from tests.cache.stepping import key


class Stop(Exception):
    """Breaks off an update."""


class StoreContract:
    """Subclasses have a fixture `store`: empty, with a map of 1,024 pages."""

    def test_what_is_put_is_there_afterwards(self, store: Store):
        with store.update() as update:
            update.put(b"a", b"1")
            update.put(b"b", memoryview(b"2"))
            assert update.get(b"a") == b"1"
            assert store.get_many([b"a"]) == [None]
        assert store.get_many([b"b", b"c", b"a", b"a"]) == [b"2", None, b"1", b"1"]
        assert store.get_many([]) == []
        with store.view() as view:
            assert view.get(b"a") == b"1"
            assert view.get(b"c") is None

    def test_a_later_put_wins(self, store: Store):
        for value in (b"1", b"22"):
            with store.update() as update:
                update.put(b"a", value)
        assert store.get_many([b"a"]) == [b"22"]

    def test_an_update_that_breaks_off_leaves_nothing(self, store: Store):
        with store.update() as update:
            update.put(b"a", b"1")
        with pytest.raises(Stop), store.update() as update:
            update.put(b"a", b"2")
            update.put(b"b", b"2")
            update.delete(b"a")
            raise Stop
        assert store.get_many([b"a", b"b"]) == [b"1", None]

    def test_what_is_deleted_is_gone(self, store: Store):
        with store.update() as update:
            update.put(b"a", b"1")
            assert update.delete(b"a")
            assert not update.delete(b"a")
        assert store.get_many([b"a"]) == [None]

    def test_appending_goes_to_the_end_only(self, store: Store):
        with store.update() as update:
            update.append([(b"m", b"1"), (b"n", b"2")])
        for late in (b"a", b"n"):
            with pytest.raises(StoreFailed), store.update() as update:
                update.append([(late, b"3")])
        assert store.get_many([b"m", b"n", b"a"]) == [b"1", b"2", None]

    def test_adding_leaves_what_is_there(self, store: Store):
        with store.update() as update:
            assert update.add(b"a", b"1")
            assert not update.add(b"a", b"2")
        assert store.get_many([b"a"]) == [b"1"]

    def test_a_scan_is_in_order_and_bounded(self, store: Store):
        with store.update() as update:
            for name in (b"d", b"a", b"c", b"b"):
                update.put(name, name * 2)
            assert update.scan(b"a", b"d", 9) == [(b"a", b"aa"), (b"b", b"bb"), (b"c", b"cc")]
        with store.view() as view:
            assert view.scan(b"aa", b"z", 2) == [(b"b", b"bb"), (b"c", b"cc")]
            assert view.scan(b"b", b"z", 9, values=False) == [(b"b", b""), (b"c", b""), (b"d", b"")]
            assert view.scan(b"e", b"z", 9) == []
            assert view.scan(b"a", b"z", 0) == []

    def test_the_last_key_of_a_range(self, store: Store):
        with store.view() as view:
            assert view.last(b"a", b"z") is None
        with store.update() as update:
            for name in (b"b", b"d", b"z"):
                update.put(name, b"")
            assert update.last(b"a", b"z") == b"d"
        with store.view() as view:
            assert view.last(b"a", b"b") is None
            assert view.last(b"e", b"z") is None
            assert view.last(b"a", b"zz") == b"z"

    def test_a_full_map_is_said_and_harms_nothing(self, store: Store):
        with store.update() as update:
            update.put(b"kept", b"1")
        with pytest.raises(StoreFull), store.update() as update:
            for number in range(2000):
                update.put(key(number), bytes(4000))
        assert store.get_many([b"kept", key(0)]) == [b"1", None]
        with store.update() as update:
            update.put(b"more", b"2")
        assert store.get_many([b"more"]) == [b"2"]

    def test_pages_are_counted(self, store: Store):
        before = store.space()
        with store.update() as update:
            for number in range(100):
                update.put(key(number), bytes(4000))
            inside = update.space()
        after = store.space()
        assert before.used < inside.used <= after.used
        assert 97 <= after.used - before.used <= 120
        assert after.used <= after.file <= after.map == before.map
        with store.update() as update:
            for number in range(100):
                update.delete(key(number))
        assert store.space().used <= before.used + 1

    def test_readers_sync_and_close(self, store: Store):
        assert store.behind() == 0
        assert store.check_readers() == 0
        store.sync()
        store.close()
        store.close()
        with pytest.raises(StoreFailed):
            store.get_many([b"a"])
        with pytest.raises(StoreFailed), store.view():
            pass
        with pytest.raises(StoreFailed), store.update():
            pass
        for use in (store.sync, store.check_readers, store.space):
            with pytest.raises(StoreFailed):
                use()
