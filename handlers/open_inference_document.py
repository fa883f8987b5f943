"""An inference request's JSON document, and the tensors that stand in it as JSON.

Pure values, safe on any thread; large documents belong on the pool. Long lists of numbers are cut out of the text
before it is read, and become arrays without a Python object for each number. All else that is long is read piece by
piece, so that no call holds the interpreter for long.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rowserve.graphs.rows import Array, Buffer
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.json_numbers import COUNTABLE
from rowserve.handlers.json_pieces import (
    CLOSE,
    PIECE,
    LongList,
    Turns,
    pieces_of,
    read_pieces,
    skip_blank,
)
from rowserve.handlers.json_values import JsonFault, converted, find_fault, kind_of, read_json, without_bom
from rowserve.handlers.open_inference_datatypes import elements
from rowserve.handlers.open_inference_numbers import DEEPEST, flat_numbers
from rowserve.handlers.open_inference_texts import invalid
from rowserve.handlers.problem import Problem

LONG = 16384  # bytes of a list from which it is worth cutting it out
DATA = re.compile(rb'"data"\s*+:\s*+(?=\[)')
STAND_IN = b"[null]"  # which is no tensor of anything
BEHIND = 256  # bytes in which a list's end is looked for: blanks and a comma may follow it
MOST_TENSORS = 4096


@dataclass(frozen=True, slots=True)
class NumberList:
    """A list that has been cut out: its text, with its brackets; what is in it may be anything yet."""

    text: Buffer


def read_document(text: Buffer) -> dict[str, Any]:
    """The document. Its `data` lists may be NumberLists or LongLists where they are long. Raises Problem 400."""
    if len(text) <= LONG:
        return read_object(text)
    text = bytes(text)  # a copy, which takes a tenth of the time that it takes to look for a byte in a memoryview
    rest, lists = without_lists(text)
    if not lists:
        return read_object(text)
    try:
        document = read_object(rest)
    except Problem:
        return read_object(text)
    inputs = document.get("inputs")
    named = [entry for entry in inputs if isinstance(entry, dict)] if isinstance(inputs, list) else []
    cut = [entry for entry in named if entry.get("data") == [None]]
    if len(cut) != len(lists):  # some of them are no input's
        return read_object(text)
    for entry, numbers in zip(cut, lists, strict=True):
        entry["data"] = numbers
    return document


def without_lists(text: bytes) -> tuple[bytes, list[NumberList]]:
    """The text with STAND_IN for each long list that holds no string and no object, and these lists."""
    whole = memoryview(text)
    kept: list[Buffer] = []
    lists: list[NumberList] = []
    at = done = 0
    for _ in range(MOST_TENSORS):
        found = DATA.search(text, at)
        if found is None:
            break
        start, at = found.end(), len(text)
        for mark in (b'"', b"}"):
            end = text.find(mark, start, at)
            at = end if end >= 0 else at
        tail = text[max(start, at - BEHIND) : at]
        stop = at - len(tail) + len(tail.rstrip(b" \t\r\n,"))
        if stop - start > LONG and text[stop - 1] == CLOSE:
            kept += (whole[done:start], STAND_IN)
            lists.append(NumberList(whole[start:stop]))
            done = stop
    return b"".join([*kept, whole[done:]]), lists


def read_object(text: Buffer) -> dict[str, Any]:
    """The document as it is, a long list of inputs or outputs as a plain list. Raises Problem 400."""
    document = read_whole(without_bom(text))
    if not isinstance(document, dict):
        raise invalid(f"failed to parse the request JSON buffer: expected an object, found {kind_of(document)}")
    for name in ("inputs", "outputs"):
        if isinstance(document.get(name), LongList):
            entries: list[Any] = []
            for _, piece in pieces_of(document[name]):
                entries += piece
                if len(entries) > MOST_TENSORS:
                    raise invalid(f"Unable to parse {name!r}: more than {MOST_TENSORS}")
            document[name] = entries
    return document


def read_whole(text: Buffer) -> Any:
    """The value that is all of the text. Raises Problem 400."""
    if len(text) <= PIECE:
        return read_json(text)
    value, end = read_pieces(text)
    if skip_blank(text, end) != len(text):
        raise invalid(f"not JSON: unexpected character at offset {end}")
    return value


def tensor_of(name: str, dtype: str, shape: Sequence[int], data: Any) -> Array:
    """The tensor that an input's `data` holds, nested or flat: only their number counts. Raises Problem 400."""
    count = elements(name, shape)
    if isinstance(data, NumberList):
        if dtype in COUNTABLE:
            numbers = flat_numbers(data.text, count, numpy_dtype(dtype))
            if numbers is not None:
                return numbers.reshape(shape)
        data = read_whole(data.text)
    if not isinstance(data, list | LongList):
        raise invalid(f"input {name!r}: Unable to parse 'data': expected a list, found {kind_of(data)}")
    room = PIECE if isinstance(data, list) else data.stop - data.start  # for an element takes at least one byte
    flat = np.empty(count if count <= room else 0, numpy_dtype(dtype))
    found = 0
    turns = Turns()
    for leaves in flattened(name, data, 0):
        turns()
        first, found = found, found + len(leaves)
        if found > len(flat):
            break
        part = converted(leaves, dtype, nan=True)
        if part is None:
            raise element_fault(name, dtype, leaves, first)
        flat[first:found] = part
    if found != count:
        told = f"Shape does not match true shape of 'data' field: {list(shape)} has {count} elements"
        raise invalid(f"input {name!r}: Unable to parse 'data': {told}")
    return flat.reshape(shape)


def element_fault(name: str, dtype: str, leaves: list[Any], first: int) -> Problem:
    """400 for the first element that does not fit; `first` is where the leaves stand."""
    told = f"it does not fit {dtype}"
    try:
        find_fault(leaves, dtype, (None,), "data", nan=True, first=first)
    except JsonFault as fault:
        told = fault.detail
    return invalid(f"input {name!r}: Unable to parse 'data': {told}")


def flattened(name: str, values: list[Any] | LongList, depth: int) -> Iterator[list[Any]]:
    """The elements of nested lists in their order, some at a time. Raises Problem 400."""
    for _, piece in pieces_of(values):
        if len(piece) == 1 and isinstance(piece[0], LongList):
            yield from flattened(name, piece[0], depth + 1)
            continue
        leaves = piece
        for _ in range(DEEPEST - depth):
            if list not in set(map(type, leaves)):
                break
            leaves = list(itertools.chain.from_iterable(part if type(part) is list else (part,) for part in leaves))
        else:
            raise invalid(f"input {name!r}: JSON nesting depth exceeds maximum allowed limit ({DEEPEST})")
        yield leaves


def no_json_form(dtype: str) -> bool:
    """Whether tensors of this dtype travel as bytes only."""
    return dtype not in (STRING, "bool") and (dtype not in COUNTABLE or dtype in ("float16", "bfloat16"))
