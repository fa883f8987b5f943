"""How the PredictRequests of one client are laid out: most differ in the bytes of their tensors and in nothing else.

Pure values, safe on any thread. What stands around those bytes is read and checked once; a message that has the same
around them, and as many of them, needs no more than views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, ModelFace, Options, Question
from rowserve.handlers.tensorflow_serving_grpc import ModelSpec

MOST_AROUND = 4096


@dataclass(frozen=True, slots=True)
class View:
    """Where a tensor's bytes start in the message, and what they are."""

    name: str
    start: int
    dtype: np.dtype[Any]
    count: int
    shape: tuple[int, ...]

    def of(self, message: bytes) -> Array:
        """The tensor of a message."""
        return np.frombuffer(message, self.dtype, self.count, self.start).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class PredictPlan:
    """One layout, checked against a signature of `face`. `around` are the pieces that must recur, by their places."""

    size: int
    around: tuple[tuple[int, bytes], ...]
    spec: ModelSpec
    face: ModelFace
    signature: Signature
    count: int
    batched: tuple[View, ...]
    static: tuple[View, ...]
    encode: Callable[[Answer], bytes]

    def fits(self, message: bytes) -> bool:
        """Whether a message is laid out so."""
        if len(message) != self.size:
            return False
        for at, piece in self.around:  # noqa: SIM110  (twice as fast as all())
            if not message.startswith(piece, at):
                return False
        return True

    def question(self, message: bytes, options: Options) -> Question[bytes]:
        """The rows of a message that fits."""
        batched = {view.name: view.of(message) for view in self.batched}
        static = {view.name: view.of(message) for view in self.static}
        return Question(self.signature, [Rows(batched, self.count, static)], options, self.encode)


def plan_of(message: bytes, spec: ModelSpec, face: ModelFace, question: Question[bytes]) -> PredictPlan | None:
    """The layout of a message that has been read; None where a tensor is not just a piece of it."""
    (rows,) = question.items
    if not isinstance(rows, Rows):
        return None
    base = address(np.frombuffer(message, np.uint8))
    batched, static = tuple(views(rows.arrays, base)), tuple(views(rows.static, base))
    if not question.signature.inputs or len(batched) + len(static) != len(question.signature.inputs):
        return None
    ends = sorted((view.start, view.start + view.count * view.dtype.itemsize) for view in (*batched, *static))
    edges = [(0, 0), *ends, (len(message), len(message))]
    if ends[-1][1] > len(message) or ends[0][0] < 0 or sum(b[0] - a[1] for a, b in pairwise(edges)) > MOST_AROUND:
        return None
    around = tuple((a[1], message[a[1] : b[0]]) for a, b in pairwise(edges))
    return PredictPlan(
        len(message), around, spec, face, question.signature, rows.count, batched, static, question.encode
    )


def views(arrays: Mapping[str, Array], base: int) -> Iterator[View]:
    """Those of the arrays that look into foreign bytes, wherever these are."""
    for name, array in arrays.items():
        if array.dtype.kind != "O" and array.size and not array.flags.writeable:
            yield View(name, address(array) - base, array.dtype, array.size, array.shape)


def address(array: Array) -> int:
    """Where its first byte is."""
    found: int = array.__array_interface__["data"][0]
    return found
