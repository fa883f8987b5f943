"""TensorFlow Serving's gRPC Predict: a PredictRequest to rows, rows to a PredictResponse.

Pure values, safe on any thread. Both are read and written by hand (`proto_wire`), so that tensors stay where they came
and nothing grows with a claim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer, as_bytes
from rowserve.graphs.signature import Signature
from rowserve.handlers.empty_batches import question_of
from rowserve.handlers.grpc_status import GrpcProblem
from rowserve.handlers.items import Answer, ModelFace, Options, Question
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import LENGTH, VARINT, WireFault, fields, head, number, signed, text, whole
from rowserve.handlers.tensor_protos import PLAIN, Budget, TensorProtoFault, plain_parts, read_tensor, tensor_parts
from rowserve.handlers.tensorflow_serving_last_dimension import as_answered, as_declared, as_written
from rowserve.handlers.tensorflow_serving_texts import invalid
from rowserve.handlers.tensors import rows_of, tensors_of

PROTOCOL = "tensorflow_serving_grpc"
MODEL_SPEC, INPUTS, OUTPUT_FILTER = 1, 2, 3  # of a PredictRequest
OUTPUTS, ANSWERED_SPEC = 1, 2  # of a PredictResponse
KEY, VALUE = 1, 2  # of a map's entry
MOST_NAMES = 4096


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model a request wants; `version` None, or 0, is the latest. A `label` names a version in words."""

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A PredictRequest whose tensors are still TensorProtos."""

    spec: ModelSpec
    inputs: Mapping[str, Buffer]
    outputs: Sequence[str]


def unreadable(kind: str, fault: WireFault) -> Problem:
    """400 of bytes that are not the message that they should be."""
    return invalid(f"the request cannot be read as a tensorflow.serving.{kind}: {fault}")


def read_spec(message: memoryview) -> ModelSpec:
    """A ModelSpec. Raises WireFault, or Problem 400 where it names no model."""
    name, signature = "", ""
    version: int | None = None
    label: str | None = None
    for at, kind, _, data in fields(message):
        if kind != LENGTH:
            continue
        if at == 1:
            name = text(data)
        elif at == 2:
            version, label = read_int64(data), None
        elif at == 3:
            signature = text(data)
        elif at == 4:
            version, label = None, text(data)
    if not name:
        raise invalid("ModelSpec has no name specified.")
    return ModelSpec(name, version, label, signature)


def read_int64(message: memoryview) -> int:
    """A google.protobuf.Int64Value."""
    found = 0
    for at, kind, value, _ in fields(message):
        if at == 1 and kind == VARINT:
            found = signed(value)
    return found


def read_predict(message: bytes) -> PredictRequest:
    """What a Predict asks. Raises Problem 400."""
    spec: list[Buffer] = []
    inputs: dict[str, Buffer] = {}
    outputs: list[str] = []
    try:
        for at, kind, _, data in fields(memoryview(message)):
            if kind != LENGTH:
                continue
            if at == MODEL_SPEC:
                spec.append(data)
            elif at == INPUTS:
                name, tensor = read_entry(data)
                inputs[name] = tensor
            elif at == OUTPUT_FILTER:
                outputs.append(text(data))
            if len(inputs) > MOST_NAMES or len(outputs) > MOST_NAMES:
                raise WireFault(f"more than {MOST_NAMES} inputs or outputs")
        return PredictRequest(given_spec(spec), inputs, outputs)
    except WireFault as fault:
        raise unreadable("PredictRequest", fault) from None


def given_spec(spec: list[Buffer]) -> ModelSpec:
    """The ModelSpec, which must be there. Raises WireFault or Problem 400."""
    if not spec:
        raise invalid("Missing ModelSpec")
    return read_spec(whole(spec))


def read_entry(message: memoryview) -> tuple[str, memoryview]:
    """An entry of a map from names to messages."""
    name = ""
    value: list[Buffer] = []
    for at, kind, _, data in fields(message):
        if kind == LENGTH and at == KEY:
            name = text(data)
        elif kind == LENGTH and at == VALUE:
            value.append(data)
    return name, whole(value)


def signature_of(face: ModelFace, name: str) -> Signature:
    """The signature of that name. Raises GrpcProblem FAILED_PRECONDITION."""
    try:
        return face.signature(name)
    except Problem as problem:
        told = f'Serving signature key "{name or face.default}" not found. ({problem.detail})'
        raise GrpcProblem("FAILED_PRECONDITION", 400, told) from None


def predict_question(face: ModelFace, request: PredictRequest, options: Options, room: int) -> Question[bytes]:
    """The rows that a request asks for. Raises Problem.

    Tensors that repeat their last value may take up to `room` bytes together.
    """
    signature = signature_of(face, request.spec.signature)
    check_names(signature, request)
    budget = Budget(room)
    tensors: dict[str, Array] = {}
    for name, proto in request.inputs.items():
        try:
            tensors[name] = read_tensor(memoryview(proto), budget)
        except TensorProtoFault as fault:
            raise TensorProtoFault(f"tensor parsing error: {name}: {fault.detail}", fault.status) from None
    written = as_written(signature, {name: array.ndim - 1 for name, array in tensors.items()})
    rows = rows_of(written, tensors)
    flat = written is not signature
    encode = partial(encode_predict, face, signature, tuple(request.outputs) or None, flat)
    return question_of(signature, as_declared(signature, rows) if flat else rows, options, encode)


def check_names(signature: Signature, request: PredictRequest) -> None:
    """Raises Problem 400 unless the inputs are the signature's and the outputs are some of it."""
    wanted = {spec.name for spec in signature.inputs}
    sent = request.inputs.keys()
    if len(sent) != len(wanted):
        told = f"input size does not match signature: {len(sent)}!={len(wanted)} len({braces(sent)})"
        told += f" != len({braces(wanted)}). Sent extra: {braces(sent - wanted)}."
        raise invalid(f"{told} Missing but required: {braces(wanted - sent)}.")
    for name in sent:
        if name not in wanted:
            told = f"input tensor alias not found in signature: {name}."
            raise invalid(f"{told} Inputs expected to be in the set {braces(wanted)}.")
    seen: set[str] = set()
    for name in request.outputs:
        if signature.output(name) is None:
            told = f"output tensor alias not found in signature: {name}"
            there = braces(spec.name for spec in signature.outputs)
            raise invalid(f"{told} Outputs expected to be in the set {there}.")
        if name in seen:
            raise invalid(f"duplicate output tensor alias: {name}")
        seen.add(name)


