"""Answers of the Open Inference Protocol's REST form: JSON, with binary tensors behind it or without.

Pure values, safe on any thread; large answers belong on the pool.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.rows import Array, Buffer
from rowserve.handlers.http_headers import answer_headers
from rowserve.handlers.items import Answer, Encoded, ModelFace
from rowserve.handlers.json_pieces import Turns
from rowserve.handlers.native_json import PLAIN
from rowserve.handlers.open_inference_datatypes import tensor_bytes
from rowserve.handlers.open_inference_outputs import Wish, given
from rowserve.handlers.open_inference_texts import CONTENT_TYPE, invalid
from rowserve.handlers.tensorflow_serving_json import with_words

BINARY = "application/octet-stream"
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
SLICE = 16384  # elements that are written in one call, which holds the interpreter for 2 ms
SAMPLE = 4096  # bytes at a body's end, which tell what compression would make of it; floats stay nearly as they are
WORTH = 0.8
MOST_HEADS = 64  # answers of so many sizes are remembered
SMALL = 1400  # bytes: what fits into one packet does not travel faster for being smaller


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer is written: whose it is, its outputs, the request's id, and the content coding or ""."""

    face: ModelFace
    wishes: Sequence[Wish]
    id: str
    coding: str
    # By the number of rows, where these alone decide it: the JSON of an answer, and its length as a header.
    heads: dict[int, tuple[bytes, tuple[str, str]]] = field(default_factory=dict, repr=False, compare=False)


def encode(form: Form, answer: Answer) -> Encoded:
    """The answer. Raises the first bad row's Problem, or Problem 400 for strings that JSON cannot hold."""
    rows = answer.packed
    head = form.heads.get(len(rows)) if not answer.errors else None
    if head is not None:
        headers = [*answer_headers(answer, BINARY), head[1]]
        return compressed(form.coding, Encoded(200, headers, b"".join([head[0], *rows])))  # type: ignore[list-item]
    blobs: list[Buffer] = []
    outputs = []
    for wish, shape, parts in output_parts(form, answer):
        entry: dict[str, Any] = {"name": wish.spec.name, "datatype": wish.datatype, "shape": shape}
        if wish.binary:
            entry["parameters"] = {"binary_data_size": sum(map(len, parts))}
            blobs += parts
        else:
            entry["data"] = orjson.Fragment(parts[0])
        outputs.append(entry)
    named = {"id": form.id} if form.id else {}
    about = {**named, "model_name": form.face.name, "model_version": str(form.face.version), "outputs": outputs}
    text = orjson.dumps(about)
    if not any(map(len, blobs)):  # Triton writes no length then, and its clients cope with that
        return compressed(form.coding, Encoded(200, answer_headers(answer, CONTENT_TYPE), text))
    length = ("Inference-Header-Content-Length", str(len(text)))
    headers = [*answer_headers(answer, BINARY), length]
    if sole_tensor(form, answer) and len(form.heads) < MOST_HEADS:
        form.heads[len(rows)] = (text, length)
    return compressed(form.coding, Encoded(200, headers, b"".join([text, *blobs])))


def output_parts(form: Form, answer: Answer) -> list[tuple[Wish, Sequence[int], Sequence[Buffer]]]:
    """Each output's shape, and its bytes in parts: those of the tensor, or its JSON in one part."""
    only = sole_tensor(form, answer)
    if only is not None:
        packed = [row for row in answer.packed if row is not None]
        return [(only, (len(packed), *(size or 0 for size in answer.layout.specs[0].shape or ())), packed)]
    arrays = given(answer, form.wishes, form.face.labels)
    return [
        (wish, array.shape, [tensor_bytes(array) if wish.binary else tensor_json(wish.spec.name, array)])
        for wish, array in zip(form.wishes, arrays, strict=True)
    ]


def sole_tensor(form: Form, answer: Answer) -> Wish | None:
    """The tensor that is all of the answer, as bytes of a known size a row: the packed rows are its very bytes."""
    layout = answer.layout
    if len(form.wishes) != 1 or len(layout.specs) != 1 or not layout.row_bytes or answer.alone or answer.errors:
        return None
    (only,) = form.wishes
    return only if only.binary and not only.classes else None


def tensor_json(name: str, array: Array) -> bytes:
    """The elements as one flat list; NaN and infinity as bare words, which the clients take. Raises Problem 400."""
    flat = np.ascontiguousarray(array.reshape(-1))
    turns = Turns()
    parts = []
    for at in range(0, len(flat), SLICE):
        turns()
        parts.append(elements_json(name, flat[at : at + SLICE])[1:-1])
    return b"[%b]" % b",".join(parts)


def elements_json(name: str, flat: Array) -> bytes:
    """A few elements as a list."""
    if flat.dtype == object:
        try:
            return orjson.dumps([element.decode() for element in flat])
        except UnicodeDecodeError:
            told = "holds bytes that are no UTF-8, which JSON cannot hold; ask for it with binary_data"
            raise invalid(f"output {name!r} {told}") from None
    text = orjson.dumps(flat, option=PLAIN)
    return text if flat.dtype.kind != "f" or np.isfinite(flat).all() else with_words(text, flat)


def compressed(coding: str, answer: Encoded) -> Encoded:
    """The answer in that content coding, where that makes it much smaller: many clients ask for it by themselves."""
    if not coding or len(answer.body) <= SMALL:
        return answer
    if len(zlib.compress(answer.body[-SAMPLE:], 1)) > WORTH * min(SAMPLE, len(answer.body)):
        return answer
    packer = zlib.compressobj(1, wbits=CODINGS[coding])
    body = packer.compress(answer.body) + packer.flush()
    return Encoded(answer.status, [*answer.headers, ("Content-Encoding", coding)], body, answer.reason)
