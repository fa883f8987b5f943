"""GraphPipe's flatbuffers: the tables of a request as anybody may have sent them, and those of an answer.

Pure values, safe on any thread. A request is read where it lies: a tensor is a view of its bytes, whatever their
alignment. Nothing is allocated by a number that a client wrote before it was held against the bytes there are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from itertools import accumulate

import numpy as np
from flatbuffers import Builder
from flatbuffers.number_types import UOffsetTFlags
from flatbuffers.table import Table

from rowserve.graphs.rows import Array, Buffer, array_bytes, as_bytes, from_bytes
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensors import TensorFault

TYPES = (
    "uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 string".split()  # noqa: SIM905
)
BINARY = "application/octet-stream"
CODES = {dtype: code for code, dtype in enumerate(TYPES, 1)}
INFER_REQUEST = 1  # of the union Req; whatever else there is asks for metadata
MOST_DIMENSIONS = 64  # numpy's limit
LARGEST = 2**31  # bytes of a flatbuffer
# Slots, as the schema numbers them.
REQUEST_KIND, REQUEST = 0, 1
INPUT_NAMES, INPUT_TENSORS, OUTPUT_NAMES = 1, 2, 3
TENSOR_TYPE, TENSOR_SHAPE, TENSOR_DATA, TENSOR_STRINGS = range(4)
OUTPUT_TENSORS = 0


def malformed(what: str) -> Problem:
    """The body is no flatbuffer of GraphPipe's schema."""
    return Problem(400, f"the body is no GraphPipe request: {what}", title="Malformed request", reason="malformed")


class Slots:
    """One table. Every method raises Problem 400 where an offset or a length leads out of the buffer."""

    def __init__(self, buffer: Buffer, at: int) -> None:
        if at > len(buffer) - 4:
            raise malformed("a table lies outside")
        self._table = Table(buffer, at)
        self._buffer = memoryview(buffer)

    @classmethod
    def root(cls, buffer: Buffer) -> Slots:
        """The table that a buffer is about."""
        return cls(buffer, cls(buffer, 0)._offset(0))

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
        return Slots(self._buffer, self._offset(at))

    def count(self, slot: int) -> int:
        """The elements of a vector; 0 where it is absent."""
        at = self._field(slot)
        return self._word(self._offset(at)) if at else 0

    def vector(self, slot: int, width: int) -> memoryview:
        """The bytes of a vector of elements of `width` bytes; none where it is absent."""
        at = self._field(slot)
        return self._vector(self._offset(at), width) if at else self._buffer[:0]

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
        offsets = np.frombuffer(self.vector(slot, 4), "<u4").astype(np.int64)
        if not len(offsets):
            return []
        start = self._offset(self._field(slot)) + 4
        places: list[int] = (offsets + np.arange(start, start + 4 * len(offsets), 4)).tolist()
        return places

    def _vector(self, at: int, width: int) -> memoryview:
        start, size = at + 4, self._word(at) * width
        if size > len(self._buffer) - start:
            raise malformed("a vector reaches over its end")
        return self._buffer[start : start + size]

    def _field(self, slot: int) -> int:
        """Where the value of a slot stands; 0 where there is none."""
        try:
            offset = self._table.Offset(4 + 2 * slot)
        except (struct.error, TypeError):  # TypeError: flatbuffers' word for a place before the first byte
            raise malformed("a table lies outside") from None
        return self._table.Pos + offset if offset else 0

    def _offset(self, at: int) -> int:
        return at + self._word(at)

    def _word(self, at: int) -> int:
        if at > len(self._buffer) - 4:
            raise malformed("an offset leads out of it")
        return int(self._table.Get(UOffsetTFlags, at))

    @property
    def size(self) -> int:
        """Bytes of the whole buffer."""
        return len(self._buffer)


def tensor(slots: Slots, name: str) -> Array:
    """A Tensor: a read-only view of its bytes, or objects of bytes. Raises Problem 400."""
    code = slots.number(TENSOR_TYPE)
    if not 0 < code <= len(TYPES):
        raise TensorFault("dtype", name, f"input {name!r} has type {code}, which is none of GraphPipe's 1 to 12")
    dtype = TYPES[code - 1]
    shape = tensor_shape(slots, name)
    data = slots.vector(TENSOR_DATA, 1)
    if dtype == STRING:
        return string_tensor(slots, name, shape)
    size = math.prod(shape) * numpy_dtype(dtype).itemsize
    if len(data) != size:
        told = f"input {name!r}: {list(shape)} of {dtype} takes {size:,} bytes, not {len(data):,}"
        raise TensorFault("shape", name, told)
    return from_bytes(data, numpy_dtype(dtype), shape)


