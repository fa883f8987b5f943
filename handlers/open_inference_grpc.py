"""The Open Inference Protocol's gRPC form of inference: a ModelInferRequest to rows, rows to a ModelInferResponse.

Pure values, safe on any thread. Both are read and written by hand (`proto_wire`), so that tensors stay where they came.
Answers always carry bytes (`raw_output_contents`): Triton's own clients read nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer
from rowserve.handlers import proto_wire
from rowserve.handlers.empty_batches import question_of
from rowserve.handlers.items import Answer, ModelFace, Options, Question
from rowserve.handlers.open_inference_answer import Form, output_parts
from rowserve.handlers.open_inference_contents import read_contents
from rowserve.handlers.open_inference_datatypes import dtype_of, tensor_from
from rowserve.handlers.open_inference_pictures import contents_of, elements_of, items_of, sends_pictures
from rowserve.handlers.open_inference_request import (
    SHARED_MEMORY,
    asked_options,
    asked_signature,
    no_unsigned,
    read_wishes,
    unsigned,
)
from rowserve.handlers.open_inference_texts import invalid, tensor_fault, unsupported
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import LENGTH, VARINT, WireFault, fields, head, number, signed, text, unpacked, whole
from rowserve.handlers.tensors import TensorFault, rows_of

PROTOCOL = "open_inference_grpc"
NAME, VERSION, ID, PARAMETERS, INPUTS, OUTPUTS, RAW = 1, 2, 3, 4, 5, 6, 7  # of a ModelInferRequest
TENSOR_DATATYPE, TENSOR_SHAPE, TENSOR_PARAMETERS, TENSOR_CONTENTS = 2, 3, 4, 5  # of an input, behind its name
OUTPUT_PARAMETERS = 2  # of an output that is asked for, behind its name
ANSWERED_OUTPUTS, ANSWERED_RAW = 5, 6  # of a ModelInferResponse
STREAM_ERROR, STREAM_RESPONSE = 1, 2  # of a ModelStreamInferResponse
INT64 = np.dtype(np.int64)
DOUBLE = struct.Struct("<d")
MOST_TENSORS = 4096
MOST_DIMENSIONS = 64
SHOWN = 64  # characters of a client's name that an error shows

Parameters = dict[str, Any]


@dataclass(slots=True)
class InputTensor:
    """An InferInputTensor as it came."""

    name: str = ""
    datatype: str = ""
    shape: list[int] = field(default_factory=list)
    parameters: Parameters = field(default_factory=dict)
    contents: list[Buffer] = field(default_factory=list)


@dataclass(slots=True)
class InferRequest:
    """A ModelInferRequest as it came; `raw` are the bytes of its inputs, in their order."""

    model: str = ""
    version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    inputs: list[InputTensor] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    raw: list[memoryview] = field(default_factory=list)


def unreadable(kind: str, fault: WireFault) -> Problem:
    """400 of bytes that are not the message that they should be."""
    return invalid(f"the request cannot be read as an inference.{kind}: {fault}")


def read_infer(message: bytes) -> InferRequest:
    """What a ModelInfer asks. Raises Problem 400."""
    request = InferRequest()
    try:
        for at, kind, _, data in fields(memoryview(message)):
            if kind == LENGTH:
                take(request, at, data)
            if len(request.inputs) > MOST_TENSORS or len(request.outputs) > MOST_TENSORS:
                raise WireFault(f"more than {MOST_TENSORS} inputs or outputs")
    except WireFault as fault:
        raise unreadable("ModelInferRequest", fault) from None
    return request


def take(request: InferRequest, at: int, data: memoryview) -> None:
    """Puts one field into the request. Raises WireFault."""
    if at == NAME:
        request.model = text(data)
    elif at == VERSION:
        request.version = text(data)
    elif at == ID:
        request.id = text(data)
    elif at == PARAMETERS:
        read_parameter(data, request.parameters)
    elif at == INPUTS:
        request.inputs.append(read_input(data))
    elif at == OUTPUTS:
        request.outputs.append(read_output(data))
    elif at == RAW:
        request.raw.append(data)


def read_input(message: memoryview) -> InputTensor:
    """An InferInputTensor. Raises WireFault."""
    tensor = InputTensor()
    for at, kind, value, data in fields(message):
        if at == TENSOR_SHAPE:
            tensor.shape += [signed(value)] if kind == VARINT else read_sizes(data)
            if len(tensor.shape) > MOST_DIMENSIONS:
                raise WireFault(f"more than {MOST_DIMENSIONS} dimensions")
        elif kind != LENGTH:
            continue
        elif at == NAME:
            tensor.name = text(data)
        elif at == TENSOR_DATATYPE:
            tensor.datatype = text(data)
        elif at == TENSOR_PARAMETERS:
            read_parameter(data, tensor.parameters)
        elif at == TENSOR_CONTENTS:
            tensor.contents.append(data)
    return tensor


def read_sizes(packed: memoryview) -> list[int]:
    """The sizes of a shape. Raises WireFault."""
    if len(packed) > 10 * MOST_DIMENSIONS:
        raise WireFault(f"more than {MOST_DIMENSIONS} dimensions")
    sizes: list[int] = unpacked(packed, INT64).tolist()
    return sizes


def read_output(message: memoryview) -> dict[str, Any]:
    """An InferRequestedOutputTensor, as the REST form has it. Raises WireFault."""
    parameters: Parameters = {}
    output: dict[str, Any] = {"name": "", "parameters": parameters}
    for at, kind, _, data in fields(message):
        if kind == LENGTH and at == NAME:
            output["name"] = text(data)
        elif kind == LENGTH and at == OUTPUT_PARAMETERS:
            read_parameter(data, parameters)
    parameters["binary_data"] = True
    return output


def read_parameter(entry: memoryview, parameters: Parameters) -> None:
    """Puts one entry of a map of InferParameters into `parameters`. Raises WireFault."""
    name = ""
    value: Any = None
    for at, kind, _, data in fields(entry):
        if kind == LENGTH and at == 1:
            name = text(data)
        elif kind == LENGTH and at == 2:
            value = read_value(data)
    parameters[name] = value


def read_value(message: memoryview) -> Any:
    """An InferParameter's value. Raises WireFault."""
    found: Any = None
    for at, kind, value, data in fields(message):
        match at, kind:
            case 1, proto_wire.VARINT:
                found = bool(value)
            case 2, proto_wire.VARINT:
                found = signed(value)
            case 3, proto_wire.LENGTH:
                found = text(data)
            case 4, proto_wire.FIXED64:
                (found,) = DOUBLE.unpack(data)
            case 5, proto_wire.VARINT:
                found = value
    return found


