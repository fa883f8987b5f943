"""TensorFlow Serving's REST predict: requests by rows (`instances`) or by columns (`inputs`).

Pure values; large documents belong on the pool. The request's Content-Type means nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer, Rows, ShapesDiffer
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.http_headers import answer_headers
from rowserve.handlers.items import Answer, Encoded, ModelFace
from rowserve.handlers.json_excerpt import show
from rowserve.handlers.json_number_lists import nested_numbers
from rowserve.handlers.json_numbers import COUNTABLE, number_rows
from rowserve.handlers.json_pieces import PIECE, LongList, pieces_of
from rowserve.handlers.json_rows import is_object, merged, number_rows_of, row_of, same_shape_rows
from rowserve.handlers.json_tensors import array_of
from rowserve.handlers.json_values import JsonFault, fits
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving_json import json_faults, read_document, write_columns, write_rows
from rowserve.handlers.tensorflow_serving_last_dimension import as_answered, as_declared, as_written, rank_of
from rowserve.handlers.tensorflow_serving_texts import (
    CONTENT_TYPE,
    element_text,
    encode_error,
    fault_text,
    invalid,
    unimplemented,
)

PROTOCOL = "tensorflow_serving"
READ = COUNTABLE - {"float16", "bfloat16", "uint16"} | {"bool", "string"}
HEAD = re.compile(rb'\s*\{\s*(?:"signature_name"\s*:\s*"([^"\\]*)"\s*,\s*)?"(instances|inputs)"\s*:\s*(?=\[)')
TAIL = re.compile(rb'\s*(?:,\s*"signature_name"\s*:\s*"([^"\\]*)"\s*)?\}\s*')
MANY = "input tensors required as per tensorinfo_map"


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What a predict asks. `by_rows` is the form it came in, and so the form of its answer; `flat`: its inputs came
    without their last dimension of 1, and so its outputs go."""

    signature: Signature
    items: list[Rows]
    by_rows: bool
    flat: bool = False


def read_predict(face: ModelFace, body: Buffer) -> PredictRequest:
    """A predict request. Raises Problem 400, or 501 for a dtype that has no JSON form."""
    with json_faults():
        return numbers_only(face, body) or by_document(face, read_document(body))


def numbers_only(face: ModelFace, body: Buffer) -> PredictRequest | None:
    """The fast way, for one input of numbers; None for any other request, and for any fault."""
    head = HEAD.match(body, 0, PIECE)
    rest = bytes(body[-PIECE:]) if head else b""
    tail = TAIL.fullmatch(rest, rest.rfind(b"]") + 1)
    if head is None or tail is None or None not in (head[1], tail[1]):
        return None
    signature = face.signatures.get((head[1] or tail[1] or b"").decode("utf-8", "replace") or face.default)
    if signature is None or len(signature.inputs) != 1:
        return None
    spec = signature.inputs[0]
    if spec.dtype not in READ or spec.dtype not in COUNTABLE or not spec.batched or spec.row_bytes is None:
        return None
    text = body[head.end() : len(body) - len(rest) + tail.start()]
    row = tuple(size or 0 for size in spec.shape or ())
    if len(text) <= PIECE:
        array = number_rows(bytes(text), row, spec.numpy_dtype)
    else:
        array = nested_numbers(text, spec.numpy_dtype)
    if array is None or not fits(array.shape, (None, *row)):
        return None
    return PredictRequest(signature, [Rows({spec.name: array}, len(array))], head[2] == b"instances")


def by_document(face: ModelFace, document: dict[str, Any]) -> PredictRequest:
    """The slow way: any request, and every fault."""
    signature = serving_signature(face, signature_name(document))
    if "instances" in document and "inputs" in document:
        told = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        raise invalid(f"JSON Value: {show(document)} {told}")
    by_rows = "instances" in document
    if not by_rows and "inputs" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    value = document["instances" if by_rows else "inputs"]
    written = as_written(signature, row_ranks(signature, value, by_rows))
    items = read_instances(written, value) if by_rows else [read_inputs(written, value)]
    flat = written is not signature
    return PredictRequest(signature, [as_declared(signature, r) for r in items] if flat else items, by_rows, flat)


