from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import lmdb
import pytest

from rowserve.cache import lmdb_store
from rowserve.cache.errors import StoreFailed, UsedAfterFork
from rowserve.cache.lmdb_store import LmdbStore
from tests.cache.contract import StoreContract
from tests.cache.stepping import child, heard, key, tell

MAP = 4 * 2**20


class TestLmdbStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        store = LmdbStore(tmp_path, MAP)
        yield store
        store.close()


@pytest.fixture
def store(tmp_path):
    store = LmdbStore(tmp_path, MAP)
    yield store
    store.close()


def put(store: LmdbStore, *keys: bytes) -> None:
    with store.update() as update:
        for each in keys:
            update.put(each, b"value")


def test_the_files_are_private(store, tmp_path):
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "data.mdb": 0o600,
        "lock.mdb": 0o600,
    }


def test_commits_reach_the_disk_in_an_order_that_survives_a_crash(store):
    flags = store._env.flags()
    assert flags["sync"]
    assert not flags["metasync"]
    assert not flags["writemap"]
    assert not flags["map_async"]


def test_the_map_is_the_files_for_ever(tmp_path):
    store = LmdbStore(tmp_path, MAP)
    put(store, b"a")
    store.close()
    store = LmdbStore(tmp_path)
    assert store.space().map * store.space().page == MAP
    store.close()


def test_one_process_opens_a_file_once_under_any_path(store, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    other = LmdbStore(link)
    put(other, b"a")
    assert store.get_many([b"a"]) == [b"value"]
    assert len([shared for shared in lmdb_store.ENVIRONMENTS.values() if shared.env is store._env]) == 1
    other.close()
    other.close()
    assert store.get_many([b"a"]) == [b"value"]


def test_the_last_user_closes(tmp_path):
    first, second = LmdbStore(tmp_path, MAP), LmdbStore(tmp_path)
    env = first._env
    first.close()
    first.close()
    assert second.get_many([b"a"]) == [None]
    second.close()
    with pytest.raises(lmdb.Error):
        env.begin()
    assert all(shared.env is not env for shared in lmdb_store.ENVIRONMENTS.values())


def test_a_file_moved_away_and_made_anew_is_another(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    first = LmdbStore(folder, MAP)
    put(first, b"a")
    folder.rename(tmp_path / "aside")
    folder.mkdir()
    second = LmdbStore(folder, MAP)
    assert second.get_many([b"a"]) == [None]
    assert first.get_many([b"a"]) == [b"value"]
    first.close()
    second.close()


def test_what_cannot_be_opened_is_a_failure(tmp_path):
    (tmp_path / "data.mdb").mkdir()
    with pytest.raises(StoreFailed):
        LmdbStore(tmp_path, MAP)


def test_a_forked_child_must_not_use_it(store):
    put(store, b"a")
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:  # pragma: no cover  the child
        said = []
        for use in (lambda: store.get_many([b"a"]), lambda: store.sync(), lambda: store.view().__enter__()):
            try:
                use()
            except UsedAfterFork:
                said.append("refused")
            except BaseException as error:  # noqa: BLE001
                said.append(repr(error))
        os.write(writing, ",".join(said).encode())
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1000) == b"refused,refused,refused"
    os.close(reading)
    os.waitpid(pid, 0)
    put(store, b"b")
    assert store.get_many([b"a", b"b"]) == [b"value", b"value"]


def test_forgetting_after_a_fork_forgets_all(tmp_path):
    store = LmdbStore(tmp_path, MAP)
    shared = store._shared
    before = dict(lmdb_store.ENVIRONMENTS)
    stores = list(lmdb_store.STORES)
    try:
        lmdb_store.STORES.clear()
        lmdb_store.STORES.add(store)
        lmdb_store.forbid_in_child()
        assert not lmdb_store.ENVIRONMENTS
        for use in (lambda: store.get_many([b"a"]), store.sync, store.space):
            with pytest.raises(UsedAfterFork):
                use()
        store.close()  # no harm
    finally:
        lmdb_store.ENVIRONMENTS.update(before)
        for each in stores:
            lmdb_store.STORES.add(each)
        assert shared is not None
        lmdb_store.release(shared)


READER = """
import sys
from pathlib import Path
from rowserve.cache.lmdb_store import LmdbStore
store = LmdbStore(Path(sys.argv[1]))
with store.view() as view:
    view.get(b"a")
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_a_reader_elsewhere_is_seen_to_lag_and_its_death_is_noticed(store, tmp_path):
    put(store, b"a")
    with child(READER, tmp_path) as reader:
        assert heard(reader) == "reading"
        for number in range(5):
            put(store, key(number))
        assert store.behind() == 5
        assert store.check_readers() == 0
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        assert store.check_readers() == 1
        assert store.behind() == 0


HOG = """
import sys, lmdb
env = lmdb.open(sys.argv[1], max_readers=4)
held = [env.begin() for _ in range(3)]
print("nearly full", flush=True)
sys.stdin.readline()
held.append(env.begin())
print("full", flush=True)
sys.stdin.read()
"""


def test_slots_of_dead_readers_are_freed_when_they_run_out(tmp_path, monkeypatch):
    lmdb.open(str(tmp_path), max_readers=4).close()
    with child(HOG, tmp_path) as hog:
        assert heard(hog) == "nearly full"
        store = LmdbStore(tmp_path)
        tell(hog)
        assert heard(hog) == "full"
        with pytest.raises(StoreFailed):
            store.get_many([b"a"])
        hog.send_signal(signal.SIGKILL)
        hog.wait()
        assert store.get_many([b"a"]) == [None]
        store.close()


def test_writes_from_two_threads_take_turns(store):
    inside, go_on = threading.Event(), threading.Event()
    order = []

    def first() -> None:
        with store.update() as update:
            inside.set()
            go_on.wait(60)
            order.append("first")
            update.put(b"a", b"1")

    def second() -> None:
        with store.update() as update:
            order.append("second")
            assert update.get(b"a") == b"1"

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    assert store.get_many([b"a"]) == [None]  # readers wait for nobody
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second"]


def test_read_only_needs_no_lock_file(tmp_path):
    store = LmdbStore(tmp_path, MAP)
    put(store, b"a")
    store.close()
    (tmp_path / "lock.mdb").unlink()
    store = LmdbStore(tmp_path, read_only=True)
    assert store.get_many([b"a"]) == [b"value"]
    with pytest.raises(StoreFailed), store.update():
        pass
    store.close()
    assert not (tmp_path / "lock.mdb").exists()


def test_lmdb_is_imported_nowhere_else():
    folder = Path(lmdb_store.__file__).parent
    importers = {path.name for path in folder.glob("*.py") if "import lmdb\n" in path.read_text()}
    assert importers == {"lmdb_store.py", "walk.py"}


def test_a_file_that_grows_while_two_threads_look_at_its_size_was_not_cut(tmp_path, monkeypatch):
    store = LmdbStore(tmp_path, MAP)
    monkeypatch.setattr(lmdb_store, "LOOK_SECONDS", 0.0)
    real = os.lseek

    def seek(*arguments):
        size = real(*arguments)
        store._bytes = size + 4096  # another thread, whose look comes later and ends earlier
        return size

    with store.view():
        pass
    monkeypatch.setattr(os, "lseek", seek)
    assert store.get_many([b"key"]) == [None]
    assert store.damaged == ""
    store.close()
