from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import pytest

from rowserve.cache import integrity, walk
from rowserve.cache.errors import CacheRefused, WalkEnded
from rowserve.cache.integrity import Claim
from rowserve.cache.meta_page import LAST_PAGE_AT, Meta
from tests.cache.stepping import key


@pytest.fixture
def rows(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    env = lmdb.open(str(rows), map_size=2**20 * 5)
    for start in range(0, 200, 20):
        with env.begin(write=True) as txn:
            for number in range(start, start + 20):
                txn.put(key(number), bytes(3000))
    info = env.info()
    env.close()
    return rows, info


def metas_of(path: Path) -> tuple[Meta, int]:
    found = integrity.read_meta(path)
    assert found is not None
    return found


def test_the_meta_page_says_what_lmdb_says(rows):
    folder, info = rows
    meta, size = metas_of(folder / "data.mdb")
    assert (meta.page, meta.map_size) == (4096, info["map_size"])
    assert (meta.last_page, meta.transaction) == (info["last_pgno"], info["last_txnid"])
    assert meta.file_bytes == size == (folder / "data.mdb").stat().st_size


def test_one_byte_short_is_truncated(rows):
    path = rows[0] / "data.mdb"
    integrity.write_clean(rows[0])
    os.truncate(path, path.stat().st_size - 1)
    for alone in (True, False):
        with pytest.raises(CacheRefused, match="truncated"):
            integrity.check(rows[0], alone)


def test_what_a_short_file_lacks_may_be_free_pages(tmp_path):
    """LMDB never writes a page that it takes and gives back in one transaction, at the end of the file either."""
    env = lmdb.open(str(tmp_path), map_size=2**24)
    short = False
    for turn in range(40):
        with env.begin(write=True) as txn:
            for number in range(turn * 50):
                txn.put(key(number), bytes(1000))
            for number in range(turn * 50 - turn):
                txn.delete(key(number))
        meta, size = metas_of(tmp_path / "data.mdb")
        short |= size < meta.file_bytes
        assert integrity.check(tmp_path, True) == meta
    env.close()
    assert short


def test_first_pages_that_contradict_each_other(rows):
    path = rows[0] / "data.mdb"
    content = bytearray(path.read_bytes())
    (transaction,) = struct.unpack_from("<Q", content, 4096 + 16 + 24 + 2 * 48 + 8)
    struct.pack_into("<Q", content, 4096 + 16 + 24 + 2 * 48 + 8, transaction + 4)
    path.write_bytes(content)
    with pytest.raises(CacheRefused, match="contradict"):
        integrity.read_meta(path)
    assert integrity.read_meta(path, alone=False)


def test_a_mark_keeps_everybody_off(rows):
    integrity.write_clean(rows[0])
    integrity.leave_mark(rows[0], "a page was not found")
    integrity.leave_mark(rows[0] / "nowhere", "no harm")
    for alone in (True, False):
        with pytest.raises(CacheRefused, match="a page was not found"):
            integrity.check(rows[0], alone)


@pytest.mark.parametrize(
    ("at", "form", "value", "why"),
    [
        (16, "<I", 0, "not a cache file"),
        (20, "<I", 3, "not a cache file"),
        (10, "<H", 0, "not a cache file"),
        (40, "<I", 0, "damaged first page"),
        (40, "<I", 4095, "damaged first page"),
        (40, "<I", 131072, "damaged first page"),
        (32, "<Q", 4096, "damaged first page"),
        (LAST_PAGE_AT, "<Q", 2**40, "damaged first page"),
    ],
)
def test_a_damaged_meta_page(rows, at, form, value, why):
    path = rows[0] / "data.mdb"
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(form, value))
    with pytest.raises(CacheRefused, match=why):
        integrity.read_meta(path)


def walked(rows: Path) -> str:
    with pytest.raises(CacheRefused) as caught:
        integrity.walk_in_child(rows)
    return str(caught.value)


def test_a_good_file_is_walked_to_its_end(rows):
    walk.check_file(rows[0] / "data.mdb")
    integrity.walk_in_child(rows[0])


def test_keys_out_of_order_are_found(rows):
    path = rows[0] / "data.mdb"
    content = path.read_bytes()
    low, high = sorted([key(0), key(1)])
    assert content.count(low)
    path.write_bytes(content.replace(low, high))
    assert "keys are out of order" in walked(rows[0])


def test_a_wrong_count_is_found(rows):
    path = rows[0] / "data.mdb"
    content = bytearray(path.read_bytes())
    meta, _ = metas_of(path)
    newer = meta.transaction & 1
    entries = newer * 4096 + 16 + 24 + 48 + 32
    assert struct.unpack_from("<Q", content, entries) == (200,)
    struct.pack_into("<Q", content, entries, 201)
    path.write_bytes(content)
    assert "200 keys where 201 belong" in walked(rows[0])


