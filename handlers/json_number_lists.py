"""The fast way for long lists of numbers, nested in any regular way: a piece of the text at a time.

Pure values, safe on any thread; what is long belongs on the pool. No call holds the interpreter for more than a
millisecond or two, and what the parser notes of a piece stays in the processor's cache.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer
from rowserve.handlers.json_numbers import BLANK, FLOATS, NUMBER, narrowed, parsed
from rowserve.handlers.json_pieces import CLOSE, COMMA, OPEN, PIECE, Turns, finite

DIMENSIONS = 64  # that an array of numpy can have
WORDS = b"NaNInfinity"  # their letters


def nested_numbers(text: Buffer, dtype: np.dtype[Any], *, nan: bool = False) -> Array | None:
    """The list that a text is, as an array of its own shape; None unless it holds numbers of `dtype` regularly.

    `nan` allows NaN and infinity.
    """
    flat = np.empty(len(text) // 2 + 1, dtype)  # more than there can be: memory that is never touched costs nothing
    skipped = NUMBER + BLANK + (WORDS if nan else b"")
    structure = bytearray()
    at = filled = depth = 0
    turns = Turns()
    while at < len(text):
        turns()
        piece = bytes(text[at : at + PIECE])
        if at + len(piece) < len(text):
            comma = piece.rfind(b",")
            if comma < 0:
                return None
            piece = piece[:comma]
        at += len(piece) + 1
        marks = piece.translate(None, skipped)
        then = depth + marks.count(b"[") - marks.count(b"]")
        if not 0 <= then <= DIMENSIONS:
            return None
        numbers = piece_numbers(b"".join((b"[" * depth, piece, b"]" * then)), dtype, nan)
        if numbers is None:
            return None
        flat[filled : filled + len(numbers)] = numbers
        structure += marks + b","
        filled, depth = filled + len(numbers), then
    del structure[-1:]
    shape = shape_of(structure)
    return None if shape is None or math.prod(shape) != filled else flat[:filled].reshape(shape)


def piece_numbers(text: bytes, dtype: np.dtype[Any], nan: bool) -> Array | None:
    """The numbers of nested lists, flat; None where they are none of `dtype`."""
    numbers = parsed(text, dtype)
    if numbers is not None or not nan or dtype.name not in FLOATS or not (b"N" in text or b"I" in text):
        return numbers
    try:
        values = [json.loads(text, parse_float=finite)]
        while list in (kinds := set(map(type, values))):
            values = list(itertools.chain.from_iterable(v if isinstance(v, list) else (v,) for v in values))
        return narrowed(np.array(values, np.float64), dtype) if kinds <= {int, float} else None
    except (ValueError, RecursionError, OverflowError):
        return None


def shape_of(structure: bytes | bytearray) -> tuple[int, ...] | None:
    """The shape of nested lists of which these are the brackets and commas; None where they have none.

    An empty list counts as one of a single element: whoever knows the number of all elements can tell.
    """
    rank = next((i for i in range(DIMENSIONS + 1) if structure[i : i + 1] != b"["), 0)
    shape: list[int] = []
    length = 0
    for level in range(1, rank + 1):
        end = behind(structure, b"]" * level)  # of the first list that holds so many levels
        size, rest = divmod(end - rank + level - 1, length + 1)
        if rest or size < 1:
            return None
        shape.insert(0, size)
        length = end - rank + level
    if not shape or length != len(structure):
        return None
    return tuple(shape) if regular(np.frombuffer(structure, np.uint8), shape) else None


def behind(structure: bytes | bytearray, wanted: bytes) -> int:
    """Where these bytes end for the first time; 0 where there are none."""
    for at in range(0, len(structure), PIECE):
        found = structure.find(wanted, at, at + PIECE + len(wanted) - 1)
        if found >= 0:
            return found + len(wanted)
    return 0


def regular(marks: Array, shape: list[int]) -> bool:
    """Whether these are the brackets and commas of that shape: each list's first element, again and again."""
    for size in shape:
        inner, rest = divmod(len(marks) - 1, size)
        if rest or inner < 1 or marks[0] != OPEN or marks[-1] != CLOSE:
            return False
        body = marks[1:-1]
        if size > 1 and not (body[inner - 1] == COMMA and np.array_equal(body[inner:], body[:-inner])):
            return False
        marks = body[: inner - 1]
    return not len(marks)