def row_ranks(signature: Signature, value: Any, by_rows: bool) -> dict[str, int]:
    """The rank of a row of each input that is there, by the first one."""
    if by_rows and isinstance(value, list | LongList):
        value = value.first() if isinstance(value, LongList) else value[0] if value else None
    named = value if is_object(signature, value) else {spec.name: value for spec in signature.inputs[:1]}
    lead = 0 if by_rows else 1
    return {name: rank_of(each) - lead for name, each in named.items()}


def signature_name(document: dict[str, Any]) -> str:
    """The name of the signature that is asked for, or "". Raises Problem 400."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        told = "not formatted correctly. 'signature_name' key must be a string value."
        raise invalid(f"JSON Value: {show(document)} {told}")
    return name


def serving_signature(face: ModelFace, name: str) -> Signature:
    """The signature of that name. Raises Problem 400."""
    try:
        return face.signature(name)
    except Problem as problem:
        told = f'Serving signature name: "{name or face.default}" not found in signature def'
        raise invalid(f"{told} ({problem.detail})") from None


def check_dtype(spec: TensorSpec, value: Any) -> None:
    """Raises Problem 501 for a dtype that has no JSON form."""
    if spec.dtype not in READ:
        raise unimplemented(value, spec.dtype)


def read_instances(signature: Signature, instances: Any) -> list[Rows]:
    """Rows, each a value (of the only input) or an object with exactly the signature's inputs."""
    if not isinstance(instances, list | LongList):
        raise invalid(f"JSON Value: {show(instances)} Excepting 'instances' to be an list/array")
    if instances == []:
        raise invalid("JSON Value: [] No values in 'instances' array")
    first = instances[0] if isinstance(instances, list) else instances.first()
    objects = is_object(signature, first)
    if not objects and len(signature.inputs) > 1:
        raise invalid(f"instances is a plain list, but expecting list of objects as multiple {MANY}")
    for spec in signature.inputs:
        check_dtype(spec, first.get(spec.name) if objects else first)
    numbers = number_rows_of(signature, instances, nan=True)
    if numbers is not None:
        return [numbers]
    rows: list[Rows] = []
    for index, values in pieces_of(instances):
        alike = is_object(signature, values[0]) == objects
        together = same_shape_rows(signature, values, nan=True) if alike else None
        found = [together] if together is not None else instances_of(signature, values, index, objects)
        check_shapes(signature, (rows or found)[0], found, index)
        rows += merged(found)
    return as_asked(signature, merged(rows))


def instances_of(signature: Signature, values: Sequence[Any], index: int, objects: bool) -> list[Rows]:
    """Elements of `instances`, one by one, from number `index` on."""
    return [instance(signature, value, i, objects) for i, value in enumerate(values, index)]


def instance(signature: Signature, value: Any, index: int, objects: bool) -> Rows:
    """One element of `instances`."""
    if is_object(signature, value) != objects:
        wanted, got = ("object", "list") if objects else ("value/list", "object")
        raise invalid(f"Expecting {wanted} but got {got} at item {index} of input list")
    path = f"instances[{index}]"
    try:
        return row_of(signature, value, path, nan=True)
    except JsonFault as fault:
        names = [spec.name for spec in signature.inputs]
        if fault.kind == "missing":
            told = f"JSON object: {show(value)} must only have keys: {','.join(names)}"
            raise invalid(f"Failed to process element: {index} of 'instances' list. {told}") from None
        if fault.kind == "unknown":
            key = fault.path.removeprefix(f"{path}.")
            raise invalid(element_text(index, key, f"JSON object: does not have named input: {key}")) from None
        keys = [name for name in names if objects and f"{fault.path}[".startswith(f"{path}.{name}[")]
        raise invalid(element_text(index, max(keys, default="", key=len), fault_text(fault))) from None


