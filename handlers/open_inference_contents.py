"""The typed contents of an input tensor in the Open Inference Protocol's gRPC form: InferTensorContents.

Pure values, safe on any thread. Clients of Triton send bytes instead (`raw_input_contents`); others send these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rowserve.graphs.rows import Array, from_bytes
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.open_inference_datatypes import datatype_of, elements
from rowserve.handlers.open_inference_texts import invalid
from rowserve.handlers.proto_wire import LENGTH, VARINT, WireFault, fields, number, unpacked

BYTES_FIELD = 8
FIELDS = {
    "bool": 1,
    **dict.fromkeys(("int8", "int16", "int32"), 2),
    "int64": 3,
    **dict.fromkeys(("uint8", "uint16", "uint32"), 4),
    "uint64": 5,
    "float32": 6,
    "float64": 7,
    STRING: BYTES_FIELD,
}


def read_contents(name: str, dtype: str, shape: Sequence[int], contents: memoryview) -> Array:
    """The tensor in an InferTensorContents. Raises Problem 400, also for a number that does not fit its datatype."""
    count = elements(name, shape)
    wanted = FIELDS.get(dtype)
    if wanted is None:
        raise invalid(f"input {name!r}: {datatype_of(dtype)} has no typed contents; use raw_input_contents")
    try:
        parts = []
        for at, kind, value, data in fields(contents):
            if at != wanted:
                raise invalid(f"input {name!r}: its contents are not of {datatype_of(dtype)}")
            parts.append(data if kind != VARINT else memoryview(number(value)))
            if kind != LENGTH and wanted == BYTES_FIELD:
                raise WireFault("bytes_contents holds what is no bytes")
        flat = strings(parts) if dtype == STRING else numbers(dtype, parts)
    except WireFault as fault:
        raise invalid(f"input {name!r}: its contents cannot be read: {fault}") from None
    if len(flat) != count:
        told = f"unexpected number of elements, expecting {count} for the shape {list(shape)}, got {len(flat)}"
        raise invalid(f"input {name!r}: {told}")
    return flat.reshape(shape)


def strings(parts: Sequence[memoryview]) -> Array:
    """Elements of bytes."""
    array = np.empty(len(parts), dtype=object)
    for index, part in enumerate(parts):
        array[index] = bytes(part)
    return array


def numbers(dtype: str, parts: Sequence[memoryview]) -> Array:
    """Elements that came packed, or one by one, or both. Raises WireFault."""
    whole = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
    spec = numpy_dtype(dtype)
    if spec.kind != "f":
        return unpacked(whole, spec)
    if len(whole) % spec.itemsize:
        raise WireFault("it ends inside a number")
    return from_bytes(whole, spec, (len(whole) // spec.itemsize,))
