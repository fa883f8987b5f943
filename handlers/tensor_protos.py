"""TensorFlow's TensorProto to numpy and back, without TensorFlow. Pure values, safe on any thread.

Both ways by hand (`proto_wire`): a list of floats that is packed has the very bytes of the array, so whether a client
sends `tensor_content` or `float_val`, its array is a view of the message. Answers have the typed fields, as TensorFlow
Serving's have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer, as_bytes, from_bytes
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    MOST_FIELDS,
    VARINT,
    WireFault,
    fields,
    head,
    number,
    packed,
    packed_count,
    signed,
    unpacked,
    varint,
    whole,
)

DTYPE, SHAPE, CONTENT, STRINGS = 1, 2, 4, 8
# dtype: its number in DataType, and the field of its values
NUMBERS = {
    "float32": (1, 5),
    "float64": (2, 6),
    "int32": (3, 7),
    "uint8": (4, 7),
    "int16": (5, 7),
    "int8": (6, 7),
    STRING: (7, STRINGS),
    "complex64": (8, 9),
    "int64": (9, 10),
    "bool": (10, 11),
    "bfloat16": (14, 13),
    "uint16": (17, 7),
    "complex128": (18, 12),
    "float16": (19, 13),
    "uint32": (22, 16),
    "uint64": (23, 17),
}
DTYPES = {value: (name, values) for name, (value, values) in NUMBERS.items()}
# The fields of values, and the kind of one that stands alone (a list of numbers is packed, or is a field for each).
KINDS = dict.fromkeys((7, 10, 11, 13, 16, 17), VARINT) | {5: FIXED32, 9: FIXED32, 6: FIXED64, 12: FIXED64, 8: LENGTH}
HALVES = ("float16", "bfloat16")
MOST_DIMENSIONS = 32
MOST_ELEMENTS = 1 << 56
PLAIN = {np.dtype(name) for name in ("float32", "float64", "complex64", "complex128")}  # packed, they are their bytes
ELEMENT = 8  # bytes of a string's place in an array


class TensorProtoFault(Problem):
    """400: a tensor that cannot be read."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(status, detail, reason="bad_tensor" if status == 400 else "too_large")


@dataclass(slots=True)
class Budget:
    """How many bytes tensors may take that are more than the message has: those that repeat their last value."""

    left: int

    def take(self, size: int) -> None:
        """Raises TensorProtoFault 413."""
        self.left -= size
        if self.left < 0:
            raise TensorProtoFault("the tensor's shape claims more elements than a request may have", 413)