def check_shapes(signature: Signature, first: Rows, rows: Sequence[Rows], index: int) -> None:
    """Raises Problem 400 unless these rows, from number `index` on, have the first one's shapes."""
    for spec in signature.row_inputs:
        wanted = first.arrays[spec.name].shape[1:]
        at = index
        for row in rows:
            shape = row.arrays[spec.name].shape[1:]
            if shape != wanted:
                told = f"Expecting shape {brackets(wanted)} but got: {brackets(shape)}"
                raise invalid(element_text(at, spec.name if len(signature.inputs) > 1 else "", told))
            at += row.count


def as_asked(signature: Signature, rows: list[Rows]) -> list[Rows]:
    """The rows of a request; where they run alone, they must have equal static inputs. Raises Problem 400."""
    if signature.alone and signature.row_inputs and len(rows) > 1:
        raise invalid("the instances of one request must have equal values of the inputs without a batch dimension")
    return rows


def brackets(shape: Sequence[int]) -> str:
    """A shape as TensorFlow Serving writes it."""
    return f"[{','.join(map(str, shape))}]"


def read_inputs(signature: Signature, inputs: Any) -> Rows:
    """Whole tensors: the value of the only input, or an object with all of them (and whatever else)."""
    objects = is_object(signature, inputs)
    if not objects and len(signature.inputs) > 1:
        raise invalid(f"inputs is a plain value/list, but expecting an object as multiple {MANY}")
    arrays: dict[str, Array] = {}
    static: dict[str, Array] = {}
    for spec in signature.inputs:
        if objects and spec.name not in inputs:
            raise invalid(f"Missing named input: {spec.name} in 'inputs' object.")
        value = inputs[spec.name] if objects else inputs
        check_dtype(spec, value)
        shape = spec.shape if spec.shape is None or not spec.batched else (None, *spec.shape)
        try:
            array = array_of(value, spec.dtype, shape, f"inputs.{spec.name}" if objects else "inputs", nan=True)
        except JsonFault as fault:
            raise invalid(fault_text(fault)) from None
        if spec.batched and not array.ndim:
            raise invalid(f"input {spec.name} needs a batch dimension")
        (arrays if spec.batched else static)[spec.name] = array
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise invalid(f"the inputs have different numbers of rows: {counts}")
    return Rows(arrays, next(iter(counts.values()), 1), static)


def encode_predict(request: PredictRequest, answer: Answer) -> Encoded:
    """The answer in the form of the request, or the error of its first bad row."""
    try:
        outputs = whole_outputs(request, answer)
        if request.by_rows:
            check_row_form(outputs)
            body = write_rows(outputs)
        else:
            body = write_columns(outputs)
    except Problem as problem:
        return encode_error(problem)
    except ShapesDiffer as error:
        return encode_error(Problem(500, f"the rows' outputs do not make one tensor: {error}"))
    return Encoded(200, answer_headers(answer, CONTENT_TYPE), body)


def whole_outputs(request: PredictRequest, answer: Answer) -> dict[str, Array]:
    """Every output with its leading dimension. Raises the first row's Problem, or ShapesDiffer."""
    outputs = answer.stacked()
    if request.flat:
        outputs = as_answered(request.signature, outputs)
    if request.by_rows and answer.alone and not request.signature.row_inputs and len(answer) == 1:
        return {name: np.expand_dims(array, 0) for name, array in outputs.items()}  # its one instance
    return outputs


def check_row_form(outputs: dict[str, Array]) -> None:
    """Raises Problem 400 unless every output has as many rows as the others."""
    batch = 0
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if len(array) < 1:
            raise invalid(f"Tensor name: {name} has invalid batch size: {len(array)}")
        if batch not in (0, len(array)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch}")
        batch = len(array)