def infer_question(face: ModelFace, request: InferRequest, options: Options) -> Question[bytes]:
    """The rows that a request asks for. Raises Problem 400, or 501 for what is not served."""
    parameters = request.parameters
    signature = asked_signature(face, parameters)
    wishes = read_wishes(signature, face.name, {"outputs": request.outputs}, all_binary=True)
    options = asked_options(options, unsigned(parameters, "priority"), unsigned(parameters, "timeout"))
    encode = partial(encode_infer, Form(face, wishes, request.id, ""))
    if sends_pictures(face, signature, [tensor.datatype for tensor in request.inputs]):
        (tensor,) = request.inputs
        files = elements_of(request.raw[0]) if request.raw else contents_of(whole(tensor.contents or [b""]))
        return Question(signature, items_of(face, signature, tensor.shape, files), options, encode)
    try:
        rows = rows_of(signature, read_tensors(face, request))
    except TensorFault as fault:
        raise tensor_fault(face, fault) from None
    return question_of(signature, rows, options, encode)


def read_tensors(face: ModelFace, request: InferRequest) -> Mapping[str, Array]:
    """The tensors by name. Raises Problem."""
    if request.raw and len(request.raw) != len(request.inputs):
        told = f"{len(request.inputs)} inputs but {len(request.raw)} raw_input_contents"
        raise invalid(f"the request has {told} for model {face.name!r}")
    tensors: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name[:SHOWN]
        if tensor.name in tensors:
            raise invalid(f"input {name!r} already exists in request")
        if SHARED_MEMORY in tensor.parameters:
            raise unsupported("shared memory")
        if any(size < 0 for size in tensor.shape):
            raise no_unsigned("shape")
        dtype = dtype_of(name, tensor.datatype)
        if not request.raw:
            tensors[tensor.name] = read_contents(name, dtype, tensor.shape, whole(tensor.contents or [b""]))
        elif tensor.contents:
            told = "contents field must not be specified when using raw_input_contents"
            raise invalid(f"{told} for {name!r} for model {face.name!r}")
        else:
            tensors[tensor.name] = tensor_from(name, dtype, tensor.shape, request.raw[index])
    return tensors


def encode_infer(form: Form, answer: Answer) -> bytes:
    """A ModelInferResponse. Raises the first bad row's Problem."""
    parts: list[Buffer] = [about(form.face.name, form.face.version)]
    if form.id:
        parts.append(string(ID, form.id))
    raw: list[Buffer] = []
    for wish, shape, blobs in output_parts(form, answer):
        tensor = output_head(wish.spec.name, wish.datatype) + sizes(shape)
        parts += (head(ANSWERED_OUTPUTS, len(tensor)), tensor)
        raw += (head(ANSWERED_RAW, sum(map(len, blobs))), *blobs)
    return b"".join(parts + raw)


def sizes(shape: Sequence[int]) -> bytes:
    """A shape's field."""
    packed = b"".join(map(number, shape))
    return head(TENSOR_SHAPE, len(packed)) + packed


def string(at: int, value: str) -> bytes:
    """A string's field."""
    data = value.encode()
    return head(at, len(data)) + data


@lru_cache(maxsize=1024)
def about(model: str, version: int) -> bytes:
    """Whose answer it is."""
    return string(NAME, model) + string(VERSION, str(version))


@lru_cache(maxsize=1024)
def output_head(name: str, datatype: str) -> bytes:
    """An output's name and datatype."""
    return string(NAME, name) + string(TENSOR_DATATYPE, datatype)


def stream_answer(response: bytes) -> bytes:
    """A ModelStreamInferResponse of a ModelInferResponse."""
    return head(STREAM_RESPONSE, len(response)) + response


def stream_fault(message: str) -> bytes:
    """A ModelStreamInferResponse of what is wrong with one request of the stream; the next ones are answered."""
    return string(STREAM_ERROR, message)


def read_names(kind: str, message: bytes) -> tuple[str, str]:
    """The name and version of a request about a model; "" where there is none. Raises Problem 400."""
    name = version = ""
    try:
        for at, wire, _, data in fields(memoryview(message)):
            if wire == LENGTH and at == NAME:
                name = text(data)
            elif wire == LENGTH and at == VERSION:
                version = text(data)
    except WireFault as fault:
        raise unreadable(kind, fault) from None
    return name, version


def read_only_ready(message: bytes) -> bool:
    """What a RepositoryIndexRequest asks. Raises Problem 400."""
    ready = False
    try:
        for at, kind, value, _ in fields(memoryview(message)):
            if at == 2 and kind == VARINT:
                ready = bool(value)
    except WireFault as fault:
        raise unreadable("RepositoryIndexRequest", fault) from None
    return ready
