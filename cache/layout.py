"""How everything stands in one ordered file: rows by key, and what is needed to find, order and drop them.

Pure, safe on any thread. One tree rather than named ones, because opening a named table takes the write lock, and a
stopped writer elsewhere must not keep a server from starting.

    32-byte key             record of a row or an alias
    PREFIX "a" + name       document: about this file, counters, descriptions of models and generations
    PREFIX "m" + key[:8]    mark: the row was hit since the hand last passed it
    PREFIX "p" + number     piece of a long record, one page each
    PREFIX "t" + number     the same order, for rows that are to be forgotten soon
    PREFIX "z" + number     order: key, birth, kind and generation of a record, oldest first

Order entries come last in the file, so they fill their pages to the brim. The prefix keeps them apart from rows: a key
that starts with it is one in 2^56.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rowserve.cache.keys import KEY_BYTES

PREFIX = b"\xff" * 7
DOCUMENTS = PREFIX + b"a"
MARKS = PREFIX + b"m"
PIECES = PREFIX + b"p"
THROW_AWAY = PREFIX + b"t"
ORDER = PREFIX + b"z"
ORDER_END = PREFIX + b"\xff"

ORDERS = ((THROW_AWAY, PREFIX + b"u"), (ORDER, ORDER_END))
"""From first to last key. What is to be forgotten soon makes room before anything else does."""

THROW_AWAY_TAG = b"away"
"""Stands beside throw-away rows where the tag of a generation stands beside others; that one of those has it by chance,
and its rows are forgotten soon, is one in 2^32."""

MARK_BYTES = 8
NUMBER = struct.Struct(">Q")
ENTRY = struct.Struct(f">{KEY_BYTES}sIB4s")


def end(prefix: bytes) -> bytes:
    """The first key behind all that start with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def document_key(name: bytes) -> bytes:
    """Where the document of that name stands."""
    return DOCUMENTS + name


def mark_key(key: bytes) -> bytes:
    """Where the mark of a row stands."""
    return MARKS + key[:MARK_BYTES]


def piece_key(number: int) -> bytes:
    """Where a piece stands."""
    return PIECES + NUMBER.pack(number)


def order_key(number: int) -> bytes:
    """Where an order entry stands."""
    return ORDER + NUMBER.pack(number)


def throw_away_key(number: int) -> bytes:
    """Where the order entry of a throw-away row stands."""
    return THROW_AWAY + NUMBER.pack(number)


def number_of(key: bytes) -> int:
    """The number of a piece or an order entry."""
    return int.from_bytes(key[len(PREFIX) + 1 :], "big")


@dataclass(frozen=True, slots=True)
class Entry:
    """One record in the order: it stands for the record of `key` first made at `born`, and for no other."""

    key: bytes
    born: int
    kind: int
    tag: bytes

    def pack(self) -> bytes:
        """As it stands in the file."""
        return ENTRY.pack(self.key, self.born, self.kind, self.tag)

    @classmethod
    def unpack(cls, value: bytes) -> Entry | None:
        """The inverse of `pack`; None where the bytes are no entry."""
        return cls(*ENTRY.unpack(value)) if len(value) == ENTRY.size else None
