"""Arrays as native JSON takes them: NaN and infinity are null, bytes that are no UTF-8 are {"b64": ...}.

Pure values, safe on any thread.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.rows import Array

PLAIN = orjson.OPT_SERIALIZE_NUMPY
LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
AS_IS = frozenset("?BHILQbhilqfd")  # by their characters: a dtype's name costs 5 us


def jsonable(array: Array) -> Any:
    """What orjson writes for this array: shortest digits that come back as the same float32."""
    if array.dtype == object:
        return strings(array)
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)  # [real, imaginary]
    if array.dtype.char not in AS_IS:
        array = array.astype(np.float32)  # float16 and bfloat16, exactly
    if not array.ndim:
        return array[()]
    return array if array.size and array.flags.c_contiguous else array.tolist() if not array.size else array.copy()


def strings(array: Array) -> Any:
    """Nested lists of text."""
    if not array.ndim:
        return text(array.item())
    if array.ndim == 1:
        return [text(element) for element in array]
    return [strings(row) for row in array]


def text(element: bytes) -> str | dict[str, str]:
    """Bytes as a JSON string where they are UTF-8."""
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}
