"""A cache folder in every state: it opens, or is off and says why; nothing raises, nothing wrong is served."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lmdb
import pytest

from rowserve.cache import integrity, lmdb_store, opening
from rowserve.cache.errors import CacheRefused, StoreFailed
from rowserve.cache.integrity import Claim
from rowserve.cache.opening import Opened, open_cache
from tests.cache.stepping import MIB, SteppedCache, child, heard, key

SIZE = 8 * MIB
BODY = bytes(range(250)) * 16


def fill(folder: Path, rows: int = 50) -> None:
    stepped = SteppedCache(folder, SIZE)
    assert stepped.stats.state == "ok"
    stepped.cache.keep([key(i) for i in range(rows)], [BODY] * rows)
    stepped.settle()
    stepped.close()


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "cache")
    return tmp_path / "cache"


def data(folder: Path) -> Path:
    return folder / "rows" / "data.mdb"


def works_anew(folder: Path, why: str) -> None:
    """It was set aside with its lock, in one line, and the next cache is empty and good."""
    stepped = SteppedCache(folder, SIZE)
    assert stepped.stats.state == "ok"
    assert len(stepped.lines) == 1
    assert why in stepped.lines[0]
    assert "set aside" in stepped.lines[0]
    (aside,) = folder.glob("rows.bad-*")
    assert (aside / "data.mdb").exists()
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.cache.keep([key(1)], [b"anew"])
    stepped.settle()
    stepped.close()
    again = SteppedCache(folder, SIZE)
    assert again.lines == []
    assert again.cache.lookup([key(1)]) == [b"anew"]
    again.close()


def test_a_new_folder(tmp_path):
    stepped = SteppedCache(tmp_path / "deep" / "cache")
    assert stepped.lines == []
    assert stepped.stats.size == 4 * 2**30
    assert {path.name for path in (tmp_path / "deep" / "cache").iterdir()} == {"secret", "lock", "rows"}
    assert (tmp_path / "deep" / "cache").stat().st_mode & 0o777 == 0o700
    space = stepped.store.space()
    assert space.map * space.page == 5 * 2**30
    assert data(tmp_path / "deep" / "cache").stat().st_size < MIB  # sparse
    stepped.close()


def test_a_good_one_is_not_walked_again(folder, monkeypatch):
    monkeypatch.setattr(integrity, "walk_in_child", lambda rows: pytest.fail("walked"))
    stepped = SteppedCache(folder)
    assert stepped.cache.lookup([key(1)]) == [BODY]
    stepped.close()


def test_after_an_unclean_stop_it_is_walked_first(folder, monkeypatch):
    walked: list[Path] = []
    (folder / "rows" / "clean").unlink()
    monkeypatch.setattr(integrity, "walk_in_child", walked.append)
    stepped = SteppedCache(folder)
    assert walked == [folder / "rows"]
    assert not (folder / "rows" / "clean").exists()
    stepped.close()
    assert (folder / "rows" / "clean").exists()


def test_the_walk_passes_a_good_one(folder):
    (folder / "rows" / "clean").unlink()
    stepped = SteppedCache(folder)
    assert stepped.lines == []
    assert stepped.cache.lookup([key(1)]) == [BODY]
    stepped.close()


@pytest.mark.parametrize("keep", [1, 100, 4096, 5000, 8192, 20_000, 100_000])
def test_truncated(folder, keep):
    os.truncate(data(folder), keep)
    works_anew(folder, "truncated")


def test_emptied(folder):
    os.truncate(data(folder), 0)
    stepped = SteppedCache(folder, SIZE)
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.cache.keep([key(1)], [b"anew"])
    stepped.settle()
    assert stepped.cache.lookup([key(1)]) == [b"anew"]
    stepped.close()


def test_zeroed(folder):
    data(folder).write_bytes(bytes(data(folder).stat().st_size))
    works_anew(folder, "not a cache file")


def test_foreign(folder):
    data(folder).write_bytes(b"SQLite format 3\0" * 10_000)
    works_anew(folder, "not a cache file")


def test_zeroed_behind_its_first_pages(folder):
    size = data(folder).stat().st_size
    with data(folder).open("r+b") as file:
        file.seek(8192)
        file.write(bytes(size - 8192))
    works_anew(folder, "damaged")


def test_a_link_is_not_followed(folder, tmp_path):
    data(folder).rename(tmp_path / "elsewhere")
    data(folder).symlink_to(tmp_path / "elsewhere")
    works_anew(folder, "cannot be read")


def test_a_folder_in_its_place(folder):
    data(folder).unlink()
    data(folder).mkdir()
    works_anew(folder, "cannot be read")


def test_only_the_last_bad_one_is_kept(folder):
    for _ in range(2):
        data(folder).write_bytes(b"junk" * 5000)
        SteppedCache(folder, SIZE).close()
    assert len(list(folder.glob("rows.bad-*"))) == 1


def test_an_lmdb_file_of_somebody_else(tmp_path):
    import lmdb

    rows = tmp_path / "rows"
    rows.mkdir()
    env = lmdb.open(str(rows))
    with env.begin(write=True) as txn:
        txn.put(b"their", b"data")
    env.close()
    stepped = SteppedCache(tmp_path)
    assert stepped.stats.state == "off"
    assert "does not say what it is" in stepped.lines[0]
    assert stepped.cache.lookup([key(1)]) == [None]
    env = lmdb.open(str(rows))
    with env.begin() as txn:
        assert txn.get(b"their") == b"data"
    env.close()


USE = """
import os, sys
from pathlib import Path
from unittest.mock import Mock
from rowserve.cache.opening import open_cache
cache = open_cache(Path(sys.argv[1]), start_thread=lambda run: None)
from tests.cache.stepping import key
good = bytes(range(250)) * 16
served = [value for value in cache.lookup([key(i) for i in range(50)]) if value is not None]
assert all(value == good for value in served), "wrong answer"
cache.keep([key(i) for i in range(60)], [good] * 60)
while cache.stats.queued_rows:
    cache._writer.step()
