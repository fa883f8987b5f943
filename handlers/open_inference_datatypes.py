"""The Open Inference Protocol's datatypes: their names, and tensors as bytes.

Pure values, safe on any thread. Tensors are little-endian and row-major; a BYTES element is its length (u32) and its
bytes. Numeric tensors are views of the request: nothing is copied.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from rowserve.graphs.rows import Array, Buffer, as_bytes, from_bytes
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.open_inference_texts import invalid
from rowserve.handlers.problem import Problem

NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    STRING: "BYTES",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
NAMELESS = "INVALID"  # a complex tensor: the protocol has no name for it
LENGTH = struct.Struct("<I")
MOST_ELEMENTS = 2**59  # that many complex128 are as many bytes as an array can have
MOST_DIMENSIONS = 32
MOST_EMPTY = 1024  # rows that a tensor without a single element may claim


def datatype_of(dtype: str) -> str:
    """The protocol's name for a dtype of a signature."""
    return NAMES.get(dtype, NAMELESS)


def dtype_of(name: str, datatype: str) -> str:
    """The dtype of tensor `name` by the protocol's name for it. Raises Problem 400."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise invalid(f"input {name!r}: there is no datatype {datatype[:40]!r}; there are: {', '.join(DTYPES)}")
    return dtype


def elements(name: str, shape: Sequence[int]) -> int:
    """How many elements tensor `name` claims to have.

    Raises Problem 400 for what no request can hold, before anything is allocated for it; so also for very many rows
    that have no bytes.
    """
    if len(shape) > MOST_DIMENSIONS or math.prod(size or 1 for size in shape) > MOST_ELEMENTS:
        told = f"causes total element count to exceed maximum size of {MOST_ELEMENTS}"
        raise invalid(f"input {name!r}: its shape of {len(shape)} dimensions {told}")
    count = math.prod(shape)
    if not count and shape[0] > MOST_EMPTY:
        raise invalid(f"input {name!r}: {shape[0]} rows without any element are too many")
    return count


def tensor_from(name: str, dtype: str, shape: Sequence[int], blob: memoryview) -> Array:
    """The tensor in these bytes. Raises Problem 400 unless they are exactly its elements."""
    count = elements(name, shape)
    if dtype == STRING:
        return strings_from(name, count, blob).reshape(shape)
    spec = numpy_dtype(dtype)
    if count * spec.itemsize != len(blob):
        raise invalid(f"input byte size mismatch for input {name!r}. Expected {count * spec.itemsize}, got {len(blob)}")
    if dtype == "bool" and len(blob) and np.frombuffer(blob, np.uint8).max() > 1:
        raise invalid(f"input {name!r}: a BOOL element is one byte, 0 or 1")
    return from_bytes(blob, spec, tuple(shape))


def strings_from(name: str, count: int, blob: memoryview) -> Array:
    """BYTES elements. Raises Problem 400 unless there are `count` of them."""
    if count * LENGTH.size > len(blob):
        raise elements_mismatch(name, count)
    array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        if at + LENGTH.size > len(blob):
            raise elements_mismatch(name, count)
        (length,) = LENGTH.unpack_from(blob, at)
        at += LENGTH.size + length
        if at > len(blob):
            raise invalid(f"incomplete string data for inference input {name!r}: element {index} ends behind its bytes")
        array[index] = bytes(blob[at - length : at])
    if at != len(blob):
        raise elements_mismatch(name, count)
    return array


def elements_mismatch(name: str, count: int) -> Problem:
    """400: there are more strings, or fewer."""
    return invalid(f"unexpected number of string elements for inference input {name!r}, expecting {count}")


def tensor_bytes(array: Array) -> Buffer:
    """A tensor's bytes; a view of it where it is numeric."""
    if array.dtype != object:
        return as_bytes(array)
    parts: list[bytes] = []
    for element in array.flat:
        parts += (LENGTH.pack(len(element)), element)
    return b"".join(parts)
