"""JSON values to arrays of a dtype and a shape, and what is wrong with those that do not fit.

Pure values, safe on any thread. Integers stay integers over their whole 64 bits, floats take integers,
booleans are only true and false, strings are UTF-8 or {"b64": "..."}. Lists are taken apart level by level in
C; only where something does not fit is the value walked element by element, for the path to the fault.
"""

from __future__ import annotations

import binascii
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.rows import Array, Buffer
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.json_excerpt import show
from rowserve.handlers.json_numbers import COUNTABLE, FLOATS, narrowed
from rowserve.handlers.json_pieces import LongList, finite
from rowserve.handlers.problem import Problem

Shape = tuple[int | None, ...] | None
TITLE = "Bad JSON"
DIMENSIONS = 32  # of a tensor whose shape is free; an array can have twice as many
PIECE = 1 << 20  # characters that are encoded or decoded in one call
WALKED = 32  # elements that are looked at one by one


class JsonFault(Problem):
    """A JSON value that does not fit: `path` leads to it, `kind` says how ("type", "size", "range", ...)."""

    def __init__(self, path: str, message: str, *, kind: str, value: Any = None, wanted: Any = None, level: int = 0):
        super().__init__(400, f"{path}: {message}", title=TITLE)
        self.path, self.message, self.kind = path, message, kind
        self.value, self.wanted, self.level = value, wanted, level


BOM = b"\xef\xbb\xbf"


def without_bom(text: Buffer) -> Buffer:
    """A body less a byte order mark at its beginning, which a parser may ignore (RFC 8259, section 8.1)."""
    return text[len(BOM) :] if text[: len(BOM)] == BOM else text


def read_json(text: Buffer) -> Any:
    """The value of a JSON text; NaN and Infinity come through as floats. Raises Problem 400."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        strict = error
    try:
        return json.loads(bytes(text).decode(), parse_float=finite)
    except (
        ValueError,
        RecursionError,
    ):  # ValueError: a fault of syntax, of UTF-8, or a number of 5,000 digits or beyond all doubles
        raise Problem(400, f"not JSON: {strict}", title=TITLE) from None


def kind_of(value: Any) -> str:
    """A JSON value's kind, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list | LongList) else "an object"


def is_b64(value: Any) -> bool:
    """Whether this is {"b64": "..."} and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def unb64(value: Mapping[str, str], path: str) -> bytes:
    """The bytes of {"b64": "..."}: standard alphabet, with or without the padding. Raises JsonFault."""
    text = value["b64"]
    end = text.find("=")
    try:
        if len(text) <= PIECE or 0 <= end < len(text) - 2:
            return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
        pieces = (text[at : at + PIECE] for at in range(0, len(text), PIECE))
        return b"".join([binascii.a2b_base64(piece + "=" * (-len(piece) % 4), strict_mode=True) for piece in pieces])
    except ValueError as error:
        raise JsonFault(path, f"not base64: {error}", kind="b64", value=value) from None


def inferred_shape(value: Any) -> tuple[int, ...]:
    """The shape by the first elements."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def tensor(value: Any, dtype: str, wanted: Shape, path: str, *, nan: bool = False, first: int = 0) -> Array:
    """An array of `dtype` out of nested lists, none of them a LongList. Raises JsonFault.

    `wanted` is the shape it must have (None: a free dimension; None for all: any shape). `nan` allows NaN and
    infinity. In a path the first element is number `first`.
    """
    shape = inferred_shape(value)
    if wanted is not None and 0 in shape and len(shape) < len(wanted):
        shape = (*shape, *(size or 0 for size in wanted[len(shape) :]))
    leaves = leaves_of(value, shape)
    if leaves is None or not fits(shape, wanted):
        find_fault(value, dtype, shape if wanted is None else wanted, path, nan=nan, first=first)
        free_shape_fault(value, shape, path, first)
    array = converted(leaves or [], dtype, nan)
    if array is None:
        find_fault(value, dtype, shape, path, nan=nan, first=first)
        raise JsonFault(path, f"does not fit {dtype}", kind="range", value=value, wanted=dtype)
    return array.reshape(shape)


def leaves_of(value: Any, shape: Sequence[int]) -> list[Any] | None:
    """The elements of nested lists of exactly this shape, flat; None for any other value."""
    level = [value]
    for size in shape:
        if set(map(type, level)) - {list} or set(map(len, level)) - {size}:
            return None
        level = list(itertools.chain.from_iterable(level))
    return None if list in set(map(type, level)) else level


def fits(shape: Sequence[int], wanted: Shape) -> bool:
    """Whether a shape is the one that is wanted."""
    if wanted is None:
        return len(shape) <= DIMENSIONS
    return len(shape) == len(wanted) and all(want in (None, have) for want, have in zip(wanted, shape, strict=True))


def converted(leaves: list[Any], dtype: str, nan: bool) -> Array | None:
    """Elements as a flat array of `dtype`; None where one of them does not fit."""
    kinds = set(map(type, leaves))
    if dtype == STRING:
        return string_array(leaves)
    if dtype == "bool":
        return np.array(leaves, np.bool_) if kinds <= {bool} else None
    if dtype not in COUNTABLE:
        return None
    spec = numpy_dtype(dtype)
    try:
        if dtype in FLOATS:
            return float_array(leaves, spec, nan) if kinds <= {int, float} else None
        if not kinds <= {int}:
            return None
        wide = np.array(leaves, np.uint64 if dtype.startswith("u") else np.int64)
    except OverflowError:
        return None
    return narrowed(wide, spec)


