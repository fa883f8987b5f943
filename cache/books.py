"""Putting records into an update and taking them out, with their pieces, order, marks and counters.

Cache writer thread, inside one update of a store.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rowserve.cache import layout
from rowserve.cache.layout import Entry
from rowserve.cache.record import (
    HEADER_BYTES,
    PAGE,
    Kind,
    Stamp,
    kind_of,
    pieces_needed,
    pieces_of,
    seal,
    stamp_of,
    unseal_any,
)
from rowserve.cache.store import Update, View
from rowserve.graphs.rows import Buffer

ABOUT = b"\0about"
COUNTERS = b"\0counters"
MOST_PIECES = 1 << 14
"""More than the longest row that is kept; a header that says more is damaged."""

LAST_NUMBER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class About:
    """What a file says of itself: the form of its contents, its cap in bytes, and which secret it belongs to."""

    size: int
    secret: str
    format: int = 1


@dataclass(slots=True)
class Counters:
    """What stands in the file: rows and aliases now; evicted since the file was made."""

    rows: int = 0
    aliases: int = 0
    evicted: int = 0

    _STRUCT = struct.Struct(">QQQ")

    def pack(self) -> bytes:
        """As kept."""
        return self._STRUCT.pack(max(self.rows, 0), max(self.aliases, 0), self.evicted)

    def add(self, kind: int, change: int) -> None:
        """Count a record in or out."""
        if kind == Kind.ROW:
            self.rows += change
        elif kind == Kind.ALIAS:
            self.aliases += change


def read_document(view: View, name: bytes) -> bytes | None:
    """The document of that name; None when there is none, or a damaged one."""
    key = layout.document_key(name)
    value = view.get(key)
    if value is None:
        return None
    body = unseal_any(Kind.DOCUMENT, key, value, read_pieces(view, value))
    return None if body is None else bytes(body)


def read_pieces(view: View, value: bytes) -> list[bytes]:
    """The pieces of a record, as far as they are there."""
    first, count = pieces_of(value)
    if not 0 < count <= MOST_PIECES or first > LAST_NUMBER - count:
        return []
    pairs = view.scan(layout.piece_key(first), layout.piece_key(first + count), count)
    return [piece for _, piece in pairs]


def read_about(view: View) -> About | None:
    """What the file says of itself, None when it says nothing that can be understood."""
    document = read_document(view, ABOUT)
    try:
        return None if document is None else About(**json.loads(document))
    except (ValueError, TypeError):
        return None


def read_counters(view: View) -> Counters:
    """The file's counters; damaged ones start again at zero."""
    document = read_document(view, COUNTERS)
    fields: Any = () if document is None else Counters._STRUCT.unpack(document)
    return Counters(*fields)


def pages_needed(body_bytes: int) -> int:
    """New pages that a record may take at most: its own, and a split of the index."""
    if body_bytes + HEADER_BYTES <= PAGE // 3:
        return 2
    return 2 + 1 + pieces_needed(body_bytes)


class Books:
    """One update: whatever is put in or dropped is counted and ordered. `finish` before the update ends."""

    def __init__(self, update: Update, now: int) -> None:
        self.update = update
        self.now = now
        self.counters = read_counters(update)
        self._order = max(self._next(start, stop) for start, stop in layout.ORDERS)
        self._piece = self._next(layout.PIECES, layout.end(layout.PIECES))
        self._lined_up: list[tuple[bytes, bytes]] = []

    def _next(self, start: bytes, stop: bytes) -> int:
        last = self.update.last(start, stop)
        return 0 if last is None else layout.number_of(last) + 1

    def put(self, kind: Kind, key: bytes, body: Buffer, tag: bytes) -> None:
        """Write a record; one that was there keeps its place in the order."""
        now, update = self.now, self.update
        value, pieces = seal(kind, key, Stamp(now, now, tag), body, self._piece)
        if not update.add(key, value):
            old = update.get(key)
            if old is not None and kind_of(old) == kind:
                self._drop_pieces(old)
                self._write(kind, key, Stamp(now, stamp_of(old).born, tag), body)
                return
            update.put(key, value)
        self._put_pieces(pieces)
        self.counters.add(kind, 1)
        self.line_up(Entry(key, now, int(kind), tag))

    def _write(self, kind: Kind, key: bytes, stamp: Stamp, body: Buffer) -> None:
        value, pieces = seal(kind, key, stamp, body, self._piece)
        self.update.put(key, value)
        self._put_pieces(pieces)

    def _put_pieces(self, pieces: Sequence[Buffer]) -> None:
        for piece in pieces:
            self.update.put(layout.piece_key(self._piece), piece)
            self._piece += 1

    def line_up(self, entry: Entry) -> None:
        """Put at the end of its order, when the update finishes."""
        if entry.tag == layout.THROW_AWAY_TAG:
            self.update.put(layout.throw_away_key(self._order), entry.pack())
        else:
            self._lined_up.append((layout.order_key(self._order), entry.pack()))
        self._order += 1

    def owns(self, entry: Entry) -> bool:
        """Whether the record that the entry was made for still stands."""
        value = self.update.get(entry.key)
        return value is not None and kind_of(value) == entry.kind and stamp_of(value).born == entry.born

    def drop(self, key: bytes) -> int:
        """Delete a record and its pieces; the bytes it had. Its order entry goes when the hand comes by."""
        value = self.update.get(key)
        if value is None:
            return 0
        pieces = self._drop_pieces(value)
        self.update.delete(key)
        self.counters.add(kind_of(value), -1)
        return len(key) + len(value) + pieces * PAGE

    def drop_if_damaged(self, key: bytes) -> None:
        """Delete a record that is not as it was written; a good one stays."""
        value = self.update.get(key)
        if value is not None and unseal_any(kind_of(value), key, value, read_pieces(self.update, value)) is None:
            self.drop(key)

    def _drop_pieces(self, value: bytes) -> int:
        first, count = pieces_of(value)
        if count > MOST_PIECES or first > LAST_NUMBER - count:
            return 0  # a damaged header
        return sum(self.update.delete(layout.piece_key(number)) for number in range(first, first + count))

    def remember(self, key: bytes, document: Buffer) -> None:
        """Write a document under its `layout.document_key`, over one of the same name."""
        old = self.update.get(key)
        if old is not None:
            self._drop_pieces(old)
        self._write(Kind.DOCUMENT, key, Stamp(self.now, self.now), document)

    def mark(self, key: bytes) -> bool:
        """Note that a row was hit; False where that is noted already, or the row is gone."""
        place = layout.mark_key(key)
        if self.update.get(place) is not None or self.update.get(key) is None:
            return False
        self.update.put(place, b"")
        return True

    def describe(self, about: About) -> None:
        """Write what the file says of itself."""
        self.remember(layout.document_key(ABOUT), json.dumps(asdict(about)).encode())

    def finish(self) -> Counters:
        """Write the order and the counters."""
        self.update.append(self._lined_up)
        self._lined_up = []
        self.remember(layout.document_key(COUNTERS), self.counters.pack())
        return self.counters


def served_names(document: bytes | None) -> list[str]:
    """The names in a generation's document, the latest last; a file of before has none."""
    return list(json.loads(document).get("models", ())) if document else []


def generation_name(tag: bytes) -> bytes:
    """The document that says what a tag stands for."""
    return b"generation/" + tag.hex().encode()