def tensor_shape(slots: Slots, name: str) -> tuple[int, ...]:
    """The shape that a Tensor claims: such as a numpy array can have."""
    dimensions = slots.vector(TENSOR_SHAPE, 8)
    if len(dimensions) > 8 * MOST_DIMENSIONS:
        raise TensorFault("shape", name, f"input {name!r} has more than {MOST_DIMENSIONS} dimensions")
    shape: tuple[int, ...] = tuple(np.frombuffer(dimensions, "<i8").tolist())
    claimed = math.prod(size for size in shape if size)
    # A tensor of no elements may claim many rows: the body bounds them as well.
    if min(shape, default=0) < 0 or claimed > LARGEST or (0 in shape and shape[0] > slots.size):
        raise TensorFault("shape", name, f"input {name!r} cannot have the shape {list(shape)}")
    return shape


def string_tensor(slots: Slots, name: str, shape: tuple[int, ...]) -> Array:
    """The strings of a Tensor in its shape."""
    count, size = slots.count(TENSOR_STRINGS), math.prod(shape)
    if count != size:
        raise TensorFault("shape", name, f"input {name!r}: {list(shape)} takes {size:,} strings, not {count:,}")
    strings = slots.strings(TENSOR_STRINGS)
    elements = np.empty(size, dtype=object)
    elements[:] = strings
    return elements.reshape(shape)


def infer_response(outputs: Mapping[str, Array]) -> bytes:
    """An InferResponse of tensors. Raises Problem 500 where they are more than a flatbuffer holds.

    The Builder, which copies what it is given more than once, makes the tables only; the elements follow them, joined
    in once.
    """
    sizes = [array_bytes(array) + 8 * array.size * (array.dtype == object) for array in outputs.values()]
    if sum(sizes) > LARGEST - (1 << 20):
        raise Problem(500, "the outputs are more than the 2 GiB that GraphPipe can carry", reason="too_large")
    builder = Builder(256)
    tables, fields = [], []
    for array in outputs.values():
        table, field = tensor_table(builder, array)
        tables.append(table)
        fields.append(field)
    vector = offsets_vector(builder, tables)
    builder.StartObject(2)  # the errors stay out: an empty vector of them is what old clients read wrongly
    builder.PrependUOffsetTRelativeSlot(OUTPUT_TENSORS, vector, 0)
    builder.Finish(builder.EndObject())
    head = builder.Output()
    pieces: list[Buffer] = []
    at = len(head)
    for field, array in zip(fields, outputs.values(), strict=True):
        elements = string_elements(array) if array.dtype == object else [as_bytes(array)]
        gap = b"\0" * (-(at + 4) % 8)  # after its length, a vector begins where its widest elements may
        place = len(head) - field
        struct.pack_into("<I", head, place, at + len(gap) - place)
        pieces += (gap, struct.pack("<I", array.size if array.dtype == object else array.nbytes), *elements)
        at += len(gap) + 4 + sum(map(len, elements))
    return b"".join([head, *pieces])


def tensor_table(builder: Builder, array: Array) -> tuple[int, int]:
    """A Tensor without its elements: (its place, the place of the offset to them), counted from the buffer's end."""
    shape = numbers_vector(builder, array.shape)
    dtype = STRING if array.dtype == object else array.dtype.name
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(TENSOR_SHAPE, shape, 0)
    builder.PrependUint32(0)
    builder.Slot(TENSOR_STRINGS if dtype == STRING else TENSOR_DATA)
    field = builder.Offset()
    builder.PrependUint8Slot(TENSOR_TYPE, CODES[dtype], 0)
    return builder.EndObject(), field


def string_elements(array: Array) -> list[Buffer]:
    """The offsets of strings, and the strings, each with its length before it and a NUL behind."""
    elements: list[bytes] = list(array.flat)
    framed = [b"%b%b%b" % (struct.pack("<I", len(e)), e, b"\0" * (4 - len(e) % 4)) for e in elements]
    starts = accumulate(map(len, framed), initial=4 * len(elements))
    offsets = [start - 4 * index for index, start in zip(range(len(elements)), starts, strict=False)]
    return [np.array(offsets, "<u4").tobytes(), *framed]


def numbers_vector(builder: Builder, numbers: tuple[int, ...]) -> int:
    """A vector of int64."""
    builder.StartVector(8, len(numbers), 8)
    for number in reversed(numbers):
        builder.PrependInt64(number)
    return int(builder.EndVector())


def offsets_vector(builder: Builder, places: list[int]) -> int:
    """A vector of tables."""
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())
