"""TensorFlow Serving's JSON: NaN and infinity as bare words, what follows the document ignored, `_bytes` outputs.

Pure values, safe on any thread; large documents belong on the pool.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.rows import Array, Buffer
from rowserve.handlers.json_excerpt import show
from rowserve.handlers.json_pieces import PIECE, NotJson, read_pieces
from rowserve.handlers.json_values import without_bom
from rowserve.handlers.native_json import PLAIN
from rowserve.handlers.tensorflow_serving_texts import data_type, invalid

WRITTEN = frozenset(
    ("bool", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "object")
)
BLANK = b" \t\r\n"
BYTES_SUFFIX = "_bytes"
SLICE = 16384  # numbers that are written in one call, which holds the interpreter for 2 ms


@contextmanager
def json_faults() -> Iterator[None]:
    """Whatever of a document turns out not to be JSON goes out in TensorFlow Serving's words."""
    try:
        yield
    except NotJson as fault:
        told = f"JSON Parse error: {fault.message}. at offset: {fault.offset}"
        fault.__traceback__ = None  # its frames hold the document, and that of this very context holds the fault
        raise invalid(told) from None


def read_document(body: Buffer) -> dict[str, Any]:
    """The request: a JSON object, its long lists LongLists. Raises Problem 400, or NotJson."""
    value = read_value(body)
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {show(value)} Is not object")
    return value


def read_value(body: Buffer) -> Any:
    """The first JSON value in the body."""
    body = without_bom(body)
    if len(body) <= PIECE:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:  # NaN, or something behind the document: both are allowed
            if not bytes(body).strip(BLANK):
                raise invalid("JSON Parse error: The document is empty") from None
    return read_pieces(body)[0]


def write_rows(outputs: Mapping[str, Array]) -> bytes:
    """`{"predictions": ...}`: rows of the only output, or an object a row. Raises Problem 400."""
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        text = write_array(name, array)
    else:
        count = len(next(iter(outputs.values())))
        # Row by row: orjson's text of an array has room for some 4 kB, however short it is.
        columns = outputs.items()
        rows = [write_object({name: write_array(name, array[i, ...]) for name, array in columns}) for i in range(count)]
        text = b"[%b]" % b",".join(rows)
    return b'{\n    "predictions": %b\n}' % text


def write_columns(outputs: Mapping[str, Array]) -> bytes:
    """`{"outputs": ...}`: the only output, or an object of them. Raises Problem 400."""
    texts = {name: write_array(name, array) for name, array in outputs.items()}
    text = next(iter(texts.values())) if len(texts) == 1 else write_object(texts)
    return b'{\n    "outputs": %b\n}' % text


def write_object(texts: Mapping[str, bytes]) -> bytes:
    """An object of values that are JSON already."""
    return b"{%b}" % b",".join(b"%b:%b" % (orjson.dumps(name), text) for name, text in texts.items())


def write_array(name: str, array: Array) -> bytes:
    """Nested lists, or one value where there is no dimension. Raises Problem 400 for a dtype without a JSON form."""
    if array.dtype.name not in WRITTEN:
        raise invalid(f"Failed to write JSON value for tensor type: {data_type(array.dtype.name)}")
    if array.dtype == object:
        return write_strings(array, name.endswith(BYTES_SUFFIX))
    if not array.size:
        return orjson.dumps(array.tolist())
    if array.size > SLICE:
        rows = SLICE * len(array) // array.size
        if not rows:
            return b"[%b]" % b",".join([write_array(name, row) for row in array])
        return b"[%b]" % b",".join([write_array(name, array[i : i + rows])[1:-1] for i in range(0, len(array), rows)])
    text = orjson.dumps(np.ascontiguousarray(array) if array.ndim else array[()], option=PLAIN)
    return text if array.dtype.kind != "f" or np.isfinite(array).all() else with_words(text, array)


def with_words(text: bytes, array: Array) -> bytes:
    """Floats with every null replaced by the word for what it stands for: nothing else in the text is null."""
    flat = array.reshape(-1)
    words = [b"NaN" if np.isnan(x) else b"Infinity" if x > 0 else b"-Infinity" for x in flat[~np.isfinite(flat)]]
    pieces = text.split(b"null")
    return b"".join(part for pair in zip(pieces, [*words, b""], strict=True) for part in pair)


def write_strings(array: Array, as_b64: bool) -> bytes:
    """Strings as they are, even where they are no UTF-8 (as TensorFlow Serving has it), or {"b64": ...}."""
    if array.ndim:
        return b"[%b]" % b",".join(write_strings(row, as_b64) for row in split(array))
    element: bytes = array.item()
    if as_b64:
        return b'{"b64":"%b"}' % base64.b64encode(element)
    try:
        return orjson.dumps(element.decode())
    except UnicodeDecodeError:
        return json.dumps(element.decode("latin-1"), ensure_ascii=False).encode("latin-1")


def split(array: Array) -> list[Array]:
    """The array's parts along its first dimension, as arrays down to the last: hence the dots."""
    return [array[i, ...] for i in range(len(array))]
