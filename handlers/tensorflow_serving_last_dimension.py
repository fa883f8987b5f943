"""Tensors without their last dimension of 1: TensorFlow Serving's clients send `[1.0, 2.0]` for an input of `[-1, 1]`.

Pure values, safe on any thread. Whether a tensor came so is decided here, for every form of a predict; the rows are
then those that the declared shape gives, and outputs of row shape `[1]` go the way the inputs came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.json_pieces import LongList


def as_written(signature: Signature, ranks: Mapping[str, int]) -> Signature:
    """The signature that inputs of these ranks (of a row) are of: the very same, where none lacks a dimension."""
    inputs = tuple(without_last(spec) if lacks_last(spec, ranks.get(spec.name)) else spec for spec in signature.inputs)
    return signature if inputs == signature.inputs else replace(signature, inputs=inputs)


def lacks_last(spec: TensorSpec, rank: int | None) -> bool:
    """Whether a row of that rank is one of the spec but for a last dimension of 1."""
    shape = spec.shape or ()
    return spec.batched and shape[-1:] == (1,) and rank == len(shape) - 1


def without_last(spec: TensorSpec) -> TensorSpec:
    """The spec without its last dimension."""
    return replace(spec, shape=(spec.shape or ())[:-1])


def as_declared(signature: Signature, rows: Rows) -> Rows:
    """Rows as they were written, in the shapes of the signature."""
    arrays = dict(rows.arrays)
    for spec in signature.row_inputs:
        if lacks_last(spec, arrays[spec.name].ndim - 1):
            arrays[spec.name] = arrays[spec.name][..., None]
    return Rows(arrays, rows.count, rows.static)


def as_answered(signature: Signature, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs [rows, ...] for who left the last dimension out: those of row shape [1] lose it."""
    only = {spec.name for spec in signature.outputs if spec.batched and spec.shape == (1,)}
    return {name: array[..., 0] if name in only else array for name, array in outputs.items()}


def rank_of(value: Any) -> int:
    """How deep a JSON value's lists are nested, by their first elements."""
    rank = 0
    while isinstance(value, list | LongList):
        rank += 1
        if isinstance(value, list):
            value = value[0] if value else None
        else:
            value = value.first()
    return rank
