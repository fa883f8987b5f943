"""Large JSON documents, read a piece at a time.

Pure values, safe on any thread; large documents belong on the pool. A parser holds the interpreter until it is done, as
does whoever frees the millions of objects that it made. So no call here is given more than a piece of the text: a
list that is longer stays text (`LongList`), and is read again piece by piece by whoever makes an array of it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.rows import Array, Buffer
from rowserve.handlers.problem import Problem

PIECE = 65536  # bytes: of empty lists, the slowest text there is, so much takes 1 ms
LEVELS = 32  # of lists and objects longer than a piece
DEEPEST = 1024  # of all lists and objects, as orjson has it
MEMBERS = 65536  # of an object longer than a piece
LONGEST_NUMBER = 4300  # digits, as int() has it
HELD = 0.003  # seconds that a thread works before it lets others in, and how long it lets them
LET = 0.00005
BLANK = re.compile(rb"[ \t\r\n]*+")
SCALAR = re.compile(rb"[-+.0-9A-Za-z]*+")
# What of a string can stand alone: it ends before a quote, and before an escape that is not whole.
CHARACTERS = re.compile(
    rb'(?:[^"\\]++|\\[^u]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
)
ESCAPE = 12  # bytes of the longest escape
QUOTE, BACKSLASH, COMMA, OPEN, CLOSE = b'"\\,[]'
LOWER = 32  # the bit that makes { of [ and } of ]
CURLY_OPEN, CURLY_CLOSE = b"{}"


class Turns:
    """Lets other threads in, now and then; call it between pieces.

    They would get no turn by themselves: numpy gives the interpreter away for so short a time that whoever waits for it
    is woken, finds it taken again, and begins to wait anew.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._since > HELD:
            time.sleep(LET)
            self._since = time.perf_counter()


