"""What an LMDB file says of itself in its first two pages. Pure, safe on any thread."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rowserve.cache.errors import CacheRefused

MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
META_FLAG = 0x08
METAS = 2
# Of a meta page: page header (number, padding, flags), then magic, version, address, map size; two tables; last page.
META = struct.Struct("<QHHIIIQQ")
TABLE = struct.Struct("<IHHQQQQQ")
FREE_AT = META.size
MAIN_AT = FREE_AT + TABLE.size
LAST_PAGE = struct.Struct("<QQ")
LAST_PAGE_AT = MAIN_AT + TABLE.size


class Damaged(Exception):
    """The file must not be used; the message says what is wrong, in one line."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a meta page says of one table."""

    flags: int
    depth: int
    branch: int
    leaf: int
    overflow: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class Meta:
    """What a meta page says: the last page that the file should have, the size of its map, and its tables."""

    page: int
    map_size: int
    last_page: int
    transaction: int
    free: Table
    main: Table

    @property
    def file_bytes(self) -> int:
        """The least size of the file."""
        return (self.last_page + 1) * self.page


def parse_meta(page: bytes, name: object) -> Meta:
    """One meta page. Raises CacheRefused, which names the file."""
    if len(page) < LAST_PAGE_AT + LAST_PAGE.size:
        raise CacheRefused(f"{name} is truncated: it ends inside its first pages")
    _, _, flags, _, magic, version, _, map_size = META.unpack_from(page)
    size, *free = TABLE.unpack_from(page, FREE_AT)
    _, *main = TABLE.unpack_from(page, MAIN_AT)
    last, transaction = LAST_PAGE.unpack_from(page, LAST_PAGE_AT)
    if magic != MAGIC or version != DATA_VERSION or not flags & META_FLAG:
        raise CacheRefused(f"{name} is not a cache file")
    if size < 512 or size & (size - 1) or size > 65536 or map_size < (last + 1) * size:
        raise CacheRefused(f"{name} has a damaged first page")
    return Meta(size, map_size, last, transaction, Table(*free), Table(*main))


def check_metas(first: Meta, second: Meta) -> None:
    """Raises Damaged where two meta pages cannot be of the same file, one commit after the other."""
    one, other = first.transaction, second.transaction
    in_turn = one == other == 0 or (not one & 1 and other & 1 and abs(one - other) == 1)
    if (first.page, first.map_size) != (second.page, second.map_size) or not in_turn:
        raise Damaged("its first pages contradict each other")
