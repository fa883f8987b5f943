"""Inference requests of the Open Inference Protocol's REST form: JSON, with binary tensors behind it or without.

Pure values, safe on any thread; large requests belong on the pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from rowserve.graphs.rows import Array, Buffer
from rowserve.graphs.signature import STRING, Signature, TensorSpec
from rowserve.handlers.empty_batches import question_of
from rowserve.handlers.http_headers import request_options, response_coding
from rowserve.handlers.items import Encoded, ModelFace, Options, Question
from rowserve.handlers.open_inference_answer import Form, encode
from rowserve.handlers.open_inference_datatypes import LENGTH, tensor_from
from rowserve.handlers.open_inference_document import read_document
from rowserve.handlers.open_inference_inputs import Blobs, read_inputs
from rowserve.handlers.open_inference_outputs import wish
from rowserve.handlers.open_inference_pictures import pictures_of, sends_pictures
from rowserve.handlers.open_inference_plan import plan_key, planned, remember
from rowserve.handlers.open_inference_request import (
    asked_options,
    asked_signature,
    field,
    objects,
    read_wishes,
    request_id,
    unsigned,
)
from rowserve.handlers.open_inference_texts import invalid, tensor_fault
from rowserve.handlers.tensors import TensorFault, rows_of

PROTOCOL = "open_inference"
HEADER_LENGTH = "inference-header-content-length"


def read_infer(face: ModelFace, headers: Mapping[str, str], body: Buffer) -> Question[Encoded]:
    """An inference request. Raises Problem 400, or 501 for what is not served."""
    length = header_length(headers.get(HEADER_LENGTH), len(body))
    key = plan_key(headers, body, length) if length else None
    found = planned(face, key, body, length or 0)
    if found is not None:
        return found
    options = request_options(headers, PROTOCOL)
    coding = response_coding(headers.get("accept-encoding", ""))
    if length == 0:
        signature = asked_signature(face, {})
        tensors = raw_tensor(face, signature, memoryview(body))
        wishes = [wish(signature, face.name, spec.name, binary=True) for spec in signature.outputs]
        return question(face, signature, tensors, options, Form(face, wishes, "", coding))
    text = body if length is None else memoryview(body)[:length]
    document = read_document(text)
    blobs = None if length is None else Blobs(memoryview(body)[length:], face.name)
    parameters: dict[str, Any] = field(document, "parameters", dict, {})
    signature = asked_signature(face, parameters)
    all_binary: bool = field(parameters, "binary_data_output", bool, False)
    wishes = read_wishes(signature, face.name, document, all_binary)
    options = asked_options(options, unsigned(parameters, "priority"), unsigned(parameters, "timeout"))
    form = Form(face, wishes, request_id(document), coding)
    entries = objects(document, "inputs")
    if sends_pictures(face, signature, [entry.get("datatype") for entry in entries]):
        return Question(signature, pictures_of(face, signature, entries[0], blobs), options, partial(encode, form))
    tensors = read_inputs(face, signature, document, blobs)
    asked = question(face, signature, tensors, options, form)
    if key is not None:
        remember(face, key, document, asked, len(body) - len(text))
    return asked


def question(
    face: ModelFace, signature: Signature, tensors: Mapping[str, Array], options: Options, form: Form
) -> Question[Encoded]:
    """The question about these tensors. Raises Problem 400 where they do not fit the signature."""
    try:
        rows = rows_of(signature, tensors)
    except TensorFault as fault:
        raise tensor_fault(face, fault) from None
    return question_of(signature, rows, options, partial(encode, form))


def header_length(value: str | None, body: int) -> int | None:
    """How many bytes of the body are JSON; None where all of it is. Raises Problem 400."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 18 or int(value) > body:
        raise invalid(f"inference header size should be in range (0, {body}), got: {value[:40]}")
    return int(value)


def raw_tensor(face: ModelFace, signature: Signature, body: memoryview) -> dict[str, Array]:
    """The only input's bytes, as one row of it. Raises Problem 400 where their shape cannot be told."""
    if len(signature.inputs) != 1:
        told = f"but got {len(signature.inputs)} inputs in {face.name!r} model configuration"
        raise invalid(f"Raw request must only have 1 input (found 1) to be deduced {told}")
    (spec,) = signature.inputs
    if spec.dtype == STRING:
        if spec.shape not in ((), (1,), (None,)):
            raise invalid(f"For BYTE datatype raw input {spec.name!r}, the model must have input shape [1]")
        blob = memoryview(LENGTH.pack(len(body)) + bytes(body))
        return {spec.name: tensor_from(spec.name, spec.dtype, one_row(spec, (1,) * len(spec.shape or ())), blob)}
    if spec.shape is None or spec.shape.count(None) > 1:
        told = "can not be deduced because there are more than one variable-sized dimension"
        raise invalid(f"The shape of the raw input {spec.name!r} {told}")
    known = math.prod(size for size in spec.shape if size is not None) * spec.numpy_dtype.itemsize
    free = len(body) // known if known else 0
    shape = tuple(free if size is None else size for size in spec.shape)
    return {spec.name: tensor_from(spec.name, spec.dtype, one_row(spec, shape), body)}


def one_row(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor of one row."""
    return (1, *shape) if spec.batched else shape
