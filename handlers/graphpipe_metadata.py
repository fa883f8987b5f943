"""What a model takes and gives, as GraphPipe tells it: as a flatbuffer, and as the JSON of its Go server.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from flatbuffers import Builder

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.graphpipe_tensors import CODES, numbers_vector, offsets_vector
from rowserve.handlers.items import Encoded, ModelFace

BINARY = "application/octet-stream"
SERVER = "rowserve"
# Slots, as the schema numbers them.
NAME, VERSION, SERVED_BY, DESCRIPTION, INPUTS, OUTPUTS = range(6)
IO_NAME, IO_DESCRIPTION, IO_SHAPE, IO_TYPE = range(4)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: a free dimension is -1, an unknown rank no dimension; type 0 is none of GraphPipe's."""

    name: str
    shape: tuple[int, ...]
    type: int


def carried(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Those whose dtype GraphPipe has."""
    return [spec for spec in specs if spec.dtype in CODES]


def described(specs: Sequence[TensorSpec], batch: int | None) -> list[Tensor]:
    """The specs as the metadata lists them."""
    told = []
    for spec in specs:
        sizes = () if spec.shape is None else ((batch,) if spec.batched else ()) + spec.shape
        shape = tuple(-1 if size is None else size for size in sizes)
        told.append(Tensor(spec.name, shape, CODES.get(spec.dtype, 0)))
    return told


def tensors(signature: Signature) -> tuple[list[Tensor], list[Tensor]]:
    """(inputs, outputs) in their default order. An output that GraphPipe cannot carry is not among them."""
    return described(signature.inputs, signature.batch), described(carried(signature.outputs), signature.batch)


def metadata(face: ModelFace) -> Encoded:
    """A MetadataResponse."""
    signature = face.signature()
    inputs, outputs = tensors(signature)
    builder = Builder(1024)
    lists = [offsets_vector(builder, [io_table(builder, each) for each in listed]) for listed in (inputs, outputs)]
    texts = [face.name, str(face.version), SERVER, description(signature)]
    places = [builder.CreateString(text) for text in texts]
    builder.StartObject(6)
    for slot, place in enumerate([*places, *lists]):
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    builder.Finish(builder.EndObject())
    return Encoded(200, [("Content-Type", BINARY)], bytes(builder.Output()))


def io_table(builder: Builder, told: Tensor) -> int:
    """An IOMetadata."""
    name, shape = builder.CreateString(told.name), numbers_vector(builder, told.shape)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(IO_NAME, name, 0)
    builder.PrependUOffsetTRelativeSlot(IO_SHAPE, shape, 0)
    builder.PrependUint8Slot(IO_TYPE, told.type, 0)
    return int(builder.EndObject())


def description(signature: Signature) -> str:
    """What a person may want to know."""
    return f"signature {signature.name}"


def metadata_json(face: ModelFace) -> dict[str, Any]:
    """The same under the Go server's keys: an empty list is null there."""
    signature = face.signature()
    inputs, outputs = tensors(signature)
    return json_object(face.name, str(face.version), description(signature), inputs, outputs)


def json_object(
    name: str, version: str, text: str, inputs: Sequence[Tensor] = (), outputs: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """The keys of a MetadataResponse in Go's form."""

    def listed(tensors: Sequence[Tensor]) -> list[dict[str, Any]] | None:
        told = [{"Name": t.name, "Description": "", "Shape": list(t.shape) or None, "Type": t.type} for t in tensors]
        return told or None

    return {
        "Name": name,
        "Version": version,
        "Server": SERVER,
        "Description": text,
        "Inputs": listed(inputs),
        "Outputs": listed(outputs),
    }


def encode_json(document: dict[str, Any]) -> Encoded:
    """Indented, as the Go server has it."""
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Encoded(200, [("Content-Type", "application/json")], body)
