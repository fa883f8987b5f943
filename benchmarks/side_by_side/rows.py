"""The rows that all sides are sent, and how each side wants them written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array

DATATYPES = {"float32": "FP32", "uint8": "UINT8"}


@dataclass(frozen=True)
class Model:
    """A model that the sides serve: one input, with `shape` a row's, and one output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    taken: str = "x"
    given: str = "y"

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def rows(self, count: int, seed: int) -> Array:
        """Different rows: numbers of a normal distribution, or pictures of coarse blocks and some noise."""
        random = np.random.default_rng(seed)
        if len(self.shape) < 3:
            return random.standard_normal((count, *self.shape), np.float32).astype(self.dtype)
        coarse = random.integers(0, 236, (count, 14, 14, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        pictures: Array = coarse + random.integers(0, 20, coarse.shape, np.uint8)
        return pictures if self.dtype == "uint8" else (pictures / np.float32(255)).astype(self.dtype)


TINY = Model("tiny", "float32", (16,))
MOBILENET = Model("mobilenet", "uint8", (224, 224, 3))
EFFICIENTNET = Model("efficientnet_lite0", "float32", (224, 224, 3), "images", "probabilities")


@dataclass(frozen=True)
class Form:
    """What a request looks like. `front(model, rows)` stands before the rows, `row` is one of them, `between` and
    `end` what their name says; `answer(headers, body)` is y, one row after the other, as far as it can be read.
    """

    headers: Callable[[Model, int], dict[str, str]]
    front: Callable[[Model, int], bytes]
    row: Callable[[Array], bytes]
    answer: Callable[[Any, bytes], Array]
    between: bytes = b""
    end: bytes = b""
    text: bool = False

    def body(self, model: Model, rows: Array) -> bytes:
        """The body with these rows."""
        return self.front(model, len(rows)) + self.between.join(map(self.row, rows)) + self.end


def open_inference_head(model: Model, rows: int) -> bytes:
    """The JSON before binary tensors."""
    size = rows * model.row_bytes
    shape, binary = [rows, *model.shape], {"binary_data_size": size}
    taken = {"name": model.taken, "shape": shape, "datatype": DATATYPES[model.dtype], "parameters": binary}
    given = {"name": model.given, "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [taken], "outputs": [given]}, separators=(",", ":")).encode()


def binary_headers(model: Model, rows: int) -> dict[str, str]:
    """Of the Open Inference Protocol."""
    head = len(open_inference_head(model, rows))
    return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(head)}


def raw_headers(model: Model, rows: int) -> dict[str, str]:
    """Of the rivals that take rows as they are."""
    return {"Content-Type": "application/octet-stream", "X-Rows": str(rows)}


def json_headers(model: Model, rows: int) -> dict[str, str]:
    """JSON."""
    return {"Content-Type": "application/json"}


def nothing(model: Model, rows: int) -> bytes:
    """Before the rows."""
    return b""


def floats(headers: Any, body: bytes) -> Array:
    """An answer of float32 behind what may be its JSON."""
    return np.frombuffer(body[int(headers.get("Inference-Header-Content-Length") or 0) :], "<f4")


def json_floats(headers: Any, body: bytes) -> Array:
    """An answer of {"y": [[...]]}, of a bare list, or of the Open Inference Protocol."""
    told = json.loads(body)
    if isinstance(told, dict):
        told = told["y"] if "y" in told else told["outputs"][0]["data"]
    return np.array(told, np.float32).ravel()


def json_row(row: Array) -> bytes:
    """A row as JSON."""
    return json.dumps(row.tolist()).encode()


def triton_json_front(model: Model, rows: int) -> bytes:
    """The Open Inference Protocol's JSON before a tensor's data."""
    shape = [rows, *model.shape]
    return b'{"inputs":[{"name":"x","shape":%s,"datatype":"FP32","data":[' % json.dumps(shape).encode()


FORMS = {
    "binary": Form(binary_headers, open_inference_head, bytes, floats),
    "raw": Form(raw_headers, nothing, bytes, floats),
    "json": Form(json_headers, lambda *_: b'{"x": [', json_row, json_floats, b",", b"]}", text=True),
    "v2json": Form(json_headers, triton_json_front, json_row, json_floats, b",", b"]}]}", text=True),
}


def equal(got: Sequence[Array], wanted: Sequence[Array]) -> bool:
    """Whether answers are the model's, within what another batch size changes."""
    return all(
        one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-6))
        for one, other in zip(got, wanted, strict=True)
    )
