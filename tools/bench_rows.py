"""The rows that `bench` makes up, and the choice between those sent before and new ones. Main thread.

A row is held as a `Piece`, the bytes that stand for it in a request: one for each input in the model's order, or a
line of JSON, or a picture's file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.open_inference_datatypes import DTYPES
from rowserve.tools.options import Refused

Piece = tuple[bytes, ...]
BLOCK = 1024
UNIQUE_BITS = 64
HIGHEST = 128
"""Made-up integers are below it: that is an index into most tables."""
BITS = {"bool": 1, "uint8": 8, "float64": 52, "float32": 23, "float16": 9, "bfloat16": 6}
NEW = -1


@dataclass(frozen=True)
class Input:
    """An input of the model; `shape` is a row's, with None where a size is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """That of its elements."""
        return numpy_dtype(self.dtype)


def inputs_of(metadata: Any) -> list[Input]:
    """The inputs in a metadata document of the Open Inference Protocol."""
    return [
        Input(
            entry["name"],
            DTYPES.get(entry["datatype"], "complex64"),
            tuple(None if size < 0 else size for size in entry["shape"][1:]),
        )
        for entry in metadata["inputs"]
    ]


class MadeUpRows:
    """Rows of random values: floats from 0 to 1, integers below 128 (uint8: 256).

    Raises Refused for inputs whose rows cannot be made up.
    """

    def __init__(self, inputs: Sequence[Input], random: np.random.Generator) -> None:
        for each in inputs:
            if each.dtype in (STRING, "complex64", "complex128") or None in each.shape:
                raise Refused(f"rows cannot be made up for input {each.name!r}: give some with --input")
        self._inputs = inputs
        self._random = random

    def some(self, count: int) -> list[Piece]:
        """Rows that are random all over."""
        columns = []
        for each in self._inputs:
            shape = (count, *(size or 0 for size in each.shape))
            columns.append([row.tobytes() for row in random_values(self._random, each.dtype, shape)])
        return list(zip(*columns, strict=True))

    def new(self) -> Iterator[Piece]:
        """Rows that differ in their first elements: making them costs next to nothing."""
        first, *others = self.some(1)[0]
        dtype, size = self._inputs[0].dtype, self._inputs[0].numpy_dtype.itemsize
        elements = min(len(first) // size, math.ceil(UNIQUE_BITS / BITS.get(dtype, 7)))
        width = elements * size
        tail = first[width:]
        while True:
            fronts = random_values(self._random, dtype, (BLOCK, elements)).tobytes()
            for at in range(0, BLOCK * width, width or 1):
                yield (fronts[at : at + width] + tail, *others)


def random_values(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Values that most models take."""
    kind = numpy_dtype(dtype)
    if dtype == "bool":
        return random.integers(0, 2, shape, np.uint8).view(np.bool_)
    if kind.kind in "iu":
        return random.integers(0, 256 if dtype == "uint8" else HIGHEST, shape, kind)
    return random.random(shape, np.float64 if dtype == "float64" else np.float32).astype(kind)


def repeats(share: float, known: int, random: np.random.Generator) -> Iterator[int]:
    """With probability `share` the place of one of the known rows, each as likely as the others; else NEW."""
    while True:
        places = random.integers(0, known, BLOCK)
        yield from np.where(random.random(BLOCK) < share, places, NEW).tolist()


def zipf(exponent: float, known: int, random: np.random.Generator) -> Iterator[int]:
    """Places of known rows: the k-th, counted from 1, as likely as k to the power of -exponent."""
    weights = np.cumsum(np.arange(1, known + 1, dtype=np.float64) ** -exponent)
    while True:
        found = np.searchsorted(weights, random.random(BLOCK) * weights[-1], side="right")
        yield from np.minimum(found, known - 1).tolist()