class NotJson(Problem):
    """400: the text is no JSON; `message` says why, `offset` where."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(400, f"not JSON: {message} at offset {offset}", title="Bad JSON")
        self.message, self.offset = message, offset


@dataclass(frozen=True, slots=True)
class LongList:
    """A list of at least one element, still text: `text[start:stop]`, its brackets and what is between them.

    `cuts` are some of the commas between its elements: where they are more than a piece apart, there is one element
    between them. Only the brackets have been looked at: reading it may raise NotJson.
    """

    text: Buffer
    start: int
    stop: int
    cuts: tuple[int, ...]
    level: int

    def pieces(self) -> Iterator[list[Any]]:
        """The elements in order, some at a time; one that is longer than a piece comes alone, its lists LongLists."""
        start = self.start + 1
        turns = Turns()
        for cut in (*self.cuts, self.stop - 1):
            turns()
            if start == cut:
                raise NotJson("unexpected character", cut)
            if cut - start <= PIECE:
                values = loads(b"[%b]" % bytes(self.text[start:cut]), start - 1)
                if not values:
                    raise NotJson("unexpected character", cut)
                yield values
            else:
                yield from self._long(start, cut)
            start = cut + 1

    def _long(self, start: int, stop: int) -> Iterator[list[Any]]:
        value, end = value_at(self.text, start, self.level + 1)
        if skip_blank(self.text, end) != stop:
            raise NotJson("unexpected character", end)
        yield [value]

    def first(self) -> Any:
        """The first element."""
        return next(self.pieces())[0]

    def __str__(self) -> str:
        return bytes(self.text[self.start : self.start + PIECE // 64]).decode("utf-8", "replace")


def pieces_of(values: list[Any] | LongList) -> Iterator[tuple[int, list[Any]]]:
    """The elements of either kind of list, some at a time, and how many came before them."""
    if isinstance(values, list):
        yield 0, values
        return
    count = 0
    for piece in values.pieces():
        yield count, piece
        count += len(piece)


def read_pieces(text: Buffer) -> tuple[Any, int]:
    """The JSON value that the text begins with, its long lists LongLists, and where it ends. Raises NotJson."""
    return value_at(text, 0, 0)


def value_at(text: Buffer, at: int, level: int) -> tuple[Any, int]:
    """The value that begins there, and where it ends. Raises NotJson."""
    at = skip_blank(text, at)
    if level > LEVELS:
        raise NotJson("nested too deeply", at)
    kind = byte_at(text, at)
    if kind == OPEN:
        return list_at(text, at, level)
    if kind == CURLY_OPEN:
        return object_at(text, at, level)
    if kind == QUOTE:
        return string_at(text, at)
    end = match_end(SCALAR, text, at)
    if end - at > LONGEST_NUMBER:
        raise NotJson("a number too long", at)
    return loads(bytes(text[at:end]), at), end


def list_at(text: Buffer, at: int, level: int) -> tuple[list[Any] | LongList, int]:
    """A list."""
    stop, cuts = scan(text, at)
    if text[stop - 1] != CLOSE:
        raise NotJson("unexpected character", stop - 1)
    if stop - at <= PIECE:
        return loads(bytes(text[at:stop]), at), stop
    if skip_blank(text, at + 1) == stop - 1:
        return [], stop
    return LongList(text, at, stop, cuts, level), stop


def object_at(text: Buffer, at: int, level: int) -> tuple[dict[str, Any], int]:
    """An object, member by member."""
    members: dict[str, Any] = {}
    at = skip_blank(text, at + 1)
    if byte_at(text, at) == CURLY_CLOSE:
        return members, at + 1
    for _ in range(MEMBERS):
        at = skip_blank(text, at)
        if byte_at(text, at) != QUOTE:
            raise NotJson("expected a string", at)
        key, at = string_at(text, at)
        at = skip_blank(text, at)
        if text[at : at + 1] != b":":
            raise NotJson("expected a colon", at)
        members[key], at = value_at(text, at + 1, level + 1)
        at = skip_blank(text, at)
        mark = byte_at(text, at)
        at += 1
        if mark == CURLY_CLOSE:
            return members, at
        if mark != COMMA:
            raise NotJson("expected a comma or a closing brace", at - 1)
    raise NotJson(f"an object of more than {MEMBERS:,} members", at)


def string_at(text: Buffer, at: int) -> tuple[str, int]:
    """A string."""
    parts: list[str] = []
    start = at + 1
    turns = Turns()
    while True:
        turns()
        limit = min(start + PIECE, len(text))
        found = CHARACTERS.match(text, start, limit)
        end = found.end() if found else start
        if byte_at(text, end) == QUOTE:
            parts.append(loads(b'"%b"' % bytes(text[start:end]), start - 1))
            return parts[0] if len(parts) == 1 else "".join(parts), end + 1
        while end > start and text[end] & 0xC0 == 0x80:
            end -= 1  # not within a character
        if end <= start or limit - end > ESCAPE:
            raise NotJson("a string that ends nowhere, or an escape that is none", end)
        parts.append(loads(b'"%b"' % bytes(text[start:end]), start - 1))
        start = end


def scan(text: Buffer, start: int) -> tuple[int, tuple[int, ...]]:
    """Where the list that begins at `start` ends, and the `cuts` of its LongList. Raises NotJson."""
    depth, inside, escaped = 0, False, False
    cuts: list[int] = []
    turns = Turns()
    for at in range(start, len(text), PIECE):
        turns()
        chunk = np.frombuffer(text, np.uint8, min(PIECE, len(text) - at), at)
        marks = chunk | LOWER
        steps = (marks == CURLY_OPEN).view(np.int8) - (marks == CURLY_CLOSE).view(np.int8)
        separators = chunk == COMMA
        quotes = chunk == QUOTE
        if inside or quotes.any():
            quotes, escaped = unescaped(chunk, quotes, escaped)
            within = np.logical_xor.accumulate(quotes) ^ inside
            inside = bool(within[-1])
            steps[within] = 0
            separators &= ~within
        depths = np.cumsum(steps, dtype=np.int32)
        depths += depth
        ends = np.flatnonzero(depths == 0)
        if len(ends):
            separators, depths = separators[: ends[0] + 1], depths[: ends[0] + 1]
        if int(depths.max()) > DEEPEST:
            raise NotJson("nested too deeply", at)
        between = np.flatnonzero(separators & (depths == 1))
        if len(between):
            first, last = at + int(between[0]), at + int(between[-1])
            if first < last and last - (cuts[-1] if cuts else start) > PIECE:
                cuts.append(first)
            cuts.append(last)
        if len(ends):
            return at + int(ends[0]) + 1, tuple(cuts)
        depth = int(depths[-1])
    raise NotJson("unexpected end of data", len(text))


def unescaped(chunk: Array, quotes: Array, escaped: bool) -> tuple[Array, bool]:
    """Which of the quotes begin or end a string, and whether the byte after the chunk is escaped."""
    slashes = chunk == BACKSLASH
    if escaped:  # by the last byte of the chunk before
        slashes[0] = quotes[0] = False
    if not slashes.any():
        return quotes, False
    places = np.arange(len(chunk), dtype=np.int32)
    others = np.maximum.accumulate(np.where(slashes, -1, places))
    escaping = slashes & ((places - others) & 1 == 1)  # the first, third, ... of the backslashes in a row
    quotes[1:] &= ~escaping[:-1]
    return quotes, bool(escaping[-1])


def loads(text: bytes, offset: int) -> Any:
    """The value of a piece of text that stands at this offset; NaN and infinity are floats. Raises NotJson."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode(), parse_float=finite)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg, offset + error.pos) from None
    except UnicodeDecodeError as error:
        raise NotJson("invalid UTF-8", offset + error.start) from None
    except (RecursionError, ValueError):  # ValueError: a number of 5,000 digits, or beyond all doubles
        raise NotJson("nested too deeply, or a number too large", offset) from None


def finite(text: str) -> float:
    """A number of a text in which there may be infinity, but by its name only. Raises ValueError."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number too large")
    return value


def byte_at(text: Buffer, at: int) -> int:
    """The byte there. Raises NotJson at the end."""
    if at >= len(text):
        raise NotJson("unexpected end of data", at)
    return text[at]


def skip_blank(text: Buffer, at: int) -> int:
    """Where the blank space that begins there ends."""
    return match_end(BLANK, text, at)


def match_end(pattern: re.Pattern[bytes], text: Buffer, at: int) -> int:
    """Where a run of bytes that begins there ends."""
    while True:
        limit = min(at + PIECE, len(text))
        found = pattern.match(text, at, limit)
        at = found.end() if found else at
        if at < limit or limit == len(text):
            return at
