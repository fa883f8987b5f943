"""The walk over pages: no good file is refused, and what would harm LMDB is found."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.cache import layout, walk
from rowserve.cache.meta_page import Damaged, Meta, check_metas, parse_meta
from rowserve.cache.pages import check
from tests.cache.stepping import key

PAGE = 4096
SIZES = [(10,), (4000,), (10, 4000, 30, 9000), (9000, 20_000), (2030, 2000, 1990, 1000, 500)]


def newest(content: bytes) -> Meta:
    first, second = (parse_meta(content[at : at + PAGE], "it") for at in (0, PAGE))
    check_metas(first, second)
    return max(first, second, key=lambda meta: meta.transaction)


def work(folder: Path, seed: int) -> None:
    """Random commits, some broken off, some beside a reader; after each the file must pass."""
    rng = random.Random(seed)
    env = lmdb.open(str(folder), map_size=2**26, sync=False)
    keys: list[bytes] = []
    sizes, reader = rng.choice(SIZES), None
    for _ in range(rng.randrange(3, 40)):
        with env.begin(write=True) as txn:
            for _ in range(rng.choice([1, 5, 50, 300])):
                if keys and rng.random() < rng.choice([0.2, 0.5, 0.8]):
                    txn.delete(keys.pop(rng.randrange(len(keys))))
                else:
                    keys.append(rng.randbytes(rng.choice([32, 16, 1, 511, 200])))
                    txn.put(keys[-1], rng.randbytes(rng.choice(sizes)) if rng.random() < 0.9 else b"")
            if rng.random() < 0.1:
                txn.abort()
        if rng.random() < 0.2:
            if reader:
                reader.abort()
            reader = None if reader else env.begin()
        content = (folder / "data.mdb").read_bytes()
        check(content, newest(content))
    if reader:
        reader.abort()
    env.close()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_no_good_file_is_refused(tmp_path_factory, seed):
    work(tmp_path_factory.mktemp("good"), seed)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("file")
    env = lmdb.open(str(folder), map_size=2**24)
    for turn in range(4):
        with env.begin(write=True) as txn:
            for number in range(300):
                txn.put(key(number), bytes([turn]) * (4000 if number % 3 else 100))
            for number in range(0, 250, 1 + turn):
                txn.delete(key(number))
    env.close()
    return (folder / "data.mdb").read_bytes()


def test_a_new_file(tmp_path):
    lmdb.open(str(tmp_path)).close()
    content = (tmp_path / "data.mdb").read_bytes()
    check(content, newest(content))


def pages_of(content: bytes, kind: int) -> list[int]:
    return [at for at in range(2 * PAGE, len(content), PAGE) if struct.unpack_from("<H", content, at + 10) == (kind,)]


def refused(content: bytearray) -> str:
    with pytest.raises(Damaged) as caught:
        check(bytes(content), newest(bytes(content)))
    return str(caught.value)


@pytest.mark.parametrize("kind", [1, 2, 4])
@pytest.mark.parametrize(("at", "form"), [(0, "<Q"), (10, "<H"), (12, "<H"), (14, "<H"), (16, "<H")])
def test_one_wrong_field_in_a_used_page(content, kind, at, form):
    if kind == 4 and at > 10:
        at, form = 12, "<I"
    found = 0
    for page in pages_of(content, kind):
        broken = bytearray(content)
        (value,) = struct.unpack_from(form, broken, page + at)
        struct.pack_into(form, broken, page + at, value ^ (1 if kind == 4 else 4))
        try:
            check(bytes(broken), newest(bytes(broken)))
        except Damaged:
            found += 1
    assert found


def test_a_key_check_decides(content):
    with pytest.raises(Damaged, match="does not belong"):
        check(content, newest(content), lambda key: False)


def test_a_missing_end(content):
    assert "outside the file" in refused(bytearray(content[: len(content) // 2]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({0: 0xFFFF}, "damaged record"),
        ({1: 2**40}, "out of order"),
        ({2: 2**40}, "out of order"),
        ({1: 1}, "out of order|used twice"),
    ],
)
def test_the_free_list(content, change, why):
    meta = newest(content)
    leaf = meta.free.root * PAGE
    (offset,) = struct.unpack_from("<H", content, leaf + 16)
    values = leaf + offset + 8 + 8
    broken = bytearray(content)
    (count,) = struct.unpack_from("<Q", broken, values)
    assert count > 2
    for place, value in change.items():
        struct.pack_into("<Q", broken, values + 8 * place, value)
    with pytest.raises(Damaged, match=why):
        check(bytes(broken), meta)


def test_a_free_page_that_is_used(content):
    meta = newest(content)
    leaf = meta.free.root * PAGE
    (offset,) = struct.unpack_from("<H", content, leaf + 16)
    broken = bytearray(content)
    (count,) = struct.unpack_from("<Q", broken, leaf + offset + 16)
    struct.pack_into("<Q", broken, leaf + offset + 16 + 8 * count, 2)  # the lowest page that is not a first one
    check_result = refused(broken) if meta.main.root != 2 else "used twice"
    assert "used twice" in check_result or "free" in check_result


def test_the_free_list_knows_no_future(content):
    meta = newest(content)
    leaf = meta.free.root * PAGE
    count = (struct.unpack_from("<H", content, leaf + 12)[0] - 16) // 2
    (offset,) = struct.unpack_from("<H", content, leaf + 16 + 2 * (count - 1))
    broken = bytearray(content)
    struct.pack_into("<Q", broken, leaf + offset + 8, meta.transaction + 1)
    assert "ahead of its time" in refused(broken)


def test_the_forms_of_keys_are_those_of_the_layout():
    good = [b"k" * 32, layout.mark_key(b"k" * 32), layout.piece_key(1), layout.order_key(2)]
    for each in [*good, layout.document_key(b"\0about")]:
        keys = walk.Keys()
        keys.look(each)
        assert not keys.strange
    assert keys.ours
    for each in (b"k" * 31, layout.PREFIX + b"{" + bytes(8), layout.order_key(2) + b"x", b"short"):
        keys = walk.Keys()
        keys.look(each)
        assert keys.strange
