"""A row of a signature as JSON, to show what a line is. Pure functions."""

from __future__ import annotations

import json
import math

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.problem import Problem

SHOWN_ELEMENTS = 16
CURL = " (curl keeps the ends of lines with --data-binary, not with -d)"


def is_short(signature: Signature) -> bool:
    """Whether all of a row can be shown."""
    return sum(math.prod(sizes(spec)) for spec in signature.inputs) <= SHOWN_ELEMENTS


def row_of_ones(signature: Signature) -> str:
    """A whole row; strings are "text", a size that is free is 1."""
    values = {}
    for spec in signature.inputs:
        value: object = one(spec)
        for size in reversed(sizes(spec)):
            value = [value] * size
        values[spec.name] = value
    row = values if len(values) != 1 else next(iter(values.values()))
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def shown_row(signature: Signature) -> str:
    """A row for people: a long one only by its first elements and its sizes."""
    if is_short(signature):
        return row_of_ones(signature)
    texts = []
    for spec in signature.inputs:
        text = json.dumps(one(spec))
        for size in reversed(sizes(spec)):
            text = f"[{text}, ...]" if size > 1 else f"[{text}]"
        shape = " x ".join(map(str, sizes(spec)))
        text = f"{text} ({shape} elements)" if shape else text
        texts.append(text if len(signature.inputs) == 1 else f"{json.dumps(spec.name)}: {text}")
    return texts[0] if len(texts) == 1 else "{" + ", ".join(texts) + "}"


def a_line_is_a_row(signature: Signature) -> str:
    """What is to be sent."""
    return f"each line is one row, such as {shown_row(signature)}"


def with_example(problem: Problem, signature: Signature) -> Problem:
    """The same problem, telling also what is to be sent."""
    joined = "after document" in problem.detail  # by curl -d, which drops the ends of lines: many newcomers' first try
    told = f"{problem.detail}; {a_line_is_a_row(signature)}{CURL if joined else ''}"
    return Problem(problem.status, told, title=problem.title, reason=problem.reason)


def one(spec: TensorSpec) -> object:
    """An element."""
    return "text" if spec.dtype == "string" else True if spec.dtype == "bool" else 1


def sizes(spec: TensorSpec) -> list[int]:
    """A row's sizes."""
    return [size or 1 for size in spec.shape or ()]
