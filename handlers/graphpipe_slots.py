"""Flatbuffers as anybody may have sent them: tables by the slots of their schema, never past the bytes there are.

Pure values, safe on any thread. A request is read where it lies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rowserve.graphs.rows import U32, Buffer
from rowserve.handlers.problem import Problem

U16, I32 = struct.Struct("<H"), struct.Struct("<i")
VTABLES = [struct.Struct(f"<{count}H") for count in range(7)]  # no table of GraphPipe's has more slots


def malformed(what: str) -> Problem:
    """The body is no flatbuffer of GraphPipe's schema."""
    return Problem(400, f"the body is no GraphPipe request: {what}", title="Malformed request", reason="malformed")


class Slots:
    """One table. Every method raises Problem 400 where an offset or a length leads out of the buffer."""

    __slots__ = ("_at", "_buffer", "_offsets")

    def __init__(self, buffer: Buffer, at: int) -> None:
        self._buffer = memoryview(buffer)
        self._at = at
        try:
            vtable = at - I32.unpack_from(buffer, at)[0]
            if vtable < 0:  # which struct counts from the end
                raise malformed("a table lies outside")
            count = min(U16.unpack_from(buffer, vtable)[0] // 2 - 2, len(VTABLES) - 1)
            self._offsets: tuple[int, ...] = VTABLES[max(count, 0)].unpack_from(buffer, vtable + 4)
        except struct.error:
            raise malformed("a table lies outside") from None

    @classmethod
    def root(cls, buffer: Buffer) -> Slots:
        """The table that a buffer is about."""
        if len(buffer) < U32.size:
            raise malformed(f"it has {len(buffer)} bytes")
        return cls(buffer, U32.unpack_from(buffer)[0])

    @property
    def size(self) -> int:
        """Bytes of the whole buffer."""
        return len(self._buffer)

    def number(self, slot: int) -> int:
        """A byte; 0 where it is absent."""
        at = self._field(slot)
        if at >= len(self._buffer):
            raise malformed("a field lies behind its end")
        return self._buffer[at] if at else 0

    def table(self, slot: int) -> Slots:
        """The table of a slot, which must be there."""
        at = self._field(slot)
        if not at:
            raise malformed("a table is missing")
        return Slots(self._buffer, at + self._word(at))

    def count(self, slot: int) -> int:
        """The elements that a vector claims to have; 0 where it is absent."""
        at = self._field(slot)
        return self._word(at + self._word(at)) if at else 0

    def vector(self, slot: int, width: int) -> memoryview:
        """The bytes of a vector of elements of `width` bytes; none where it is absent."""
        at = self._field(slot)
        return self._vector(at + self._word(at), width) if at else self._buffer[:0]

    def tables(self, slot: int) -> Iterator[Slots]:
        """The tables of a vector of them."""
        return (Slots(self._buffer, place) for place in self._places(slot))

    def strings(self, slot: int) -> list[bytes]:
        """The strings of a vector of them, which may hold anything. Raises also where the body cannot hold them all."""
        places = self._places(slot)
        room = len(self._buffer) - 8 * len(places)  # an offset and a length each: what shares its bytes would multiply
        found = []
        for place in places:
            string = self._vector(place, 1)
            room -= len(string)
            if room < 0:
                raise malformed("its strings are longer than the body")
            found.append(bytes(string))
        return found

    def _places(self, slot: int) -> list[int]:
        """Where the elements of a vector of offsets lie."""
        at = self._field(slot)
        if not at:
            return []
        start = at + self._word(at)
        offsets = self._vector(start, 4)
        words = struct.unpack(f"<{len(offsets) // 4}I", offsets)
        return [place + word for place, word in zip(range(start + 4, start + 4 + len(offsets), 4), words, strict=True)]

    def _vector(self, at: int, width: int) -> memoryview:
        start, size = at + 4, self._word(at) * width
        if size > len(self._buffer) - start:
            raise malformed("a vector reaches over its end")
        return self._buffer[start : start + size]

    def _field(self, slot: int) -> int:
        """Where the value of a slot stands; 0 where there is none."""
        offset = self._offsets[slot] if slot < len(self._offsets) else 0
        return self._at + offset if offset else 0

    def _word(self, at: int) -> int:
        try:
            return int(U32.unpack_from(self._buffer, at)[0])
        except struct.error:
            raise malformed("an offset leads out of it") from None
