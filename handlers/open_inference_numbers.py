"""The fast way from a JSON list of numbers, flat or nested, to a flat array.

Pure values, safe on any thread; what is long belongs on the pool.

A long list is parsed piece by piece, so that what the parser notes of it stays in the processor's cache: that is what
makes it fast, and no call holds the interpreter for long. The brackets of nested lists are checked by themselves and
blanked out, since only the order of the numbers counts. Whoever gets None here takes the slow way, which finds what is
wrong.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer
from rowserve.handlers.json_numbers import parsed
from rowserve.handlers.json_pieces import PIECE, Turns

NEXT = re.compile(b",")
OPEN, CLOSE, COMMA, SPACE = b"[], "
DEEPEST = 100


def flat_numbers(text: Buffer, count: int, dtype: np.dtype[Any]) -> Array | None:
    """The `count` numbers of a list; None unless these are what the text holds, each one of `dtype`."""
    if bytes(text[:1]) != b"[" or bytes(text[-1:]) != b"]" or not 0 < count <= len(text) // 2:
        return None
    flat = np.empty(count, dtype)
    at, start, end, depth = 0, 1, len(text) - 1, 1
    turns = Turns()
    while start <= end:
        turns()
        comma = NEXT.search(text, start + PIECE, min(start + 2 * PIECE, end))
        stop = comma.start() if comma else end
        if stop - start > 2 * PIECE:
            return None
        piece = b"".join((b",[", text[start:stop], b"],"))
        if piece.find(b"[", 2) >= 0 or piece.find(b"]", 2, -2) >= 0:
            told = without_brackets(piece, depth)
            if told is None:
                return None
            piece, depth = told
        numbers = parsed(piece[1:-1], dtype)
        if numbers is None or at + len(numbers) > count:
            return None
        flat[at : at + len(numbers)] = numbers
        at, start = at + len(numbers), stop + 1
    return flat if at == count and depth == 1 else None


def without_brackets(piece: bytes, depth: int) -> tuple[bytes, int] | None:
    """`,[...],` with its inner brackets blanked out, and the depth behind it; None where they are wrong.

    A list begins behind a comma or another one's beginning, and ends before a comma or another one's end. With that,
    numbers and commas that alternate once the brackets are gone are lists in each other.
    """
    text = np.frombuffer(piece, np.uint8).copy()
    places = np.flatnonzero((text == OPEN) | (text == CLOSE))[1:-1]
    opens = text[places] == OPEN
    side = np.where(opens, -1, 1)
    beside = places + side
    blank = text[beside] <= SPACE
    if blank.any():
        beside += np.where(blank, side, 0)
    right = text[beside] == COMMA
    right |= text[beside] == text[places]
    right |= beside == np.where(opens, 1, len(text) - 2)  # the piece's own
    depths = depth - np.cumsum(side)
    if not right.all() or depths.min() < 1 or depths.max() > DEEPEST:
        return None
    text[places] = SPACE
    return text.tobytes(), int(depths[-1])
