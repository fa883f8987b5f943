"""Checks all pages of an LMDB file: a pure function over the file's bytes, on any thread.

LMDB believes what stands in its pages, and ends the process where that is wrong. So all that it believes is checked
here: the tree of each table with its sizes, keys and counts, the overflow pages, and the free list. No
page may lie outside the file or serve two purposes. Values are not read; their checksums are another matter.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from mmap import mmap
from operator import lt

from rowserve.cache.meta_page import METAS, Damaged, Meta, Table

HEADER = struct.Struct("<QHHHH")
HEADER_BYTES = HEADER.size
OVERFLOW_HEADER = struct.Struct("<QHHI")
BRANCH, LEAF, OVERFLOW = 1, 2, 4
NODE = struct.Struct("<HHHH")
NODE_BYTES = NODE.size
BIG = 1
NUMBER = struct.Struct("<Q")
NO_ROOT = (1 << 64) - 1
LONGEST_KEY = 511
DEEPEST = 32
INTEGER_KEYS = 0x08
FIRST, TOP = b"", b"\xff" * (LONGEST_KEY + 1)

Bytes = bytes | mmap


def check(data: Bytes, meta: Meta, check_key: Callable[[bytes], bool] = bool) -> None:
    """Check everything that `meta` leads to, in `data`: the whole file. Raises Damaged.

    `check_key` says whether a key may stand in the main table.
    """
    pages = Pages(data, meta)
    FreeList(pages, meta.free).walk()
    Tree(pages, meta.main, check_key).walk()
    pages.check_overflows(meta.main.overflow + meta.free.overflow)


class Pages:
    """The pages of a file, each to be used once."""

    def __init__(self, data: Bytes, meta: Meta) -> None:
        self.data = data
        self.size = meta.page
        self.meta = meta
        self._there = min(meta.last_page + 1, len(data) // meta.page)
        self._used = bytearray(meta.last_page + 1)
        self._used[:METAS] = b"\1" * METAS
        self._overflows = array("Q")

    def note(self, number: int, count: int = 1) -> None:
        """Pages have their use. Raises Damaged where they had one before."""
        if self._used.find(1, number, number + count) >= 0:
            raise Damaged(f"page {number} is used twice")
        self._used[number : number + count] = b"\1" * count

    def page(self, number: int) -> tuple[int, int, tuple[int, ...], int]:
        """Where a page of a tree begins, its flags, where its nodes begin and the first of them. Raises Damaged."""
        self._look_for(number)
        self.note(number)
        at = number * self.size
        own, _, flags, lower, upper = HEADER.unpack_from(self.data, at)
        if own != number or lower & 1 or not HEADER_BYTES < lower <= upper <= self.size:
            raise Damaged(f"page {number} has a damaged header")
        offsets = struct.unpack_from(f"<{(lower - HEADER_BYTES) // 2}H", self.data, at + HEADER_BYTES)
        if min(offsets) < upper or max(offsets) > self.size - NODE_BYTES:
            raise Damaged(f"page {number} points outside itself")
        return at, flags, offsets, upper

    def _look_for(self, number: int) -> None:
        if number >= self._there:
            raise Damaged(f"page {number} lies outside the file")

    def check_spans(self, spans: Sequence[tuple[int, int]], upper: int) -> None:
        """Raises Damaged unless the nodes of a page, each rounded up to two bytes, fill it from `upper` to its end."""
        edge = upper
        for offset, size in sorted(spans):
            if offset != edge:
                raise Damaged("the parts of a page overlap")
            edge = offset + size + (size & 1)
        if edge != self.size:
            raise Damaged("the parts of a page do not fill it")

    def overflow(self, number: int, size: int) -> None:
        """A value of `size` bytes has pages of its own: checked later, in the order of the file. Raises Damaged."""
        self._look_for(number)
        self._overflows.append(number << 32 | size)

    def overflow_pages(self, number: int, size: int) -> int:
        """How many pages that value has, as its first page says. Raises Damaged."""
        self._look_for(number)
        own, _, flags, count = OVERFLOW_HEADER.unpack_from(self.data, number * self.size)
        if own != number or flags != OVERFLOW or count * self.size < HEADER_BYTES + size:
            raise Damaged(f"page {number} is not the overflow page that it should be")
        self._look_for(number + count - 1)
        return int(count)

    def check_overflows(self, expected: int) -> None:
        """Raises Damaged where values' own pages are not as they should be, or not as many."""
        found = 0
        for packed in sorted(self._overflows):
            count = self.overflow_pages(packed >> 32, packed & 0xFFFFFFFF)
            self.note(packed >> 32, count)
            found += count
        if found != expected:
            raise Damaged(f"{found} overflow pages where {expected} belong")