@dataclass(slots=True)
class Fields:
    """A TensorProto taken apart: its values as they stood, piece by piece, by field."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    content: memoryview | None = None
    values: dict[int, list[Buffer]] = field(default_factory=dict)


def read_tensor(message: memoryview, budget: Budget) -> Array:
    """The tensor: a view of the message where it can be. Raises TensorProtoFault."""
    try:
        parts = take_apart(message)
        name, values = DTYPES.get(parts.dtype, ("", 0))
        if not name:
            raise TensorProtoFault(f"a tensor of dtype {parts.dtype} (in DataType's numbers) cannot be served")
        count = math.prod(parts.shape)
        if name == STRING:
            return strings(parts, count, budget)
        dtype = numpy_dtype(name)
        if parts.content:
            return from_content(parts.content, dtype, parts.shape, count)
        return from_values(parts.values.get(values, []), name, dtype, parts.shape, count, budget)
    except WireFault as fault:
        raise TensorProtoFault(f"the TensorProto cannot be read: {fault}") from None


def take_apart(message: memoryview) -> Fields:
    """Its fields; of a field that may stand once, the last counts. Raises WireFault or TensorProtoFault."""
    found = Fields()
    shapes: list[Buffer] = []
    for field_number, kind, value, data in fields(message):
        if field_number == DTYPE and kind == VARINT:
            found.dtype = value
        elif field_number == SHAPE and kind == LENGTH:
            shapes.append(data)
        elif field_number == CONTENT and kind == LENGTH:
            found.content = data
        elif field_number in KINDS and kind in (LENGTH, KINDS[field_number]):
            found.values.setdefault(field_number, []).append(number(value) if kind == VARINT else data)
    if shapes:
        found.shape = read_shape(whole(shapes))
    return found


def read_shape(message: memoryview) -> tuple[int, ...]:
    """A TensorShapeProto. Raises TensorProtoFault."""
    sizes: list[int] = []
    for field_number, kind, value, data in fields(message):
        if field_number == 3 and kind == VARINT and value:
            raise TensorProtoFault("the tensor's shape has no rank")
        if field_number != 2 or kind != LENGTH:
            continue
        size = 0
        for inner, inner_kind, dimension, _ in fields(data):
            if inner == 1 and inner_kind == VARINT:
                size = signed(dimension)
        sizes.append(size)
        if size < 0 or len(sizes) > MOST_DIMENSIONS:
            raise TensorProtoFault(f"the tensor's shape has a negative size, or more than {MOST_DIMENSIONS} dimensions")
    if math.prod(max(size, 1) for size in sizes) > MOST_ELEMENTS:
        raise TensorProtoFault("the tensor's shape claims more elements than there can be", 413)
    return tuple(sizes)


def from_content(content: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> Array:
    """A tensor whose bytes stand there as they are."""
    if count * dtype.itemsize != len(content):
        told = f"shape {list(shape)} of {dtype.name} takes {count * dtype.itemsize:,} bytes"
        raise TensorProtoFault(f"{told}, and tensor_content has {len(content):,}")
    if dtype.kind == "b":
        truth: Array = np.frombuffer(content, np.uint8).reshape(shape) != 0
        return truth
    return from_bytes(content, dtype, shape)


def from_values(
    pieces: list[Buffer], name: str, dtype: np.dtype[Any], shape: tuple[int, ...], count: int, budget: Budget
) -> Array:
    """A tensor of typed values; where they are fewer than its elements, the last (or 0) stands for the rest."""
    data = whole(pieces)
    if dtype in PLAIN:
        there, odd = divmod(len(data), dtype.itemsize)
        if odd:
            raise TensorProtoFault(f"{len(data):,} bytes are no whole values of {name}")
    else:
        there = packed_count(data)
    if there > count:
        raise too_many(shape, count, there)
    budget.take((count - there) * dtype.itemsize)
    if name in HALVES:
        values = unpacked(data, np.dtype(np.uint16)).view(dtype)
    elif dtype in PLAIN:
        values = from_bytes(data, dtype, (there,))
    else:
        values = unpacked(data, dtype)
    if there < count:
        last = values[-1:] if there else np.zeros(1, dtype)
        values = np.concatenate((values, np.broadcast_to(last, (count - there,))))
    return values.reshape(shape)


def strings(parts: Fields, count: int, budget: Budget) -> Array:
    """A tensor of strings: an object array of bytes."""
    pieces = parts.values.get(STRINGS, [])
    if parts.content:
        pieces = content_strings(parts.content, count)
    if len(pieces) > count:
        raise too_many(parts.shape, count, len(pieces))
    last = bytes(pieces[-1]) if pieces else b""
    budget.take((count - len(pieces)) * (ELEMENT + len(last)))
    array = np.empty(count, dtype=object)
    array[len(pieces) :] = last
    for index, piece in enumerate(pieces):
        array[index] = bytes(piece)
    return array.reshape(parts.shape)


def too_many(shape: tuple[int, ...], count: int, there: int) -> TensorProtoFault:
    """More values than the shape has elements."""
    return TensorProtoFault(f"shape {list(shape)} has {count:,} elements, and there are {there:,} values")


def content_strings(content: memoryview, count: int) -> list[Buffer]:
    """Strings as `tensor_content` has them: the lengths of all, then all."""
    if count > min(len(content), MOST_FIELDS):
        raise TensorProtoFault(f"tensor_content of {len(content):,} bytes cannot hold {count:,} strings")
    sizes, at = [], 0
    try:
        for _ in range(count):
            size, at = varint(content, at)
            sizes.append(size)
    except IndexError:
        raise TensorProtoFault("tensor_content ends inside the lengths of its strings") from None
    if sum(sizes) != len(content) - at:
        raise TensorProtoFault("tensor_content does not hold the strings whose lengths it gives")
    found: list[Buffer] = []
    for size in sizes:
        found.append(content[at : at + size])
        at += size
    return found


def tensor_parts(array: Array) -> list[Buffer]:
    """A tensor with its values in the field of its type, as pieces to be joined: a large one is copied only then."""
    name = STRING if array.dtype == object else array.dtype.name
    values = NUMBERS[name][1]
    start = tensor_head(name, array.shape)
    if name == STRING:
        parts: list[Buffer] = [start]
        for element in array.flat:
            parts += (head(values, len(element)), element)
        return parts
    if not array.size:
        return [start]
    if array.dtype in PLAIN:
        return [*plain_parts(name, array.shape, array.nbytes), as_bytes(array)]
    data = packed(np.ascontiguousarray(array).view(np.uint16) if name in HALVES else array)
    return [start, head(values, len(data)), data]


def plain_parts(name: str, shape: tuple[int, ...], size: int) -> list[Buffer]:
    """What stands before the bytes of a tensor of a PLAIN dtype."""
    return [tensor_head(name, shape), head(NUMBERS[name][1], size)]


@lru_cache(maxsize=1024)
def tensor_head(name: str, shape: tuple[int, ...]) -> bytes:
    """The fields `dtype` and `tensor_shape`, which is there for a scalar too."""
    start = number(DTYPE << 3) + number(NUMBERS[name][0])
    sizes = b"".join(dimension(size) for size in shape)
    return start + head(SHAPE, len(sizes)) + sizes


def dimension(size: int) -> bytes:
    """One dimension of a shape."""
    said = number(1 << 3) + number(size) if size else b""
    return head(2, len(said)) + said
