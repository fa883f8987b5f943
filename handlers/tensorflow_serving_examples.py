"""TensorFlow Serving's REST classify and regress: JSON examples to rows of serialized tf.train.Examples, and results.

Pure values; large documents belong on the pool. Equal examples have equal bytes, and so are one row: their features
come in the order of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.proto_tables import Message
from rowserve.graphs.rows import Array, Buffer, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.http_headers import answer_headers
from rowserve.handlers.items import Answer, Encoded, ModelFace
from rowserve.handlers.json_excerpt import show
from rowserve.handlers.json_pieces import LongList, pieces_of
from rowserve.handlers.json_values import JsonFault, encoded, is_b64, unb64
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_messages import Example
from rowserve.handlers.tensorflow_serving import signature_name
from rowserve.handlers.tensorflow_serving_grpc_examples import (
    check_classify,
    check_regress,
    classification_result,
    regression_result,
    string_rows,
)
from rowserve.handlers.tensorflow_serving_json import json_faults, read_document, write_array
from rowserve.handlers.tensorflow_serving_texts import CONTENT_TYPE, encode_error, invalid, json_type
from rowserve.handlers.tensors import tensors_of

BYTES, FLOATS, INTEGERS = "bytes_list", "float_list", "int64_list"
KINDS = {BYTES: "bytes", FLOATS: "float", INTEGERS: "int64"}
LARGEST_FLOAT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class ExamplesRequest:
    """What a classify or a regress asks; `verb` says which."""

    verb: str
    signature: Signature
    items: list[Rows]


def read_examples(face: ModelFace, verb: str, body: Buffer, room: int) -> ExamplesRequest:
    """A classify or a regress. Raises Problem 400, or 413 where the context, once for each example, takes more than
    `room` bytes."""
    with json_faults():
        document = read_document(body)
        signature = signature_for(face, verb, signature_name(document))
        context = serialized(document["context"]) if "context" in document else b""
        texts = read_list(document)
        examples: list[bytes] = []
        for _, values in pieces_of(texts):
            examples += [context + serialized(value) for value in values]
            if context and len(context) * len(examples) > room:
                told = f"a context of {len(context):,} bytes for each of more than {len(examples) - 1:,} examples"
                raise Problem(413, f"{told} is more than {room:,} bytes", reason="too_large")
    (spec,) = signature.inputs
    return ExamplesRequest(verb, signature, [Rows({spec.name: string_rows(examples)}, len(examples))])


def signature_for(face: ModelFace, verb: str, name: str) -> Signature:
    """The signature of that name, which must be one of the verb. Raises Problem 400."""
    try:
        signature = face.signature(name)
    except Problem as problem:
        told = f"No signature was found with the name: {name or 'serving_default'}"
        raise invalid(f"{told} ({problem.detail})") from None
    (check_classify if verb == "classify" else check_regress)(signature)
    return signature


def read_list(document: dict[str, Any]) -> list[Any] | LongList:
    """The examples, as they stand in the document. Raises Problem 400."""
    if "examples" not in document:
        told = "When method is classify, key 'examples' is expected and was not found"
        raise invalid(f"JSON Value: {show(document)} {told}")
    examples = document["examples"]
    if not isinstance(examples, list | LongList):
        raise invalid(f"JSON Value: {show(document)} Expecting 'examples' value to be an list/array")
    if examples == []:
        raise invalid(f"JSON Value: {show(document)} 'examples' value is an empty array")
    return examples


def serialized(value: Any) -> bytes:
    """An Example's bytes. Raises Problem 400."""
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    try:
        for name, content in value.items():
            add_feature(example, name, content)
    except UnicodeEncodeError:
        raise invalid(f"JSON Value: {show(value)} is no valid Unicode") from None
    return example.SerializeToString(deterministic=True)


def add_feature(example: Message, name: str, content: Any) -> None:
    """A feature of one value or of a list of them, all of one kind. Raises Problem 400, or UnicodeEncodeError."""
    feature = example.features.feature[encoded(name).decode()]
    kind = ""
    for _, values in pieces_of(content if isinstance(content, list | LongList) else [content]):
        elements = []
        for value in values:
            found, element = element_of(name, value)
            if found != (kind or found):
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {KINDS[kind]}")
            kind = found
            elements.append(element)
        if kind:
            getattr(feature, kind).value.extend(elements)


def element_of(name: str, value: Any) -> tuple[str, Any]:
    """The list that an element of a feature goes into, and the element. Raises Problem 400."""
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return INTEGERS, int(value)
        if value < 2**64:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    if isinstance(value, int | float):
        if LARGEST_FLOAT < abs(value) != float("inf"):
            raise invalid(f"JSON Value: {show(value)} Type: Number is not of expected type: float")
        return FLOATS, value
    if isinstance(value, str):
        return BYTES, encoded(value)
    if is_b64(value):
        try:
            return BYTES, unb64(value, name)
        except JsonFault:
            raise invalid(f"Feature: {name} Unable to base64 decode") from None
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def encode_results(asked: ExamplesRequest, answer: Answer) -> Encoded:
    """`{"results": ...}`: a list of [label, score] for each example, or a number; or the error of the first bad row."""
    try:
        outputs, count = tensors_of(answer), sum(rows.count for rows in asked.items)
        if asked.verb == "classify":
            text = classes_text(classification_result(outputs, count).classifications)
        else:
            text = floats_text([each.value for each in regression_result(outputs, count).regressions])
    except Problem as problem:
        return encode_error(problem)
    return Encoded(200, answer_headers(answer, CONTENT_TYPE), b'{\n    "results": %b\n}' % text)


def classes_text(rows: Sequence[Any]) -> bytes:
    """Each row's classes."""
    return b"[%b]" % b",".join([row_text(row.classes) for row in rows])


def row_text(classes: Sequence[Any]) -> bytes:
    """One row's classes."""
    if not classes:
        return b"[]"
    scores = floats_text([each.score for each in classes])[1:-1].split(b",")
    pairs = zip(classes, scores, strict=True)
    return b"[%b]" % b",".join([b"[%b,%b]" % (orjson.dumps(each.label), score) for each, score in pairs])


def floats_text(values: Sequence[float]) -> bytes:
    """A list of floats, each with the fewest digits that give it back."""
    array: Array = np.array(values, np.float32)
    return write_array("", array)