class Tree:
    """One table: every page from its root down."""

    flags = 0
    least_children = 2

    def __init__(self, pages: Pages, table: Table, check_key: Callable[[bytes], bool] = bool) -> None:
        self.pages = pages
        self._table = table
        self._check_key = check_key
        self._branches = self._leaves = self._entries = 0

    def walk(self) -> None:
        """Check all pages. Raises Damaged."""
        table = self._table
        if table.flags != self.flags or table.depth > DEEPEST or (table.depth == 0) != (table.root == NO_ROOT):
            raise Damaged("a table is not described as it should be")
        if table.depth:
            self._page(table.root, table.depth, FIRST, TOP)
        if self._entries != table.entries:
            raise Damaged(f"{self._entries} keys where {table.entries} belong")
        if (self._branches, self._leaves) != (table.branch, table.leaf):
            raise Damaged(f"{self._branches} and {self._leaves} pages where {table.branch} and {table.leaf} belong")

    def _page(self, number: int, level: int, low: bytes, high: bytes) -> None:
        """A page whose keys must lie in low <= key < high; the leaves are at level 1."""
        at, flags, offsets, upper = self.pages.page(number)
        if level == 1 and flags == LEAF:
            self._leaf(at, offsets, upper, low, high)
        elif level > 1 and flags == BRANCH and len(offsets) >= self.least_children:
            self._branch(at, offsets, upper, level, low, high)
        else:
            raise Damaged(f"page {number} is not the page that it should be")

    def _branch(self, at: int, offsets: Sequence[int], upper: int, level: int, low: bytes, high: bytes) -> None:
        data, keys, children, spans = self.pages.data, [], [], []
        for offset in offsets:
            lowest, middle, highest, size = NODE.unpack_from(data, at + offset)
            start = at + offset + NODE_BYTES
            keys.append(self.ordered(data[start : start + size]))
            children.append(lowest | middle << 16 | highest << 32)
            spans.append((offset, NODE_BYTES + size))
        self.pages.check_spans(spans, upper)
        self._branches += 1
        keys = [low, *keys[1:], high]  # the first key counts for nothing
        rising(keys)
        for child, least, beyond in zip(children, keys[:-1], keys[1:], strict=True):
            self._page(child, level - 1, least, beyond)

    def _leaf(self, at: int, offsets: Sequence[int], upper: int, low: bytes, high: bytes) -> None:
        pages, check_key, ordered, unpack = self.pages, self._check_key, self.ordered, NODE.unpack_from
        data, keys, spans = pages.data, [], []
        for offset in offsets:
            short, long, flags, size = unpack(data, at + offset)
            start = at + offset + NODE_BYTES
            length = short | long << 16
            key = ordered(data[start : start + size])
            if flags & ~BIG or size > LONGEST_KEY or not check_key(key):
                raise Damaged("a key does not belong where it stands")
            keys.append(key)
            spans.append((offset, NODE_BYTES + size + (NUMBER.size if flags else length)))
            if flags and start + size + NUMBER.size <= at + pages.size:
                pages.overflow(NUMBER.unpack_from(data, start + size)[0], length)
        pages.check_spans(spans, upper)
        self._leaves += 1
        self._entries += len(keys)
        if keys[0] < low:
            raise Damaged("a key stands on the wrong page")
        rising([*keys, high])
        self.read(at, offsets, keys)

    @staticmethod
    def ordered(key: bytes) -> bytes:
        """A key in the form that orders as the table does."""
        return key

    def read(self, at: int, offsets: Sequence[int], keys: Sequence[bytes]) -> None:
        """A leaf whose form is good; its values count for nothing here."""


class FreeList(Tree):
    """The table of pages that are free: by the number of the transaction that freed them, highest page first."""

    flags = INTEGER_KEYS
    least_children = 1

    def __init__(self, pages: Pages, table: Table) -> None:
        super().__init__(pages, table, lambda key: len(key) == NUMBER.size)

    @staticmethod
    def ordered(key: bytes) -> bytes:
        """Numbers, little-endian in the file."""
        return key[::-1]

    def read(self, at: int, offsets: Sequence[int], keys: Sequence[bytes]) -> None:
        """The lists of pages. Raises Damaged."""
        for offset, key in zip(offsets, keys, strict=True):
            if int.from_bytes(key, "big") > self.pages.meta.transaction:
                raise Damaged("the free list is ahead of its time")
            self._note(self._value(at + offset))

    def _value(self, at: int) -> bytes:
        pages = self.pages
        short, long, flags, size = NODE.unpack_from(pages.data, at)
        start, length = at + NODE_BYTES + size, short | long << 16
        if flags:
            (number,) = NUMBER.unpack_from(pages.data, start)
            pages.overflow_pages(number, length)
            start = number * pages.size + HEADER_BYTES
        return pages.data[start : start + length]

    def _note(self, listed: bytes) -> None:
        """One list: how many pages it names, then these; those at the end of the file may never have been written."""
        count = NUMBER.unpack_from(listed)[0] if len(listed) >= NUMBER.size else len(listed)
        if (count + 1) * NUMBER.size > len(listed):
            raise Damaged("the free list has a damaged record")
        before = self.pages.meta.last_page + 1
        for (number,) in NUMBER.iter_unpack(listed[NUMBER.size : (count + 1) * NUMBER.size]):
            if number >= before:
                raise Damaged("the free list is out of order")
            self.pages.note(number)
            before = number


def rising(keys: Sequence[bytes]) -> None:
    """Raises Damaged unless each key is greater than the one before."""
    if not all(map(lt, keys, keys[1:])):
        raise Damaged("keys are out of order")
