"""JSON rows of a signature: the value itself where there is one input, else an object of input name to value.

Pure values, safe on any thread. Many rows become one array an input where their shapes allow it; of a long list the
rows of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import plain_names
from rowserve.handlers.json_pieces import LongList
from rowserve.handlers.json_tensors import array_of, long_numbers
from rowserve.handlers.json_values import JsonFault, is_b64, kind_of, tensor


def row_of(signature: Signature, value: Any, path: str, *, nan: bool = False) -> Rows:
    """One row, with its static inputs. Raises JsonFault with the path to what is wrong."""
    named = inputs_of(signature, value, path)
    arrays, static = {}, {}
    for spec in signature.inputs:
        where = path if named is None else f"{path}.{spec.name}"
        array = array_of(value if named is None else named[spec.name], spec.dtype, spec.shape, where, nan=nan)
        if spec.batched:
            arrays[spec.name] = array[None]
        else:
            static[spec.name] = array
    return Rows(arrays, 1, static)


def number_rows_of(signature: Signature, values: list[Any] | LongList, nan: bool) -> Rows | None:
    """All rows of a long list of nothing but numbers; None of any other."""
    if not isinstance(values, LongList) or len(signature.inputs) != 1 or signature.static_inputs:
        return None
    spec = signature.inputs[0]
    array = long_numbers(values, spec.dtype, None if spec.shape is None else (None, *spec.shape), nan=nan)
    return None if array is None else Rows({spec.name: array}, len(array))


def same_shape_rows(signature: Signature, values: Sequence[Any], nan: bool) -> Rows | None:
    """All rows in one array an input; None where any of them asks for a closer look."""
    if signature.static_inputs or not values:
        return None
    names = {spec.name for spec in signature.inputs}
    as_objects = is_object(signature, values[0])
    if as_objects:
        if any(not isinstance(value, dict) or value.keys() != names for value in values):
            return None
    elif len(names) != 1 or isinstance(values[0], LongList):
        return None
    arrays = {}
    try:
        for spec in signature.inputs:
            column = [value[spec.name] for value in values] if as_objects else list(values)
            if isinstance(column[0], LongList):
                return None
            shape = None if spec.shape is None else (None, *spec.shape)
            arrays[spec.name] = tensor(column, spec.dtype, shape, "", nan=nan)
    except JsonFault:
        return None
    return Rows(arrays, len(values))


def is_object(signature: Signature, value: Any) -> bool:
    """Whether a row is an object of input names, not a value that is itself written as an object."""
    if is_b64(value):
        return [spec.name for spec in signature.inputs] == ["b64"]
    return isinstance(value, dict)


def inputs_of(signature: Signature, value: Any, path: str) -> dict[str, Any] | None:
    """The values by input name, or None where the row is the value of the only input. Raises JsonFault."""
    names = [spec.name for spec in signature.inputs]
    if not is_object(signature, value):
        if len(names) == 1:
            return None
        told = f"expected an object with the inputs {plain_names(names)}, found {kind_of(value)}"
        raise JsonFault(path, told, kind="object", value=value, wanted=names)
    for name in value:
        if name not in names:
            told = f"no such input; there are: {plain_names(names)}"
            raise JsonFault(f"{path}.{name[:64]}", told, kind="unknown", value=value, wanted=names)
    for name in names:
        if name not in value:
            raise JsonFault(path, f"input {name!r} is missing", kind="missing", value=value, wanted=names)
    return dict(value)


def merged(rows: Iterable[Rows]) -> list[Rows]:
    """Neighbours of equal shapes and static inputs put together."""
    groups: list[list[Rows]] = []
    for row in rows:
        if groups and alike(groups[-1][0], row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [together(group) for group in groups]


def alike(one: Rows, other: Rows) -> bool:
    """Whether two rows can stand in one array, under the same static inputs; never without any array."""
    if not one.arrays or any(one.arrays[name].shape[1:] != other.arrays[name].shape[1:] for name in one.arrays):
        return False
    return all(same(one.static[name], other.static[name]) for name in one.static)


def same(one: Array, other: Array) -> bool:
    """Equal to the bit: a NaN equals itself, 0.0 is not -0.0."""
    if one.shape != other.shape:
        return False
    return bool((one == other).all()) if one.dtype == object else one.tobytes() == other.tobytes()


def together(group: Sequence[Rows]) -> Rows:
    """Rows that are alike, as one."""
    if len(group) == 1:
        return group[0]
    arrays = {name: np.concatenate([row.arrays[name] for row in group]) for name in group[0].arrays}
    return Rows(arrays, sum(row.count for row in group), group[0].static)
