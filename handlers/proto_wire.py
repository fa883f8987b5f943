"""Protobuf's wire form by hand, for messages whose size a client chooses: fields as views, numbers by numpy.

Pure values, safe on any thread. protobuf's own reader holds the interpreter while it reads (32 MiB of empty strings:
1.6 s and 540 MB) and copies every tensor twice; here a tensor stays where it is, and nothing grows with its claims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowserve.graphs.rows import Array, Buffer

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 1 << 20
LONGEST_VARINT = 10
BLOCK = 1 << 16


class WireFault(ValueError):
    """Bytes that are no protobuf message, or one of too many fields."""


def fields(message: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Each field: number, kind, value (of a varint) and bytes (of all others). Raises WireFault."""
    at, end, count = 0, len(message), 0
    try:
        while at < end:
            key = message[at]
            at += 1
            if key >= 0x80:
                key, at = varint(message, at - 1)
            value, kind = 0, key & 7
            if kind == LENGTH:
                size = message[at]
                at += 1
                if size >= 0x80:
                    size, at = varint(message, at - 1)
            elif kind == VARINT:
                value, at = varint(message, at)
                size = 0
            elif kind == FIXED32:
                size = 4
            elif kind == FIXED64:
                size = 8
            else:
                raise WireFault(f"a field has the unknown kind {kind}")
            count += 1
            if size > end - at or key < 8 or count > MOST_FIELDS:
                raise WireFault("a field ends too late" if size > end - at else "too many fields, or one of number 0")
            yield key >> 3, kind, value, message[at : at + size]
            at += size
    except IndexError:
        raise WireFault("it ends inside a field") from None


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where the next thing starts. Raises WireFault or IndexError."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift >= 7 * LONGEST_VARINT:
            raise WireFault("a number of more than ten bytes")


def signed(value: int) -> int:
    """A varint as the int64 (or int32) that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def text(data: memoryview) -> str:
    """A proto string. Raises WireFault."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise WireFault("a string is not UTF-8") from None


def whole(pieces: Sequence[Buffer]) -> memoryview:
    """A field in one: a list may come in several pieces, and a message in several that together are it."""
    return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def packed_count(packed: memoryview) -> int:
    """How many varints stand there."""
    return int(np.count_nonzero(np.frombuffer(packed, np.uint8) < 0x80))


def unpacked(packed: memoryview, dtype: np.dtype[Any]) -> Array:
    """Packed varints as an array of an integer dtype. Raises WireFault, also for a number that does not fit."""
    read = np.frombuffer(packed, np.uint8)
    count = packed_count(packed)
    if count == len(read):
        return read.astype(dtype)
    if read[-1] >= 0x80:
        raise WireFault("it ends inside a number")
    numbers = np.empty(count, dtype)
    at = done = 0
    while at < len(read):
        block = read[at : at + BLOCK]
        ends = np.flatnonzero(block < 0x80)
        if not len(ends):
            raise WireFault("a number of more than ten bytes")
        values = joined(block[: ends[-1] + 1], ends)
        fitted = values.view(np.int64).astype(dtype) if dtype.kind == "i" else values.astype(dtype)
        if (fitted.astype(np.int64).view(np.uint64) != values).any():
            raise WireFault(f"a number does not fit into {dtype.name}")
        numbers[done : done + len(ends)] = fitted
        done += len(ends)
        at += int(ends[-1]) + 1
    return numbers


def joined(block: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Whole varints, each ending at one of `ends`, as numbers."""
    starts = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - starts + 1
    longest = int(sizes.max())
    if longest > LONGEST_VARINT:
        raise WireFault("a number of more than ten bytes")
    values = (block[starts] & 0x7F).astype(np.uint64)
    for index in range(1, longest):
        more = np.flatnonzero(sizes > index)
        values[more] |= (block[starts[more] + index] & 0x7F).astype(np.uint64) << np.uint64(7 * index)
    return values


def number(value: int) -> bytes:
    """A varint; negative ones take ten bytes."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def head(field: int, size: int) -> bytes:
    """What stands before `size` bytes of a field."""
    return number(field << 3 | LENGTH) + number(size)


def packed(array: Array) -> bytes:
    """Integers (or bools) as packed varints."""
    flat = array.reshape(-1)
    if not flat.size or (flat.min() >= 0 and flat.max() < 0x80):
        return flat.astype(np.uint8).tobytes()
    return b"".join(packed_block(flat[at : at + BLOCK]) for at in range(0, flat.size, BLOCK))


def packed_block(flat: Array) -> bytes:
    """A few of them, side by side."""
    values = flat.astype(np.int64).view(np.uint64) if flat.dtype.kind == "i" else flat.astype(np.uint64)
    sizes = np.ones(len(values), np.intp)
    for index in range(1, LONGEST_VARINT):
        sizes += values >= np.uint64(1 << 7 * index)
    starts = np.cumsum(sizes) - sizes
    written = np.zeros(int(sizes.sum()), np.uint8)
    for index in range(int(sizes.max())):
        more = np.flatnonzero(sizes > index)
        bits = (values[more] >> np.uint64(7 * index)).astype(np.uint8) & 0x7F
        written[starts[more] + index] = bits | np.where(sizes[more] > index + 1, 0x80, 0).astype(np.uint8)
    return written.tobytes()