served = [value for value in cache.lookup([key(i) for i in range(60)]) if value is not None]
assert all(value == good for value in served), "wrong answer"
print("served", len(served), cache.stats.described)
os._exit(0)
"""


@pytest.mark.parametrize("seed", range(12))
def test_random_flips_anywhere_never_give_a_wrong_answer_nor_a_crash(folder, seed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    rng = random.Random(seed)
    content = bytearray(data(folder).read_bytes())
    for _ in range(rng.choice([1, 3, 30, 300])):
        at = rng.randrange(8192 if seed % 3 == 0 else len(content))
        content[at] ^= 1 << rng.randrange(8)
    data(folder).write_bytes(bytes(content))
    done = subprocess.run([sys.executable, "-c", USE, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("served")


HOLD = """
import sys
from pathlib import Path
from unittest.mock import Mock
from rowserve.cache.opening import open_cache
cache = open_cache(Path(sys.argv[1]))
print(cache.stats.state, flush=True)
sys.stdin.read()
"""


def test_a_bad_one_that_others_have_open_stays_where_it_is(folder):
    with child(HOLD, folder) as other:
        assert heard(other) == "ok"
        with data(folder).open("r+b") as file:
            first = file.read(8192)
            file.seek(0)
            file.write(bytes(8192))
            file.flush()
            stepped = SteppedCache(folder)
            assert stepped.stats.state == "off"
            assert "others have it open" in stepped.stats.why
            assert len(stepped.lines) == 1
            assert stepped.cache.lookup([key(1)]) == [None]
            assert stepped.cache.keep([key(1)], [b"x"]) == 0
            stepped.close()
            assert not list(folder.glob("rows.bad-*"))
            file.seek(0)
            file.write(first)
    stepped = SteppedCache(folder)
    assert stepped.cache.lookup([key(1)]) == [BODY]
    stepped.close()


def test_two_processes_share(folder):
    with child(HOLD, folder) as other:
        assert heard(other) == "ok"
        stepped = SteppedCache(folder)
        assert stepped.cache.lookup([key(1)]) == [BODY]
        stepped.close()
        assert not (folder / "rows" / "clean").exists()  # the other one still has it


def test_two_in_one_process_share(folder):
    first, second = SteppedCache(folder), SteppedCache(folder)
    first.cache.keep([key(100)], [b"x"])
    first.settle()
    assert second.cache.lookup([key(100)]) == [b"x"]
    first.close()
    assert second.cache.lookup([key(100)]) == [b"x"]
    assert not (folder / "rows" / "clean").exists()
    second.close()
    assert (folder / "rows" / "clean").exists()


def test_who_finds_it_held_alone_for_long_goes_without(folder, monkeypatch):
    holder = Claim(folder)
    holder.take()
    assert holder.alone
    waits: list[float] = []
    monkeypatch.setattr(Claim.take, "__defaults__", (waits.append, 3))
    stepped = SteppedCache(folder)
    assert "being checked or changed" in stepped.stats.why
    assert len(waits) == 3
    holder.release()
    holder.release()


def test_who_loses_it_between_two_locks_goes_without(folder, monkeypatch):
    monkeypatch.setattr(Claim, "share", lambda self: False)
    stepped = SteppedCache(folder)
    assert "being checked or changed" in stepped.stats.why
    monkeypatch.undo()
    stepped = SteppedCache(folder)
    assert stepped.stats.state == "ok"
    stepped.close()


def test_another_cap_is_only_a_warning(folder):
    stepped = SteppedCache(folder, 2 * SIZE)
    assert stepped.stats.size == SIZE
    assert len(stepped.lines) == 1
    assert "rowserve cache resize" in stepped.lines[0]
    stepped.close()
    stepped = SteppedCache(folder, SIZE)
    assert stepped.lines == []
    stepped.close()


def test_a_cap_below_the_least_becomes_the_least(tmp_path):
    stepped = SteppedCache(tmp_path, 1)
    assert stepped.stats.size == 4 * MIB
    stepped.close()


@pytest.mark.parametrize("damage", [b"", b"x" * 31, b"y" * 32])
def test_a_wrong_secret_is_refused_by_name(folder, damage):
    (folder / "secret").write_bytes(damage)
    stepped = SteppedCache(folder)
    assert stepped.stats.state == "off"
    assert str(folder / "secret") in stepped.lines[0]
    assert stepped.cache.lookup([key(1)]) == [None]
    assert data(folder).exists()
    assert (folder / "secret").read_bytes() == damage


def test_keys_hang_from_the_secret(folder):
    from tests.cache.test_row_cache import SIGNATURE

    keys = []
    for _ in range(2):
        stepped = SteppedCache(folder)
        generation = stepped.cache.generation(fingerprint="f", signature=SIGNATURE)
        keys += generation.row_keys([b"row"])
        stepped.close()
    other = SteppedCache(folder.parent / "other")
    keys += other.cache.generation(fingerprint="f", signature=SIGNATURE).row_keys([b"row"])
    other.close()
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("magic", integrity.NETWORK_FILE_SYSTEMS)
def test_network_file_systems_are_refused_unless_forced(tmp_path, monkeypatch, magic):
    monkeypatch.setattr(integrity.refuse_network, "__defaults__", (lambda path: magic,))
    stepped = SteppedCache(tmp_path)
    assert "network file system" in stepped.stats.why
    assert integrity.NETWORK_FILE_SYSTEMS[magic] in stepped.stats.why
    stepped = SteppedCache(tmp_path, allow_network=True)
    assert stepped.stats.state == "ok"
    stepped.close()


def test_the_magic_of_a_local_folder(tmp_path, monkeypatch):
    assert integrity.file_system_magic(tmp_path) not in (0, *integrity.NETWORK_FILE_SYSTEMS)
    assert integrity.file_system_magic(tmp_path / "nowhere") == 0


def refuse(monkeypatch, error: int, *, below: Path) -> None:
    """A file system that refuses every write under `below`, with this error."""
    real_open, real_mkdir = os.open, Path.mkdir

    def fake_open(path, flags, *more, **ways):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(below)):
            raise OSError(error, os.strerror(error), str(path))
        return real_open(path, flags, *more, **ways)

    def fake_mkdir(self, *more, **ways):
        if not self.exists() and str(self).startswith(str(below)):
            raise OSError(error, os.strerror(error), str(self))
        return real_mkdir(self, *more, **ways)

    monkeypatch.setattr(os, "open", fake_open)
    monkeypatch.setattr(Path, "mkdir", fake_mkdir)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_new_folder_that_cannot_be_written_is_off(tmp_path, monkeypatch, error):
    refuse(monkeypatch, error, below=tmp_path / "cache")
    stepped = SteppedCache(tmp_path / "cache")
    assert stepped.stats.state == "off"
    assert os.strerror(error) in stepped.stats.why
    assert len(stepped.lines) == 1
    assert stepped.cache.lookup([key(1)]) == [None]


def test_a_folder_of_a_read_only_file_system_is_read(folder, monkeypatch):
    refuse(monkeypatch, errno.EROFS, below=folder)
    stepped = SteppedCache(folder)
    assert stepped.stats.state == "read-only"
    assert len(stepped.lines) == 1
    assert stepped.threads == []
    assert stepped.cache.lookup([key(1), key(999)]) == [BODY, None]
    assert stepped.cache.keep([key(999)], [b"x"]) == 0
    assert stepped.cache.room_for([b"x"]) == 1
    stepped.close()


def test_an_empty_folder_of_a_read_only_file_system_is_off(tmp_path, monkeypatch):
    opened = SteppedCache(tmp_path, SIZE)
    opened.close()
    import shutil

    shutil.rmtree(tmp_path / "rows")
    refuse(monkeypatch, errno.EROFS, below=tmp_path)
    stepped = SteppedCache(tmp_path)
    assert "has no cache file" in stepped.stats.why


def test_a_damaged_row_of_a_read_only_cache_is_a_miss(folder, monkeypatch):
    content = data(folder).read_bytes()
    data(folder).write_bytes(content.replace(BODY[:100], b"!" * 100))
    refuse(monkeypatch, errno.EROFS, below=folder)
    stepped = SteppedCache(folder)
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.stats.bad_checksums == 1
    stepped.close()


def test_a_folder_of_others_is_off(folder, monkeypatch):
    refuse(monkeypatch, errno.EACCES, below=folder)
    stepped = SteppedCache(folder)
    assert stepped.stats.state == "off"
    assert "Permission denied" in stepped.stats.why


def test_a_disk_that_fills_while_it_is_made(tmp_path, monkeypatch):
    from rowserve.cache.lmdb_store import LmdbStore

    def full(self):
        raise StoreFailed("No space left on device")

    monkeypatch.setattr(LmdbStore, "update", full)
    stepped = SteppedCache(tmp_path)
    assert stepped.stats.described == "off: No space left on device"
    monkeypatch.undo()
    stepped = SteppedCache(tmp_path)
    assert stepped.stats.state == "ok"
    stepped.close()


LIMITED = """
import os, resource, signal, sys
from pathlib import Path
from unittest.mock import Mock
from rowserve.cache.opening import open_cache
from tests.cache.stepping import key
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lines = []
cache = open_cache(Path(sys.argv[1]), 2**26, log=lines.append, start_thread=lambda run: None)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
first = [key(i) for i in range(100)]
cache.keep(first, [bytes(4000)] * 100)
while cache.stats.queued_rows:
    cache._writer.step()
