"""What `rowserve cache` does: stat, ls, verify, purge, explain; `resizing` has the rest.

A tool's own thread, beside programs that use the same file: everything goes in small steps, so that no read pins pages
for long and no write keeps others waiting.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowserve.cache import integrity, layout
from rowserve.cache.books import (
    ABOUT,
    COUNTERS,
    Books,
    generation_name,
    read_about,
    read_counters,
    read_document,
    read_pieces,
)
from rowserve.cache.errors import CacheRefused
from rowserve.cache.integrity import Claim
from rowserve.cache.keys import Field, Generation
from rowserve.cache.layout import Entry
from rowserve.cache.opening import Opened
from rowserve.cache.record import Kind, kind_of, stamp_of, unseal_any
from rowserve.cache.store import Store, View
from rowserve.graphs.rows import Buffer

CHUNK = 256
KINDS: Mapping[int, str] = {Kind.ROW: "row", Kind.ALIAS: "alias", Kind.DOCUMENT: "document"}


@dataclass(frozen=True, slots=True)
class Report:
    """What `stat` prints. Sizes are in bytes; `generations` counts rows and aliases by tag (hex).

    `names` says what each tag stands for: fingerprint, signature, and `models`, the last names it was served under.
    One tag is that of all throw-away rows.
    """

    size: int
    map_size: int
    used: int
    file: int
    rows: int
    aliases: int
    evicted: int
    generations: Mapping[str, int]
    names: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Listed:
    """One record: `created` in seconds since 1970; `hit` is whether a hit is noted since the hand last passed it.

    Hits are noted in the file only while it is nearly full, and the hand moves.
    """

    key: str
    kind: str
    created: int
    bytes: int
    generation: str
    hit: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """How many records were read, and the keys of the damaged ones."""

    checked: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row's key, the framed fields it hangs from (never the secret), and where the row stands."""

    key: str
    generation: str
    fields: tuple[Field, ...]
    row_bytes: int
    state: str
    listed: Listed | None

    def lines(self) -> Iterator[str]:
        """As text."""
        yield f"key         {self.key}"
        yield f"generation  {self.generation}"
        for field in self.fields:
            yield f"  {field.label:<12}{field.name:<20} {len(field.content):>8} bytes  {field.digest}"
        yield f"  {'row':<12}{'':<20} {self.row_bytes:>8} bytes"
        yield f"state       {self.state}"


def pairs(store: Store, start: bytes, stop: bytes, values: bool = True) -> Iterator[tuple[bytes, bytes]]:
    """All pairs of a range, a short transaction for each chunk."""
    while True:
        with store.view() as view:
            chunk = view.scan(start, stop, CHUNK, values)
        yield from chunk
        if len(chunk) < CHUNK:
            return
        start = chunk[-1][0] + b"\0"


def entries(store: Store) -> Iterator[tuple[bytes, Entry]]:
    """The orders, each oldest first."""
    for start, stop in layout.ORDERS:
        for place, value in pairs(store, start, stop):
            entry = Entry.unpack(value)
            if entry is not None:
                yield place, entry


def stat(store: Store) -> Report:
    """What stands in the file."""
    with store.view() as view:
        about, counters = read_about(view), read_counters(view)
    if about is None:
        raise CacheRefused("the file does not say what it is")
    tags = Counter(entry.tag.hex() for _, entry in entries(store))
    known = names(store)
    if layout.THROW_AWAY_TAG.hex() in tags:
        known[layout.THROW_AWAY_TAG.hex()] = {"signature": "any", "fingerprint": "throw-away rows"}
    space = store.space()
    return Report(
        about.size,
        space.map * space.page,
        space.used * space.page,
        space.file * space.page,
        counters.rows,
        counters.aliases,
        counters.evicted,
        dict(tags),
        known,
    )


def names(store: Store) -> dict[str, dict[str, Any]]:
    """What the tags stand for, as far as the file knows."""
    found = {}
    start = layout.document_key(generation_name(b""))
    for key, _ in list(pairs(store, start, layout.end(start), values=False)):
        with store.view() as view:
            document = read_document(view, key[len(layout.DOCUMENTS) :])
        if document is not None:
            found[key[len(start) :].decode(errors="replace")] = json.loads(document)
    return found


