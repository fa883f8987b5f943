"""GraphPipe's tensors: those of a request as views of its bytes, and those of an answer as an InferResponse.

Pure values, safe on any thread. Nothing is allocated by a number that a client wrote before it was held against the
bytes there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate

import numpy as np
from flatbuffers import Builder

from rowserve.graphs.rows import U32, Array, Buffer, array_bytes, as_bytes, from_bytes
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.graphpipe_slots import Slots
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensors import TensorFault

TYPES = (
    "uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 string".split()  # noqa: SIM905
)
CODES = {dtype: code for code, dtype in enumerate(TYPES, 1)}
MOST_DIMENSIONS = 64  # numpy's limit
LARGEST = 2**31  # bytes of a flatbuffer
# Slots, as the schema numbers them.
TENSOR_TYPE, TENSOR_SHAPE, TENSOR_DATA, TENSOR_STRINGS = range(4)
OUTPUT_TENSORS = 0


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

    The Builder, which is slow and copies what it is given more than once, makes the tables only, and makes them once
    for answers of equal shapes; the elements follow the tables, joined in.
    """
    arrays = list(outputs.values())
    sizes = [array_bytes(array) + 8 * array.size * (array.dtype == object) for array in arrays]
    if sum(sizes) > LARGEST - (1 << 20):
        raise Problem(500, "the outputs are more than the 2 GiB that GraphPipe can carry", reason="too_large")
    tables, fields = response_tables(tuple((dtype_name(array), array.shape) for array in arrays))
    head, at = bytearray(tables), len(tables)
    pieces: list[Buffer | bytearray] = [head]
    for field, array in zip(fields, arrays, strict=True):
        elements = string_elements(array) if array.dtype == object else [as_bytes(array)]
        gap = -(at + 4) % 8  # after its length, a vector begins where its widest elements may
        U32.pack_into(head, field, at + gap - field)
        pieces += (b"\0" * gap, U32.pack(array.size if array.dtype == object else array.nbytes), *elements)
        at += gap + 4 + sum(map(len, elements))
    return b"".join(pieces)


@lru_cache(maxsize=256)
def response_tables(tensors: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[bytes, list[int]]:
    """An InferResponse of tensors (dtype, shape) without elements, and where the offset to each one's belongs."""
    builder = Builder(256)
    made = [tensor_table(builder, dtype, shape) for dtype, shape in tensors]
    vector = offsets_vector(builder, [table for table, _ in made])
    builder.StartObject(2)  # the errors stay out: an empty vector of them is what old clients read wrongly
    builder.PrependUOffsetTRelativeSlot(OUTPUT_TENSORS, vector, 0)
    builder.Finish(builder.EndObject())
    tables = bytes(builder.Output())
    return tables, [len(tables) - from_end for _, from_end in made]


def dtype_name(array: Array) -> str:
    """As the signature has it."""
    return STRING if array.dtype == object else array.dtype.name


def tensor_table(builder: Builder, dtype: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """A Tensor without its elements: (its place, the place of the offset to them), counted from the buffer's end."""
    sizes = numbers_vector(builder, shape)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(TENSOR_SHAPE, sizes, 0)
    builder.PrependUint32(0)
    builder.Slot(TENSOR_STRINGS if dtype == STRING else TENSOR_DATA)
    field = builder.Offset()
    builder.PrependUint8Slot(TENSOR_TYPE, CODES[dtype], 0)
    return builder.EndObject(), field


def string_elements(array: Array) -> list[Buffer]:
    """The offsets of strings, and the strings, each with its length before it and a NUL behind."""
    elements: list[bytes] = list(array.flat)
    framed = [b"%b%b%b" % (U32.pack(len(e)), e, b"\0" * (4 - len(e) % 4)) for e in elements]
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
