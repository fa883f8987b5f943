"""How a request with binary tensors is read, remembered by the JSON that stands before them.

Pure values, safe on any thread. A client sends the very same JSON with each request of a kind: to check it anew takes
eight times as long as all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rowserve.graphs.rows import SWAP, Array, Buffer, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, Encoded, ModelFace, Options, Question

MOST = 256  # plans of one model
LONGEST = 2048  # bytes of JSON that are remembered
# The JSON, and the headers that a question depends on beside it.
Key = tuple[bytes, str | None, str | None, str | None, str | None]
# Name, dtype, shape, and the first byte behind the JSON.
Place = tuple[str, np.dtype[Any], tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """A question but for its tensors, which are `size` bytes behind the JSON: views of them, where `batched` and
    `static` say."""

    signature: Signature
    options: Options
    encode: Callable[[Answer], Encoded]
    count: int
    batched: tuple[Place, ...]
    static: tuple[Place, ...]
    size: int

    def question(self, body: Buffer, start: int) -> Question[Encoded]:
        """The question of a body of the right size, whose tensors begin at `start`."""
        arrays = {name: np.ndarray(shape, dtype, body, start + at) for name, dtype, shape, at in self.batched}
        rows = Rows(arrays, self.count)
        if self.static:
            rows.static = {name: np.ndarray(shape, dtype, body, start + at) for name, dtype, shape, at in self.static}
        return Question(self.signature, [rows], self.options, self.encode)


def plan_key(headers: Mapping[str, str], body: Buffer, length: int) -> Key | None:
    """What tells a plan; None where the JSON is too long to be remembered."""
    if length > LONGEST:
        return None
    get = headers.get
    text = bytes(body[:length])
    return text, get("cache-control"), get("request-timeout"), get("rowserve-throw-away"), get("accept-encoding")


def remember(face: ModelFace, key: Key, document: Mapping[str, Any], question: Question[Encoded], size: int) -> None:
    """Makes a plan of a request that was read without a fault, if all its tensors are plain bytes."""
    (rows,) = question.items
    assert isinstance(rows, Rows)
    batched: list[Place] = []
    static: list[Place] = []
    at = 0
    for entry in document["inputs"]:
        name = entry["name"]
        array = rows.arrays.get(name, rows.static.get(name))
        if array is None or "data" in entry or not plain(array):
            return
        (batched if name in rows.arrays else static).append((name, array.dtype, array.shape, at))
        at += array.nbytes
    if at != size:
        return
    if len(face.plans) >= MOST:
        face.plans.clear()
    face.plans[key] = Plan(
        question.signature, question.options, question.encode, rows.count, tuple(batched), tuple(static), size
    )


def plain(array: Array) -> bool:
    """Whether any bytes would do: strings have lengths, and a bool is 0 or 1."""
    return array.dtype != object and array.dtype != bool and not SWAP


def planned(face: ModelFace, key: Key | None, body: Buffer, length: int) -> Question[Encoded] | None:
    """The question of a request whose like has been read before."""
    plan = None if key is None else face.plans.get(key)
    return plan.question(body, length) if plan is not None and plan.size == len(body) - length else None
