"""The bytes of one record: a header of 24 bytes, then the body as it is.

Pure, safe on any thread. The checksum covers the kind, the key, the rest of the header and the body, so a record that
lost a bit, or stands under another key, is never taken for the real one.

    0   8  checksum: XXH3-64 of all that follows, seeded by the key and the kind
    8   1  version of this form
    9   1  kind; PIECED is added where the body goes on in pieces
    10  2  zero
    12  4  creation time: seconds since 1970, big-endian, so that times compare as bytes do
    16  4  birth: when a record of this key was first made; ties it to its place in the order
    20  4  tag of the generation
    24     the body; of a pieced record: number of the first piece (8), count of pieces (4), beginning of the body

LMDB gives a value of up to 4,080 bytes one page of its own, and longer ones several that must lie side by side. Pieces
of one page each keep every freed page useful, whatever the sizes of the rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from math import ceil
from typing import NamedTuple

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from rowserve.graphs.rows import Buffer

VERSION = 1
PIECED = 0x80
PAGE = 4096
PIECE_BYTES = 4080
"""The longest value that LMDB keeps in one page."""

REST = struct.Struct(">BBHII4s")
PIECES = struct.Struct(">QI")
HEADER_BYTES = 8 + REST.size
INLINE_BYTES = PIECE_BYTES - HEADER_BYTES
"""The longest body that needs no pieces."""

HEAD_BYTES = INLINE_BYTES - PIECES.size
"""How much of a longer body stands in its first page."""


class Kind(IntEnum):
    """What a record is; kinds never stand for each other."""

    ROW = 1
    ALIAS = 2
    DOCUMENT = 3


class Stamp(NamedTuple):
    """When the record was made and first made (seconds since 1970), and the tag of its generation."""

    created: int
    born: int
    tag: bytes = b"\0\0\0\0"


def checksum(kind: int, key: bytes, rest: Buffer) -> bytes:
    """The first 8 bytes of a record, from those after them."""
    return xxh3_64_digest(rest, xxh3_64_intdigest(key, kind))


def pieces_needed(body_bytes: int) -> int:
    """Into how many pieces the end of a body goes."""
    return 0 if body_bytes <= INLINE_BYTES else -(-(body_bytes - HEAD_BYTES) // PIECE_BYTES)


def seal(kind: Kind, key: bytes, stamp: Stamp, body: Buffer, first_piece: int = 0) -> tuple[bytes, list[Buffer]]:
    """A record and its pieces; the pieces are numbered from `first_piece`."""
    count = pieces_needed(len(body))
    if not count:
        rest = REST.pack(VERSION, kind, 0, *stamp) + body
        return checksum(kind, key, rest) + rest, []
    header = REST.pack(VERSION, kind | PIECED, 0, *stamp) + PIECES.pack(first_piece, count)
    view = memoryview(body)
    head = header + view[:HEAD_BYTES]
    pieces: list[Buffer] = [view[at : at + PIECE_BYTES] for at in range(HEAD_BYTES, len(view), PIECE_BYTES)]
    return checksum(kind | PIECED, key, b"".join((head, *pieces))) + head, pieces


def unseal(kind: int, key: bytes, value: bytes) -> memoryview | None:
    """The body of a record without pieces, or None when a bit of it is not as it was written."""
    view = memoryview(value)
    if len(value) < HEADER_BYTES or checksum(kind, key, view[8:]) != value[:8]:
        return None
    return view[HEADER_BYTES:]


def pieces_of(value: bytes) -> tuple[int, int]:
    """(number of the first piece, count) of a record, (0, 0) where it has none. Believes the header: check after."""
    if len(value) < HEADER_BYTES + PIECES.size or not value[9] & PIECED:
        return 0, 0
    first, count = PIECES.unpack_from(value, HEADER_BYTES)
    return first, count


def unseal_pieced(kind: int, key: bytes, value: bytes, pieces: Sequence[bytes]) -> memoryview | None:
    """The body of a record with pieces, or None when a bit of them is not as it was written."""
    whole = unseal(kind | PIECED, key, b"".join((value, *pieces)))
    return None if whole is None else whole[PIECES.size :]


def unseal_any(kind: int, key: bytes, value: bytes, pieces: Sequence[bytes]) -> memoryview | None:
    """The body of a record of either form."""
    return unseal_pieced(kind, key, value, pieces) if pieces_of(value)[1] else unseal(kind, key, value)


def stamp_of(value: bytes) -> Stamp:
    """When it was made, and for which generation. Believes the header, which must be there."""
    return Stamp(*REST.unpack_from(value, 8)[3:])


def created_bytes(seconds: float) -> bytes:
    """A time as it stands in bytes 12 to 16 of a record, rounded up."""
    return min(max(ceil(seconds), 0), 0xFFFFFFFF).to_bytes(4, "big")


def kind_of(value: bytes) -> int:
    """The kind that the header names, without PIECED."""
    return value[9] & ~PIECED if len(value) >= HEADER_BYTES else 0
