"""An inference request's JSON document, and the tensors that stand in it as JSON.

Pure values, safe on any thread; large documents belong on the pool. Long lists of numbers are cut out of the text
before it is parsed, and become arrays without a Python object for each number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rowserve.graphs.rows import Array, Buffer
from rowserve.graphs.signature import STRING, numpy_dtype
from rowserve.handlers.json_numbers import COUNTABLE
from rowserve.handlers.json_values import JsonFault, converted, find_fault, kind_of, read_json
from rowserve.handlers.open_inference_datatypes import elements
from rowserve.handlers.open_inference_numbers import DEEPEST, flat_numbers
from rowserve.handlers.open_inference_texts import invalid
from rowserve.handlers.problem import Problem

LONG = 16384  # bytes of a list from which it is worth cutting it out
DATA = re.compile(rb'"data"\s*:\s*(?=\[)')
STAND_IN = b"[null]"  # which is no tensor of anything
BLANK = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class NumberList:
    """A list that has been cut out: its text, with its brackets; what is in it may be anything yet."""

    text: bytes


def read_document(text: Buffer) -> dict[str, Any]:
    """The document; long `data` lists of its inputs are NumberLists. Raises Problem 400."""
    if len(text) <= LONG:
        return an_object(read_json(text))
    text = bytes(text)
    rest, lists = without_lists(text)
    if not lists:
        return an_object(read_json(text))
    try:
        document = an_object(read_json(rest))
        inputs = document.get("inputs")
        named = [entry for entry in inputs if isinstance(entry, dict)] if isinstance(inputs, list) else []
    except Problem:
        return an_object(read_json(text))
    cut = [entry for entry in named if entry.get("data") == [None]]
    if len(cut) != len(lists):  # some of them are no input's
        return an_object(read_json(text))
    for entry, numbers in zip(cut, lists, strict=True):
        entry["data"] = numbers
    return document


def without_lists(text: bytes) -> tuple[bytes, list[NumberList]]:
    """The text with STAND_IN for each long list that holds no string and no object, and these lists."""
    kept: list[bytes] = []
    lists: list[NumberList] = []
    at = 0
    while (found := DATA.search(text, at)) is not None:
        start = found.end()
        stop = next(end for end in (text.find(b'"', start), len(text)) if end >= 0)
        stop = next(end for end in (text.find(b"}", start, stop), stop) if end >= 0)
        whole = text[start:stop].rstrip(BLANK + b",") if stop - start > LONG else b""
        if whole.endswith(b"]"):
            kept += (text[at:start], STAND_IN)
            lists.append(NumberList(whole))
            at = start + len(whole)
        else:
            kept.append(text[at:stop])
            at = stop
    return b"".join([*kept, text[at:]]), lists


def an_object(value: Any) -> dict[str, Any]:
    """The value, which must be an object. Raises Problem 400."""
    if not isinstance(value, dict):
        raise invalid(f"failed to parse the request JSON buffer: expected an object, found {kind_of(value)}")
    return value


def tensor_of(name: str, dtype: str, shape: Sequence[int], data: Any) -> Array:
    """The tensor that an input's `data` holds, nested or flat: only their number counts. Raises Problem 400."""
    count = elements(name, shape)
    if isinstance(data, NumberList):
        if dtype in COUNTABLE:
            numbers = flat_numbers(data.text, count, numpy_dtype(dtype))
            if numbers is not None:
                return numbers.reshape(shape)
        data = read_json(data.text)
    if not isinstance(data, list):
        raise invalid(f"input {name!r}: Unable to parse 'data': expected a list, found {kind_of(data)}")
    leaves = flattened(name, data)
    if len(leaves) != count:
        told = f"Shape does not match true shape of 'data' field: {list(shape)} has {count} elements, not {len(leaves)}"
        raise invalid(f"input {name!r}: Unable to parse 'data': {told}")
    flat = converted(leaves, dtype, nan=True)
    if flat is None:
        try:
            find_fault(leaves, dtype, (None,), "data", nan=True)
        except JsonFault as fault:
            raise invalid(f"input {name!r}: Unable to parse 'data': {fault.detail}") from None
        raise invalid(f"input {name!r}: Unable to parse 'data': it does not fit {dtype}")
    return flat.reshape(shape)


def flattened(name: str, values: list[Any]) -> list[Any]:
    """The elements of nested lists in their order. Raises Problem 400."""
    for _ in range(DEEPEST):
        if list not in set(map(type, values)):
            return values
        values = list(itertools.chain.from_iterable(part if type(part) is list else (part,) for part in values))
    raise invalid(f"input {name!r}: JSON nesting depth exceeds maximum allowed limit ({DEEPEST})")


def no_json_form(dtype: str) -> bool:
    """Whether tensors of this dtype travel as bytes only."""
    return dtype not in (STRING, "bool") and (dtype not in COUNTABLE or dtype in ("float16", "bfloat16"))
