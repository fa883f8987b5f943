"""GraphPipe requests as a client builds them, straight from the schema, and answers read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flatbuffers import Builder

from rowserve.handlers.graphpipe_slots import Slots
from rowserve.handlers.graphpipe_tensors import OUTPUT_TENSORS, tensor

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
# What Python's client sends for `metadata`.
METADATA = bytes.fromhex("0c00000008000c000b000400080000000c000000000000020400040004000000")


def infer_request(
    tensors: Sequence[Any] | Mapping[str, Any],
    outputs: Sequence[str | bytes] | None = None,
    config: str | None = "",
    names: Sequence[str | bytes] | None = None,
) -> bytes:
    """An InferRequest; tensors of objects are strings. None leaves a field out."""
    if isinstance(tensors, Mapping):
        names, tensors = list(tensors), list(tensors.values())
    builder = Builder(64)
    config_at = None if config is None else builder.CreateString(config)
    tables = offsets(builder, [tensor_table(builder, np.asarray(each)) for each in tensors])
    names_at = None if names is None else strings(builder, names)
    outputs_at = None if outputs is None else strings(builder, outputs)
    builder.StartObject(4)
    for slot, place in enumerate((config_at, names_at, tables, outputs_at)):
        if place is not None:
            builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    inference = builder.EndObject()
    return request(builder, 1, inference)


def request(builder: Builder, kind: int, table: int) -> bytes:
    """A Request of a kind about a table."""
    builder.StartObject(2)
    builder.PrependUint8Slot(0, kind, 0)
    builder.PrependUOffsetTRelativeSlot(1, table, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def tensor_table(
    builder: Builder, array: Any, *, kind: int | None = None, shape: Sequence[int] | None = None, data: Any = None
) -> int:
    """A Tensor of the array, or one that lies about its type, shape or bytes."""
    told = array.shape if shape is None else shape
    texts = array.dtype == object
    if texts:
        elements = strings(builder, list(array.flat))
    else:
        elements = int(builder.CreateByteVector(array.tobytes() if data is None else data))
    builder.StartVector(8, len(told), 8)
    for size in reversed(told):
        builder.PrependInt64(size)
    shape_at = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUint8Slot(0, (12 if texts else TYPES.index(array.dtype.name) + 1) if kind is None else kind, 0)
    builder.PrependUOffsetTRelativeSlot(1, shape_at, 0)
    builder.PrependUOffsetTRelativeSlot(3 if texts else 2, elements, 0)
    return int(builder.EndObject())


def strings(builder: Builder, texts: Sequence[str | bytes]) -> int:
    return offsets(builder, [builder.CreateString(text) for text in texts])


def offsets(builder: Builder, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def answered(body: bytes) -> list[Any]:
    """The tensors of an InferResponse."""
    return [tensor(each, "y") for each in Slots.root(body).tables(OUTPUT_TENSORS)]
