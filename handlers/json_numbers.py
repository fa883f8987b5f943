"""The fast way from JSON text to an array: for nested lists of nothing but numbers.

Pure values, safe on any thread (each thread has its parser).

simdjson's `as_buffer` flattens whatever it is given, so the structure is checked on the text itself: what remains of a
JSON text of numbers without its digits is its brackets and commas, and these must be exactly those of a shape. Whoever
gets None here takes the slow way, which finds what is wrong and where.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import simdjson

from rowserve.graphs.rows import Array

NUMBER = b"0123456789+-.eE"
BLANK = b" \t\r\n"
INLINE = NUMBER + b" \t\r"  # all that may stand in a line beside brackets and commas
FLOATS = ("float16", "bfloat16", "float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
COUNTABLE = frozenset((*FLOATS, *SIGNED, *UNSIGNED))
KEPT_PARSER = 1 << 20  # bytes of text up to which a thread's parser is used again: it keeps the memory it once took
_thread = threading.local()


@lru_cache(maxsize=256)
def skeleton(shape: tuple[int, ...]) -> bytes:
    """The brackets and commas of nested lists of this shape."""
    inner = b""
    for size in reversed(shape):
        inner = b"[" + b",".join([inner] * size) + b"]"
    return inner


def number_lines(lines: Sequence[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """Lines of one row of this shape each, as [lines, *shape]; None unless every line is that on its own."""
    inner = skeleton(shape)
    text = b"[" + b",\n".join(lines) + b"]"
    if text.translate(None, INLINE) != b"[" + b",\n".join([inner] * len(lines)) + b"]":
        return None
    return shaped(parsed(text, dtype), (len(lines), *shape))


def number_rows(text: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """A list of rows of this shape, as [rows, *shape]; None unless that is what the text, a piece at most, holds."""
    found = text.translate(None, NUMBER + BLANK)
    row = skeleton(shape)
    count = (len(found) - 1) // (len(row) + 1)
    if count < 1 or found != b"[" + b",".join([row] * count) + b"]":
        return None
    return shaped(parsed(text, dtype), (count, *shape))


def shaped(flat: Array | None, shape: tuple[int, ...]) -> Array | None:
    """An array of that shape; None where it has another number of elements."""
    try:
        return None if flat is None else flat.reshape(shape)
    except ValueError:
        return None


def parsed(text: bytes, dtype: np.dtype[Any]) -> Array | None:
    """The numbers of nested lists, flat; None where they are none of `dtype`."""
    name = dtype.name
    kind: Any = "d" if name in FLOATS else "u" if name in UNSIGNED else "i"
    try:
        if len(text) > KEPT_PARSER:
            buffer = simdjson.Parser().parse(text).as_buffer(of_type=kind)  # type: ignore[union-attr]
        else:
            buffer = thread_parser().parse(text).as_buffer(of_type=kind)
    except (AttributeError, ValueError, TypeError, RuntimeError, MemoryError):  # AttributeError: it is no list
        return None
    return narrowed(np.frombuffer(buffer, np.float64 if kind == "d" else np.uint64 if kind == "u" else np.int64), dtype)


def thread_parser() -> Any:
    """This thread's parser."""
    parser = getattr(_thread, "parser", None)
    if parser is None:
        parser = _thread.parser = simdjson.Parser()
    return parser


def narrowed(wide: Array, dtype: np.dtype[Any]) -> Array | None:
    """64-bit numbers as `dtype`; None where one is out of its range."""
    if wide.dtype == dtype or not wide.size:
        return wide.astype(dtype, copy=False)
    if wide.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = wide.astype(dtype)
        finite = np.isfinite(narrow)
        return narrow if finite.all() or (finite == np.isfinite(wide)).all() else None
    limits = np.iinfo(dtype)
    if int(wide.min()) < limits.min or int(wide.max()) > limits.max:
        return None
    return wide.astype(dtype)
