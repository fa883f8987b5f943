"""JSON lists of any length to arrays: at once where they are short, else a piece at a time.

Pure values, safe on any thread; what is long belongs on the pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rowserve.graphs.rows import Array
from rowserve.graphs.signature import numpy_dtype
from rowserve.handlers.json_number_lists import nested_numbers
from rowserve.handlers.json_numbers import COUNTABLE
from rowserve.handlers.json_pieces import LongList
from rowserve.handlers.json_values import JsonFault, Shape, fits, tensor


def array_of(value: Any, dtype: str, wanted: Shape, path: str, *, nan: bool = False) -> Array:
    """An array out of a value, as `tensor` gives it. Raises JsonFault, or NotJson."""
    if not isinstance(value, LongList):
        return tensor(value, dtype, wanted, path, nan=nan)
    numbers = long_numbers(value, dtype, wanted, nan=nan)
    return by_pieces(value, dtype, wanted, path, nan) if numbers is None else numbers


def long_numbers(value: LongList, dtype: str, wanted: Shape, *, nan: bool) -> Array | None:
    """The array of a list of nothing but numbers of that dtype and shape; None for any other list."""
    if dtype not in COUNTABLE:
        return None
    array = nested_numbers(value.text[value.start : value.stop], numpy_dtype(dtype), nan=nan)
    return array if array is not None and fits(array.shape, wanted) else None


def by_pieces(value: LongList, dtype: str, wanted: Shape, path: str, nan: bool) -> Array:
    """Any other array; the first element that does not fit is the fault."""
    if wanted == ():
        tensor([], dtype, wanted, path, nan=nan)  # which raises: a list is what was not wanted
    size, row = (None, None) if wanted is None else (wanted[0], wanted[1:])
    arrays: list[Array] = []
    count = 0
    for values in value.pieces():
        if isinstance(values[0], LongList):
            array = array_of(values[0], dtype, row, f"{path}[{count}]", nan=nan)[None]
        else:
            array = tensor(values, dtype, None if row is None else (None, *row), path, nan=nan, first=count)
        row = array.shape[1:]
        arrays.append(array)
        count += len(array)
        if size is not None and count > size:
            break
    if size not in (None, count):
        told = f"expected a list of {size}, found one of {'more' if count > (size or 0) else count}"
        raise JsonFault(path, told, kind="size", value=value, wanted=size)
    whole = np.concatenate(arrays)
    if not fits(whole.shape, wanted):
        raise JsonFault(path, "lists nested too deeply", kind="shape", value=value)
    return whole