def ls(store: Store, generation: str = "") -> Iterator[Listed]:
    """The records, oldest first; those of one generation where its tag is given (hex)."""
    for _, entry in entries(store):
        if generation and entry.tag.hex() != generation:
            continue
        with store.view() as view:
            listed = look(view, entry.key)
        if listed is not None:
            yield listed


def look(view: View, key: bytes) -> Listed | None:
    """One record as listed; None where there is none, or only a damaged one."""
    value = view.get(key)
    if value is None:
        return None
    body = unseal_any(kind_of(value), key, value, read_pieces(view, value))
    if body is None:
        return None
    stamp = stamp_of(value)
    hit = view.get(layout.mark_key(key)) is not None
    kind = KINDS.get(kind_of(value), "unknown")
    return Listed(key.hex(), kind, stamp.created, len(body), stamp.tag.hex(), hit)


def verify(store: Store, drop: bool = False, seen: Callable[[], object] = lambda: None) -> Verified:
    """Check every record; with `drop`, delete the damaged ones. `seen` is called for each."""
    checked, damaged = 0, []
    ends = ((b"", layout.DOCUMENTS), (layout.DOCUMENTS, layout.end(layout.DOCUMENTS)))
    for start, stop in ends:
        for key, _ in pairs(store, start, stop, values=False):
            with store.view() as view:
                value = view.get(key)
                if value is None:
                    continue  # evicted meanwhile
                checked += 1
                seen()
                if unseal_any(kind_of(value), key, value, read_pieces(view, value)) is None:
                    damaged.append(key)
    if drop:
        for key in damaged:
            with store.update() as update:
                books = Books(update, int(time.time()))
                books.drop_if_damaged(key)
                books.finish()
    return Verified(checked, tuple(key.hex() for key in damaged))


def purge(store: Store, generation: str = "") -> int:
    """Drop the records of one generation (its tag in hex), or all of them, in small steps; how many there were."""
    purged = sum(purge_order(store, start, stop, generation) for start, stop in layout.ORDERS)
    if not generation:
        purge_documents(store)
    return purged


def purge_order(store: Store, start: bytes, stop: bytes, generation: str) -> int:
    """The same of one order."""
    purged = 0
    while True:
        with store.update() as update:
            books = Books(update, int(time.time()))
            chunk = update.scan(start, stop, CHUNK)
            for place, value in chunk:
                entry = Entry.unpack(value)
                if entry is None or (generation and entry.tag.hex() != generation):
                    continue
                update.delete(place)
                update.delete(layout.mark_key(entry.key))
                purged += books.drop(entry.key) > 0
            books.finish()
        if len(chunk) < CHUNK:
            return purged
        start = chunk[-1][0] + b"\0"


def purge_documents(store: Store) -> None:
    """Drop what was remembered of models, but not what the file says of itself."""
    kept = {layout.document_key(ABOUT), layout.document_key(COUNTERS)}
    for key, _ in list(pairs(store, layout.DOCUMENTS, layout.end(layout.DOCUMENTS), values=False)):
        if key not in kept:
            with store.update() as update:
                Books(update, int(time.time())).drop(key)


def purge_all(folder: Path) -> int | None:
    """Empty the cache, whatever state its file is in; the secret stays. How many records went, None if not counted.

    The whole file goes when nobody else has it open; else its records do. Raises CacheError.
    """
    if not (folder / integrity.ROWS).exists():
        raise CacheRefused(f"there is no cache in {folder}")
    claim = Claim(folder)
    try:
        claim.take()
        if claim.alone:
            shutil.rmtree(folder / integrity.ROWS)
            return None
    finally:
        claim.release()
    opened = Opened(folder, existing=True)
    try:
        return purge(opened.store)
    finally:
        opened.store.close()
        opened.close()


def explain(
    store: Store, generation: Generation, packed: Buffer, pending: Mapping[bytes, Buffer] | None = None
) -> Explanation:
    """How the key of a row (packed inputs) comes about, and whether the row is kept, queued, damaged or absent."""
    (key,) = generation.row_keys([packed])
    with store.view() as view:
        there, listed = view.get(key) is not None, look(view, key)
    if pending is not None and key in pending:
        state = "queued"
    elif there:
        state = "damaged" if listed is None else "kept"
    else:
        state = "absent"
    return Explanation(key.hex(), generation.digest.hex(), generation.fields, len(packed), state, listed)
