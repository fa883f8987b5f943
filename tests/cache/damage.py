"""Cache files to be damaged, and ways to damage them. Each row follows from its number, so that a wrong one is seen."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

from blake3 import blake3

from rowserve.cache import integrity
from rowserve.cache.meta_page import Meta
from rowserve.cache.opening import open_cache
from rowserve.cache.pages import FreeList, Pages
from rowserve.cache.row_cache import RowCache
from tests.cache.stepping import MIB, key

CAP = 4 * MIB
SIZES = (100, 100, 300, 40, 1200, 100, 4000, 60, 2500, 100, 9000, 100)
ROWS = {"half full": 1500, "full": 5000}
"""How many rows are written to each file. Of the full one the oldest have been evicted."""

ALIAS = 1_000_000
PAGE = 4096


@cache
def row_key(number: int) -> bytes:
    """The key of a row."""
    return key(number)


@cache
def row(number: int) -> bytes:
    """The one right answer for that key."""
    return blake3(b"row %d" % number).digest(SIZES[number % len(SIZES)])


def keep(cache: RowCache, numbers: range) -> None:
    """Write rows, and an alias for one in ten, by the writer thread's own steps."""
    writer = cache._writer
    assert writer is not None
    cache.keep([row_key(number) for number in numbers], [row(number) for number in numbers])
    uploads = numbers[::10]
    cache.keep_aliases([row_key(ALIAS + number) for number in uploads], [row_key(number) for number in uploads])
    while cache.stats.queued_rows:
        writer.step()
    writer.step()


def build(folder: Path, rows: int) -> None:
    """A cache file in many commits, let go of in good order."""
    cache = open_cache(folder, CAP, start_thread=lambda run: None)
    cache.remember(b"model", b"a description")
    for start in range(0, rows, 100):
        keep(cache, range(start, start + 100))
    for start in range(0, rows, 500):
        keep(cache, range(start, start + 25))  # anew: what they took is free
    assert cache.stats.state == "ok", cache.stats
    assert cache._writer is not None
    cache._writer.finished.set()
    cache.close()


def newest(data: Path) -> Meta:
    """The meta page that counts."""
    found = integrity.read_meta(data)
    assert found is not None
    return found[0]


class Seen(Pages):
    """Notes which pages are those of a tree."""

    def __init__(self, data: bytes, meta: Meta) -> None:
        super().__init__(data, meta)
        self.numbers: list[int] = []

    def page(self, number: int) -> tuple[int, int, tuple[int, ...], int]:
        self.numbers.append(number)
        return super().page(number)

    def overflow_pages(self, number: int, size: int) -> int:
        count = super().overflow_pages(number, size)
        self.numbers += range(number, number + count)
        return count


def free_list_pages(content: bytes, meta: Meta) -> list[int]:
    """Where the free list stands."""
    seen = Seen(content, meta)
    FreeList(seen, meta.free).walk()
    return seen.numbers


def tree_pages(content: bytes | bytearray) -> list[int]:
    """Pages that say that they are of a tree, in use or not."""
    numbers = range(2, len(content) // PAGE)
    return [number for number in numbers if content[number * PAGE + 10] in (1, 2)]


def flip_bits(content: bytearray, rng: random.Random, meta: Meta) -> None:
    """Bits of one page, of a tree, or anywhere."""
    start, span = 0, len(content)
    if rng.random() < 0.5:
        start, span = rng.choice([0, 1, *tree_pages(content)]) * PAGE, rng.choice([32, 256, PAGE])
    for _ in range(rng.choice([1, 1, 2, 8, 40])):
        content[start + rng.randrange(span)] ^= 1 << rng.randrange(8)


def swap_pages(content: bytearray, rng: random.Random, meta: Meta) -> None:
    """Up to four times two pages, whole; in some files they say the right number of their new place."""
    numbered = rng.random() < 0.3
    for _ in range(rng.choice([1, 1, 2, 4])):
        numbers = tree_pages(content) if rng.random() < 0.5 else range(len(content) // PAGE)
        one, other = rng.sample(numbers, 2)
        first, second = (slice(number * PAGE, (number + 1) * PAGE) for number in (one, other))
        content[first], content[second] = content[second], content[first]
        for number in (one, other):
            if numbered and number > 1:
                struct.pack_into("<Q", content, number * PAGE, number)


def zero_pages(content: bytearray, rng: random.Random, meta: Meta) -> None:
    """A few pages in a row."""
    numbers = tree_pages(content) if rng.random() < 0.5 else range(len(content) // PAGE)
    at = rng.choice(numbers) * PAGE
    end = min(at + rng.choice([1, 1, 2, 8]) * PAGE, len(content))
    content[at:end] = bytes(end - at)


def cut(content: bytearray, rng: random.Random, meta: Meta) -> None:
    """The end is missing: a page, a part of one, or most of the file."""
    end = len(content) - rng.choice([1, PAGE, 5 * PAGE, rng.randrange(1, len(content))])
    del content[end:]


def harm_free_list(content: bytearray, rng: random.Random, meta: Meta) -> None:
    """Its pages: bits, page numbers that are wrong, nothing but zeros, or what stands elsewhere."""
    page = rng.choice(free_list_pages(bytes(content), meta)) * PAGE
    how = rng.choice(["bits", "numbers", "numbers", "zeros", "elsewhere"])
    if how == "bits":
        for _ in range(rng.choice([1, 4, 20])):
            content[page + rng.randrange(PAGE)] ^= 1 << rng.randrange(8)
    elif how == "numbers":
        for _ in range(rng.choice([1, 4, 20])):
            struct.pack_into("<Q", content, page + 8 * rng.randrange(2, PAGE // 8), rng.randrange(meta.last_page + 2))
    elif how == "zeros":
        content[page : page + PAGE] = bytes(PAGE)
    else:
        other = rng.randrange(len(content) // PAGE) * PAGE
        content[page : page + PAGE] = content[other : other + PAGE]


KINDS: dict[str, Callable[[bytearray, random.Random, Meta], None]] = {
    "bits": flip_bits,
    "pages swapped": swap_pages,
    "pages zeroed": zero_pages,
    "cut": cut,
    "free list": harm_free_list,
}
MARKS = ("clean", "unclean")


def damaged_copy(source: Path, target: Path, kind: str, mark: str, rng: random.Random) -> None:
    """A copy of a whole cache folder whose file is damaged; behind a clean mark nothing shows from outside."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    rows = target / integrity.ROWS
    data = rows / integrity.DATA
    content = bytearray(data.read_bytes())
    KINDS[kind](content, rng, newest(data))
    data.write_bytes(content)
    if mark == "clean":
        integrity.write_clean(rows)
    else:
        integrity.drop_clean(rows)