def test_what_lmdb_refuses_is_found(rows):
    (rows[0] / "data.mdb").write_bytes(bytes(9000))
    assert "not a cache file" in walked(rows[0])


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "ends with signal 7"),
        ("raise SystemExit('torn page')", "torn page"),
        ("raise SystemExit(3)", "no reason given"),
        ("while True: pass", "could not be read within 1 s"),
    ],
)
def test_a_walk_that_ends_badly(rows, tmp_path, monkeypatch, program, why):
    script = tmp_path / "program.py"
    script.write_text(program)
    monkeypatch.setattr(integrity, "WALK", (str(script),))
    with pytest.raises(CacheRefused, match=why):
        integrity.walk_in_child(rows[0], 1.0 if "while" in program else 60.0)


@pytest.mark.parametrize("words", [(), (walk.BESIDE,)])
def test_the_walk_is_a_program(rows, monkeypatch, capsys, words):
    done = subprocess.run(integrity.walk_command(rows[0], *words), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(walk, "be_patient", lambda: None)
    monkeypatch.setattr(sys, "argv", ["walk", str(rows[0]), *words])
    walk.main()
    assert capsys.readouterr().out == ('{"checked": 200, "damaged": ' + str(damaged_keys()) + "}\n" if words else "")
    monkeypatch.setattr(sys, "argv", ["walk", str(rows[0] / "nowhere"), *words])
    with pytest.raises(SystemExit):
        walk.main()


def damaged_keys() -> str:
    """None of the rows here has a checksum."""
    return "[" + ", ".join(f'"{each.hex()}"' for each in sorted(map(key, range(200)))) + "]"


def test_a_walk_beside_a_writer_sees_one_state(rows):
    env = lmdb.open(str(rows[0]), map_size=2**20 * 5)
    for start in range(0, 200, 20):
        with env.begin(write=True) as txn:
            for number in range(start, start + 20):
                txn.delete(key(number))
                txn.put(key(1000 + number), bytes(2000))
        integrity.walk_in_child(rows[0], beside=True)
    env.close()


def test_clean_means_untouched(rows):
    folder = rows[0]
    assert not integrity.is_clean(folder)
    integrity.write_clean(folder)
    assert integrity.is_clean(folder)
    with (folder / "data.mdb").open("r+b") as file:
        file.write(file.read(1))
    os.utime(folder / "data.mdb", ns=(1, 1))
    assert not integrity.is_clean(folder)
    (folder / "clean").write_text("{junk")
    assert not integrity.is_clean(folder)
    integrity.drop_clean(folder)
    integrity.drop_clean(folder)
    assert not (folder / "clean").exists()


def test_a_claim_is_alone_or_shared(tmp_path):
    first, second = Claim(tmp_path), Claim(tmp_path)
    first.take()
    assert first.alone
    with pytest.raises(CacheRefused, match="being checked"):
        second.take(wait=lambda seconds: None, patience=2)
    assert first.share()
    second.take()
    assert not second.alone
    assert not second.take_alone()
    first.release()
    assert second.take_alone()
    second.release()


def test_it_waits_for_who_is_alone(tmp_path):
    first, second = Claim(tmp_path), Claim(tmp_path)
    first.take()
    second.take(wait=lambda seconds: first.release())
    assert second.alone
    second.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_walk_that_somebody_ends_says_nothing_of_the_file(rows, number):
    for _ in range(2):
        with pytest.raises(WalkEnded, match=f"ended by signal {number}"):
            integrity.walked(rows[0], -number, "")
    with pytest.raises(CacheRefused, match="signal 7"):
        integrity.walked(rows[0], -signal.SIGBUS, "")


def test_a_clean_end_is_believed_while_somebody_has_walked_the_file_lately(rows):
    folder = rows[0]
    walks: list[bool] = []

    def looked(age: float = 0.0) -> int:
        """How many looks it takes to open the file, `age` seconds later."""
        before = len(walks)
        integrity.check(folder, True, lambda: time.time() + age)
        return len(walks) - before

    real = integrity.walk_in_child
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "walk_in_child", lambda rows, **ways: (walks.append(True), real(rows, **ways)))
        integrity.write_clean(folder)
        assert looked() == 1  # a mark of old, or of a file that nobody has looked at
        assert looked(integrity.TRUST_SECONDS - 60) == 0
        assert looked(integrity.TRUST_SECONDS + 60) == 1
        os.utime(folder / integrity.WALKED, (time.time() + 3600,) * 2)  # the clock was wrong then, or is now
        assert looked() == 1
        (folder / integrity.CLEAN).unlink()
        assert looked() == 1


def test_a_walk_that_finds_damage_is_not_noted(rows):
    (rows[0] / integrity.WALKED).unlink(missing_ok=True)
    with pytest.raises(CacheRefused):
        integrity.walked(rows[0], 1, "a page is used twice")
    assert not integrity.walked_lately(rows[0])
    integrity.walked(rows[0], 0, "")
    assert integrity.walked_lately(rows[0])
    integrity.note_walked(rows[0] / "nowhere")  # no harm
