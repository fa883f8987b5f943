"""Batches without a row: their answers have the shapes that a row of that very shape would have.

Pure values, safe on any thread. Where the signature declares all sizes of an output, they are these. Else one row of
zeros is asked for in its stead, and none of it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from rowserve.graphs.rows import Array, RowLayout, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, Options, Question

E = TypeVar("E")
MOST_BYTES = 1 << 20  # of the row of zeros: a shape costs a client nothing


def question_of(signature: Signature, rows: Rows, options: Options, encode: Callable[[Answer], E]) -> Question[E]:
    """The question about rows, which may be none."""
    if rows.count or not rows.arrays or signature.alone or all(fixed(spec.shape) for spec in signature.outputs):
        return Question(signature, [rows], options, encode)
    sizes = [math.prod(array.shape[1:]) * array.itemsize for array in rows.arrays.values()]
    if sum(sizes) > MOST_BYTES:
        return Question(signature, [rows], options, encode)
    stand_in = Rows({name: zeros(array) for name, array in rows.arrays.items()}, 1, rows.static)
    return Question(signature, [stand_in], options, partial(encode_none, encode))


def fixed(shape: tuple[int | None, ...] | None) -> bool:
    """Whether all its sizes are declared."""
    return shape is not None and None not in shape


def zeros(like: Array) -> Array:
    """One row of zeros, or of empty strings, of that row shape."""
    shape = (1, *like.shape[1:])
    return np.full(shape, b"", dtype=object) if like.dtype == object else np.zeros(shape, like.dtype)


def encode_none(encode: Callable[[Answer], E], answer: Answer) -> E:
    """An answer of no row, in the shapes of the row that was answered; as declared, where it was not."""
    specs = answer.layout.specs
    if not answer.errors:
        row = answer.row(0)
        specs = tuple(replace(spec, shape=row[spec.name].shape) for spec in specs)
    return encode(Answer(RowLayout(specs), [], [], {}, answer.timing))