def braces(names: Iterable[str]) -> str:
    """Names as TensorFlow Serving lists them."""
    return "{" + ",".join(sorted(names)) + "}"


def encode_predict(
    face: ModelFace, signature: Signature, names: tuple[str, ...] | None, flat: bool, answer: Answer
) -> bytes:
    """A PredictResponse; `flat`: the inputs came without their last dimension of 1. Raises the first bad row's
    Problem."""
    outputs = [] if flat else plain_rows(signature, answer)
    if not outputs:
        named = tensors_of(answer, names)
        if flat:
            named = as_answered(signature, named)
        outputs = [part for name, array in named.items() for part in output_parts(name, array)]
    return b"".join((*outputs, spec_field(face.name, face.version, signature.name)))


def plain_rows(signature: Signature, answer: Answer) -> list[Buffer]:
    """The only output, where the packed rows are its very bytes; else nothing."""
    rows = [row for row in answer.packed if row is not None]
    if len(signature.outputs) != 1 or answer.alone or answer.errors or not rows:
        return []
    spec = signature.outputs[0]
    if not spec.row_bytes or spec.numpy_dtype not in PLAIN or any(len(row) != spec.row_bytes for row in rows):
        return []
    return [plain_head(spec.name, spec.numpy_dtype, (len(rows), *(size or 0 for size in spec.shape or ()))), *rows]


def output_parts(name: str, array: Array) -> list[Buffer]:
    """One output, in pieces."""
    if array.size and array.dtype in PLAIN:
        return [plain_head(name, array.dtype, array.shape), as_bytes(array)]
    tensor = tensor_parts(array)
    return [output_head(name, sum(map(len, tensor))), *tensor]


@lru_cache(maxsize=1024)
def plain_head(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """All that stands before the bytes of an output: the same for every answer of so many rows."""
    size = math.prod(shape) * dtype.itemsize
    start = b"".join(plain_parts(dtype.name, shape, size))
    return output_head(name, len(start) + size) + start


def output_head(name: str, size: int) -> bytes:
    """What stands before an output's TensorProto of so many bytes."""
    key, value = entry_key(name), head(VALUE, size)
    return head(OUTPUTS, len(key) + len(value) + size) + key + value


@lru_cache(maxsize=1024)
def entry_key(name: str) -> bytes:
    """The key of a map's entry."""
    return head(KEY, len(name.encode())) + name.encode()


@lru_cache(maxsize=1024)
def spec_field(name: str, version: int, signature: str) -> bytes:
    """The ModelSpec of a response: always a number for the version, never the label."""
    counted = number(1 << 3) + number(version)
    spec = entry_key(name) + head(2, len(counted)) + counted
    spec += head(3, len(signature.encode())) + signature.encode()
    return head(ANSWERED_SPEC, len(spec)) + spec
