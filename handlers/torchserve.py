"""TorchServe's predictions: a picture, a tensor's bytes, a text or JSON in; labels and scores, or outputs, out.

Pure values; large documents belong on the pool. What a body is, its Content-Type says where that is JSON or a picture;
else the model's input and the bytes themselves do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson

from rowserve.graphs.rows import Array, Buffer, Rows, from_bytes
from rowserve.graphs.signature import STRING, Signature, TensorSpec
from rowserve.handlers.http_headers import answer_headers, request_options
from rowserve.handlers.instances import (
    WRAPPERS,
    picture,
    predictions,
    ran_whole,
    read_document,
    read_instance,
    read_instances,
    takes_pictures,
    write_list,
)
from rowserve.handlers.items import Answer, Encoded, Item, ModelFace, Question
from rowserve.handlers.json_number_lists import nested_numbers
from rowserve.handlers.json_numbers import COUNTABLE, number_lines
from rowserve.handlers.json_pieces import PIECE, LongList
from rowserve.handlers.multipart import Part
from rowserve.handlers.native_json import PLAIN, jsonable
from rowserve.handlers.picture_header import FORMATS, picture_header
from rowserve.handlers.problem import Problem
from rowserve.handlers.top_classes import top_classes
from rowserve.handlers.torchserve_texts import CONTENT_TYPE, bad_request, own_headers

PROTOCOL = "torchserve"
FORM_FIELDS = "application/x-www-form-urlencoded"
JSON_TYPES = ("application/json", "text/json")
RAW = "application/octet-stream"
TOP = 5
SHORT_FORM = 1 << 20  # a form in the URL's way has an object for each %xx while it is read


@dataclass(frozen=True, slots=True)
class Given:
    """What was sent: `listed` where it is answered by a list, one value an instance, else by one value."""

    items: Sequence[Item]
    listed: bool


def read_prediction(
    face: ModelFace, headers: Mapping[str, str], body: Buffer, content_type: str | None = None
) -> Question[Encoded]:
    """A request whose body, or the one part of it that counts, has this type (default: the header's).

    Raises Problem 400 or 422.
    """
    options = request_options(headers, PROTOCOL)
    signature = face.signature()
    kind = headers.get("content-type", "") if content_type is None else content_type
    given = read_given(face, signature, kind.partition(";")[0].strip().lower(), body)
    return Question(signature, given.items, options, partial(encode_prediction, face, signature, given))


def form_part(parts: Sequence[Part]) -> Part:
    """The part that counts: the last one called `data` or `body`, or the only one. Raises Problem 400."""
    for name in WRAPPERS:
        named = [part for part in parts if part.name == name]
        if named:
            return named[-1]
    if len(parts) == 1:
        return parts[0]
    told = ", ".join(repr(part.name[:40]) for part in parts[:5])
    raise bad_request(f"the form has the fields {told}; send one, called data")


def read_given(face: ModelFace, signature: Signature, kind: str, body: Buffer) -> Given:
    """What the bytes are. Raises Problem 400 or 422."""
    if kind == FORM_FIELDS:
        body = form_value(body)
    if not len(body):
        raise bad_request("the request has no body: send a picture, a tensor's bytes or JSON")
    if kind in JSON_TYPES:
        return read_json_body(face, signature, body)
    spec = signature.inputs[0] if len(signature.inputs) == 1 and signature.inputs[0].batched else None
    count = whole_rows(spec, body)
    if kind.startswith("image/") or (takes_pictures(face, signature) and is_picture(body, count)):
        return Given([picture(face, signature, body)], False)
    if spec is not None and spec.dtype == STRING and set(spec.shape or ()) <= {1}:
        array = np.empty((1, *(1 for _ in spec.shape or ())), object)
        array.flat[0] = bytes(body)
        return Given([Rows({spec.name: array}, 1)], False)
    if kind != RAW and bytes(body[:64]).lstrip()[:1] in (b"[", b"{"):
        try:
            return read_json_body(face, signature, body)
        except Problem:
            if not count:
                raise
    if spec is None or not count:
        raise bad_request(f"the body is neither {expected(face, signature, spec)}JSON")
    return Given([Rows({spec.name: raw_rows(spec, body, count)}, count)], count > 1)


def form_value(body: Buffer) -> Buffer:
    """The value of `data=...`; a body that only bears a form's type (curl -d, --data-binary) as it is."""
    for name in WRAPPERS:
        start = f"{name}=".encode()
        if bytes(body[: len(start)]) == start:
            if len(body) > SHORT_FORM:
                raise Problem(413, f"a form of more than {SHORT_FORM:,} bytes: send it as multipart/form-data")
            return unquote_to_bytes(bytes(body[len(start) :]).partition(b"&")[0].replace(b"+", b" "))
    return body


def expected(face: ModelFace, signature: Signature, spec: TensorSpec | None) -> str:
    """What a body may be, beside JSON."""
    told = "a picture nor " if takes_pictures(face, signature) else ""
    if spec is not None and spec.row_bytes:
        told += f"whole rows of {spec.row_bytes:,} bytes nor "
    return told


def whole_rows(spec: TensorSpec | None, body: Buffer) -> int:
    """How many rows of the input the bytes make; 0 where they make none."""
    if spec is None or not spec.row_bytes or len(body) % spec.row_bytes:
        return 0
    return len(body) // spec.row_bytes


def raw_rows(spec: TensorSpec, body: Buffer, count: int) -> Array:
    """Little-endian bytes as rows, without a copy. Raises Problem 400 for a boolean that is neither 0 nor 1."""
    if spec.dtype == "bool" and (np.frombuffer(body, np.uint8) > 1).any():
        raise bad_request(f"input {spec.name} takes a byte of 0 or 1 for each boolean")
    return from_bytes(memoryview(body), spec.numpy_dtype, (count, *(size or 0 for size in spec.shape or ())))


def is_picture(body: Buffer, count: int) -> bool:
    """Whether the bytes are a picture's file; where they are `count` whole rows as well, its header must be sound."""
    start = bytes(body[:16])
    if not any(known(start) for _, known, _ in FORMATS):
        return False
    if not count:
        return True
    try:
        header = picture_header(body)
    except Problem:
        return False
    return header.format != "BMP" or int.from_bytes(start[2:6], "little") == len(body)


def read_json_body(face: ModelFace, signature: Signature, text: Buffer) -> Given:
    """`{"instances": [...]}`, or one instance. Raises Problem 400 or 422."""
    one = one_row(signature, text)
    if one is not None:
        return Given([one], False)
    value = read_document(text)
    if isinstance(value, dict) and list(value) == ["instances"] and signature.input("instances") is None:
        if not isinstance(value["instances"], list | LongList):
            raise bad_request("instances must be a list")
        return Given(read_instances(face, signature, value["instances"], "instances"), True)
    return Given([read_instance(face, signature, value, "body")], False)


def one_row(signature: Signature, text: Buffer) -> Rows | None:
    """The fast way, for one instance of the only input, of numbers; None for anything else, and for any fault."""
    spec = signature.inputs[0] if len(signature.inputs) == 1 else None
    if spec is None or not spec.batched or spec.dtype not in COUNTABLE or not spec.row_bytes:
        return None
    shape = tuple(size or 0 for size in spec.shape or ())
    if len(text) <= PIECE:
        array = number_lines([bytes(text).strip()], shape, spec.numpy_dtype)
    else:
        whole = nested_numbers(text, spec.numpy_dtype)
        array = None if whole is None or whole.shape != shape else whole[None]
    return None if array is None else Rows({spec.name: array}, 1)


def encode_prediction(face: ModelFace, signature: Signature, given: Given, answer: Answer) -> Encoded:
    """`{"label": score, ...}` of the best classes, or the outputs; in a list where there were instances.

    Raises the first bad row's Problem.
    """
    labels = face.labels
    if labels is None or signature.output(labels.output) is None:
        values = predictions(face, signature, given.items, answer)
        body = write_list(values) if given.listed else orjson.dumps(values[0], option=PLAIN)
    else:
        whole = ran_whole(signature, given.items, answer)
        count, name = len(answer), labels.output
        rows = [answer.row(i)[name] for i in range(count)] if whole is None else list(whole[name])
        values = [best_classes(labels.names, row) for row in rows]
        body = orjson.dumps(values if given.listed else values[0], option=PLAIN | orjson.OPT_INDENT_2)
    return Encoded(200, [*answer_headers(answer, CONTENT_TYPE), *own_headers()], body)


def best_classes(names: Sequence[str], scores: Array) -> dict[str, Any]:
    """The scores of the best classes by label, best first; where two have one label, the better one's."""
    flat = scores.reshape(1, -1)
    told: dict[str, Any] = {}
    for index in top_classes(flat, TOP)[0].tolist():
        told.setdefault(names[index] if index < len(names) else str(index), jsonable(np.array(flat[0, index])))
    return told