def float_array(leaves: list[Any], dtype: np.dtype[Any], nan: bool) -> Array | None:
    """Floats, each rounded from the nearest double; an overflow is no infinity."""
    wide = np.array(leaves, np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    finite = np.isfinite(narrow)
    if finite.all():
        return narrow
    return narrow if nan and (finite == np.isfinite(wide)).all() else None


def string_array(leaves: list[Any]) -> Array | None:
    """Objects of bytes."""
    array = np.empty(len(leaves), dtype=object)
    try:
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, str):
                array[index] = encoded(leaf)
            elif is_b64(leaf):
                array[index] = unb64(leaf, "")
            else:
                return None
    except (UnicodeEncodeError, JsonFault):  # a lone surrogate, or no base64
        return None
    return array


def encoded(text: str) -> bytes:
    """As UTF-8. Raises UnicodeEncodeError for a lone surrogate."""
    if len(text) <= PIECE:
        return text.encode()
    return b"".join([text[at : at + PIECE].encode() for at in range(0, len(text), PIECE)])


def find_fault(
    value: Any, dtype: str, wanted: Sequence[int | None], path: str, *, nan: bool, level: int = 0, first: int = 0
) -> None:
    """Walks to the first element that does not fit and raises its JsonFault; returns where there is none."""
    if level == len(wanted):
        leaf_fault(value, dtype, path, nan, level)
        return
    if not isinstance(value, list):
        told = f"expected a list{size_words(wanted[level])}, found {kind_of(value)}"
        raise JsonFault(path, told, kind="level", value=value, wanted=len(wanted), level=level)
    if wanted[level] not in (None, len(value)):
        told = f"expected a list{size_words(wanted[level])}, found one of {len(value)}"
        raise JsonFault(path, told, kind="size", value=value, wanted=wanted[level], level=level)
    for index in range(good_until(value, dtype, wanted[level + 1 :], nan), len(value)):
        find_fault(value[index], dtype, wanted, f"{path}[{first + index}]", nan=nan, level=level + 1)


def good_until(values: list[Any], dtype: str, shape: Sequence[int | None], nan: bool) -> int:
    """An index close before the first value that does not fit, found by halving: millions are too many to walk."""
    sizes = [size for size in shape if size is not None]
    if len(sizes) < len(shape):
        return 0
    start, stop = 0, len(values)
    while stop - start > WALKED:
        middle = (start + stop) // 2
        leaves = leaves_of(values[start:middle], (middle - start, *sizes))
        if leaves is None or (dtype != "any" and converted(leaves, dtype, nan) is None):
            stop = middle
        else:
            start = middle
    return start


def size_words(size: int | None) -> str:
    """How long a list must be, in words."""
    return "" if size is None else f" of {size}"


def free_shape_fault(value: Any, shape: tuple[int, ...], path: str, first: int = 0) -> None:
    """Raises for lists of different lengths where any length is allowed, so long as it is one, and for too many."""
    if len(shape) > DIMENSIONS:
        told = f"lists nested {len(shape)} deep, where {DIMENSIONS} is the most"
        raise JsonFault(path, told, kind="shape", value=value)
    find_fault(value, "any", shape, path, nan=True, first=first)
    raise JsonFault(path, f"a shape of {list(shape)} does not fit", kind="shape", value=value)


def leaf_fault(value: Any, dtype: str, path: str, nan: bool, level: int) -> None:
    """Raises where one element is none of `dtype` ("any": a list is all that is wrong)."""
    if isinstance(value, list):
        told = f"expected {wanted_words(dtype)}, found a list"
        raise JsonFault(path, told, kind="depth", value=value, wanted=level, level=level)
    if dtype == "any":
        return
    if dtype not in COUNTABLE and dtype not in (STRING, "bool"):
        raise JsonFault(path, f"{dtype} has no JSON form", kind="dtype", value=value, wanted=dtype)
    if dtype == STRING and is_b64(value):
        unb64(value, path)
        return
    if not right_kind(value, dtype):
        found = kind_of(value) + (f" ({show(value)})" if isinstance(value, float) else "")
        raise JsonFault(path, f"expected {wanted_words(dtype)}, found {found}", kind="type", value=value, wanted=dtype)
    if isinstance(value, float) and not math.isfinite(value):
        if not nan:
            told = f"{show(value)} is not allowed, expected a finite number"
            raise JsonFault(path, told, kind="nan", value=value, wanted=dtype)
    elif converted([value], dtype, nan) is None:
        told = (
            "a string that is no valid Unicode" if dtype == STRING else f"{show(value)} is out of the range of {dtype}"
        )
        raise JsonFault(path, told, kind="range", value=value, wanted=dtype)


def right_kind(value: Any, dtype: str) -> bool:
    """Whether the kind of an element fits, whatever its size."""
    if dtype == STRING:
        return isinstance(value, str)
    if isinstance(value, bool) or dtype == "bool":
        return isinstance(value, bool) and dtype == "bool"
    return isinstance(value, int) or (isinstance(value, float) and dtype in FLOATS)


def wanted_words(dtype: str) -> str:
    """What an element must be, in words."""
    if dtype == STRING:
        return 'a string or {"b64": ...}'
    if dtype == "bool":
        return "true or false"
    return "a number" if dtype in FLOATS or dtype == "any" else "an integer"