assert cache.stats.committed == 100, cache.stats
cache.keep([key(i) for i in range(1000, 1250)], [bytes(4000)] * 250)
while cache.stats.queued_rows:
    cache._writer.step()
assert cache.stats.failed, cache.stats
assert cache.stats.state == "failing", cache.stats
assert cache.lookup(first) == [bytes(4000)] * 100
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
cache._writer._paused_until = 0
cache.keep([key(5000)], [b"later"])
cache._writer.step()
assert cache.lookup([key(5000)]) == [b"later"]
assert cache.stats.state == "ok", cache.stats
assert len(lines) == 2, lines
print("went on", flush=True)
os._exit(0)
"""


def test_a_full_disk_costs_the_writes_and_one_line_and_is_got_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "went on\n", done.stderr


def test_a_later_format_is_left_alone(folder, monkeypatch):
    import json

    from rowserve.cache import layout
    from rowserve.cache.books import ABOUT, Books

    stepped = SteppedCache(folder)
    with stepped.store.update() as update:
        about = json.dumps({"size": SIZE, "secret": "", "format": 2}).encode()
        Books(update, 0).remember(layout.document_key(ABOUT), about)
    stepped.close()
    stepped = SteppedCache(folder)
    assert "format 2" in stepped.stats.why
    assert not list(folder.glob("rows.bad-*"))


def test_what_a_file_says_of_itself_may_be_nonsense(folder):
    from rowserve.cache import layout
    from rowserve.cache.books import ABOUT, Books

    stepped = SteppedCache(folder)
    with stepped.store.update() as update:
        Books(update, 0).remember(layout.document_key(ABOUT), b'{"what": 1}')
    stepped.close()
    assert "does not say what it is" in SteppedCache(folder).stats.why


def test_nothing_is_made_where_only_what_is_there_is_wanted(tmp_path):
    with pytest.raises(CacheRefused, match="no cache in"):
        Opened(tmp_path / "nowhere", existing=True)
    assert not (tmp_path / "nowhere").exists()


def test_alone_keeps_others_out(folder, monkeypatch):
    opened = Opened(folder, alone=True)
    monkeypatch.setattr(Claim.take, "__defaults__", (lambda seconds: None, 2))
    assert "being checked or changed" in SteppedCache(folder).stats.why
    opened.store.close()
    opened.close()
    stepped = SteppedCache(folder)
    with pytest.raises(CacheRefused, match="others have"):
        Opened(folder, alone=True)
    stepped.close()


def test_a_clean_end_that_cannot_be_noted_is_no_harm(folder, monkeypatch):
    stepped = SteppedCache(folder)

    def full(rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(integrity, "write_clean", full)
    stepped.close()
    monkeypatch.undo()
    stepped = SteppedCache(folder)
    assert stepped.cache.lookup([key(1)]) == [BODY]
    stepped.close()


def test_defaults_need_no_arguments(tmp_path):
    cache = open_cache(tmp_path)
    assert cache.stats.state == "ok"
    cache.close(60)
    assert opening.DEFAULT_SIZE == 4 * 2**30


def test_a_file_removed_while_it_is_in_use_is_noticed_with_or_without_a_write(folder):
    stepped = SteppedCache(folder)
    stepped.step()
    data(folder).rename(folder / "elsewhere")
    stepped.now += 1
    stepped.step()
    assert stepped.stats.state == "failing"
    assert "has been removed" in stepped.stats.why
    assert stepped.cache.lookup([key(1)]) == [BODY]  # what is open still answers
    stepped.cache.keep([key(99)], [BODY])
    stepped.step()
    assert stepped.stats.failed == 1
    (folder / "elsewhere").rename(data(folder))
    stepped.now += 5
    stepped.cache.keep([key(100)], [BODY])
    stepped.step()
    assert stepped.stats.state == "ok"
    stepped.close()


def test_a_file_cut_while_others_use_it_costs_the_cache_and_not_the_process(folder, monkeypatch):
    monkeypatch.setattr(lmdb_store, "LOOK_SECONDS", 0.0)
    stepped, other = SteppedCache(folder), Opened(folder)
    assert stepped.cache.lookup([key(1)]) == [BODY]
    os.truncate(data(folder), 8192)
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.cache.lookup_aliases([key(1)]) == [None]
    assert stepped.cache.recall(b"model") is None
    stepped.cache.keep([key(2)], [BODY])
    stepped.now += 1
    stepped.step()
    assert stepped.stats.state == "failing"
    assert "was cut" in stepped.lines[0]
    assert "others have it open" in stepped.lines[1]
    stepped.close()
    other.store.close()
    other.close()
    works_anew(folder, "was cut")


@pytest.mark.parametrize(
    "error", [lmdb.CorruptedError("x"), lmdb.PageNotFoundError("x"), lmdb.PanicError("x"), lmdb.ProblemError("x")]
)
def test_damage_found_while_others_use_the_file_ends_its_use_and_the_next_start_sets_it_aside(folder, error):
    stepped, other = SteppedCache(folder), Opened(folder)
    assert stepped.cache.lookup([key(1)]) == [BODY]
    real, stepped.cache._read = stepped.cache._read, Mock(side_effect=error)
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.cache._read = real
    assert stepped.cache.lookup([key(1)]) == [None]  # what is damaged is not touched again
    stepped.cache.keep([key(2)], [BODY])
    stepped.now += 1
    stepped.step()
    assert stepped.stats.failed == 1
    stepped.close()
    other.store.close()
    other.close()
    works_anew(folder, "is damaged: x")


def test_an_error_that_is_no_damage_leaves_the_file_in_use(folder):
    stepped = SteppedCache(folder)
    real, stepped.cache._read = stepped.cache._read, Mock(side_effect=lmdb.BadTxnError("x"))
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.cache._read = real
    assert stepped.cache.lookup([key(1)]) == [BODY]
    stepped.close()
    assert not integrity.is_clean(folder / "rows")  # the next start looks whether it is
    assert SteppedCache(folder).cache.lookup([key(1)]) == [BODY]


def test_a_damaged_row_is_reason_to_look_at_the_file(folder):
    content = data(folder).read_bytes()
    data(folder).write_bytes(content.replace(BODY[:100], b"!" * 100))
    stepped = SteppedCache(folder)
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.close()
    assert not integrity.is_clean(folder / "rows")
    stepped = SteppedCache(folder)
    stepped.close()
    assert integrity.is_clean(folder / "rows")


def test_a_new_file_is_believed_from_the_first_start_on(folder, monkeypatch):
    monkeypatch.setattr(integrity, "walk_in_child", Mock(side_effect=AssertionError("walked")))
    for _ in range(3):
        stepped = SteppedCache(folder)
        assert stepped.cache.lookup([key(1)]) == [BODY]
        stepped.close()


@pytest.mark.parametrize("error", [ValueError("no such form"), StoreFailed("Input/output error")])
def test_whatever_goes_wrong_in_a_transaction_the_next_start_looks(folder, error):
    opened = Opened(folder)
    with pytest.raises(type(error)), opened.store.view():
        raise error
    opened.store.close()
    opened.close()
    assert not integrity.is_clean(folder / "rows")


@pytest.mark.parametrize("hidden", [False, True])
def test_rows_that_cannot_be_read_back_are_reason_to_look_at_all_pages(folder, hidden):
    stepped = SteppedCache(folder)
    store = stepped.store
    real = store.view

    @contextmanager
    def view() -> Iterator[Any]:
        with real() as found:
            get = found.get
            found.get = lambda wanted: None if wanted == key(307) and hidden else get(wanted)
            yield found

    store.view = view
    stepped.cache.keep([key(number) for number in range(300, 308)], [BODY] * 8)
    stepped.settle()
    store.view = real
    stepped.close()
    assert integrity.is_clean(folder / "rows") != hidden
