"""The input tensors of an inference request in REST form: as JSON, or as bytes behind the JSON.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rowserve.graphs.rows import Array
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import ModelFace
from rowserve.handlers.open_inference_datatypes import dtype_of, tensor_from
from rowserve.handlers.open_inference_document import no_json_form, tensor_of
from rowserve.handlers.open_inference_request import SHARED_MEMORY, field, objects, shape_of, unsigned
from rowserve.handlers.open_inference_texts import invalid, unsupported

BINARY_SIZE = "binary_data_size"
SHOWN = 64  # characters of a client's name that an error shows


class Blobs:
    """The bytes behind the JSON, which the binary inputs take in their order. Raises Problem 400."""

    def __init__(self, blobs: memoryview, model: str) -> None:
        self._left = blobs
        self._model = model

    def __len__(self) -> int:
        return len(self._left)

    def take(self, name: str, size: int) -> memoryview:
        """The next bytes, for that input."""
        if size > len(self._left):
            more = f"expecting {size - len(self._left)} additional bytes for model {self._model!r}"
            raise invalid(f"unexpected size for input {name!r}, {more}")
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def finish(self) -> None:
        """All inputs have been read."""
        if self._left:
            raise invalid(f"unexpected additional input data for model {self._model!r}: {len(self._left)} bytes")


def read_inputs(
    face: ModelFace, signature: Signature, document: Mapping[str, Any], blobs: Blobs | None
) -> dict[str, Array]:
    """The tensors by name; `blobs` is None where all of the request is JSON. Raises Problem 400 or 501."""
    entries = objects(document, "inputs")
    tensors: dict[str, Array] = {}
    for entry in entries:
        name: str = field(entry, "name", str)
        if name in tensors:
            raise invalid(f"input {name[:SHOWN]!r} already exists in request")
        tensors[name] = read_input(name[:SHOWN], entry, blobs, alone=len(entries) == 1)
    if blobs is not None:
        blobs.finish()
    wanted = len(signature.inputs)
    if not tensors and wanted:
        raise invalid(f"expected {wanted} inputs but got 0 inputs for model {face.name!r}")
    return tensors


def read_input(name: str, entry: Mapping[str, Any], blobs: Blobs | None, *, alone: bool) -> Array:
    """One tensor; `alone` says that the request has no other."""
    datatype, shape = field(entry, "datatype", str), shape_of(entry)
    dtype = dtype_of(name, datatype)
    parameters: dict[str, Any] = field(entry, "parameters", dict, {})
    if SHARED_MEMORY in parameters:
        raise unsupported("shared memory")
    if BINARY_SIZE in parameters:
        if "data" in entry:
            raise invalid(f"input {name!r}: must not specify both 'data' and {BINARY_SIZE!r}")
        if blobs is None:
            raise invalid(f"input {name!r} is binary: must specify a valid Inference-Header-Content-Length header")
        return tensor_from(name, dtype, shape, blobs.take(name, unsigned(parameters, BINARY_SIZE)))
    if "data" not in entry:
        if blobs is not None and alone:  # as OpenVINO Model Server has it
            return tensor_from(name, dtype, shape, blobs.take(name, len(blobs)))
        raise invalid(f"input {name!r}: Unable to parse 'data': it is missing")
    if no_json_form(dtype):
        told = "data via JSON is not supported. Please use the binary data format for input"
        raise invalid(f"receiving {datatype} {told} {name!r}")
    return tensor_of(name, dtype, shape, entry["data"])
