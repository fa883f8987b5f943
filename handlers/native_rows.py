"""A row of an answer as the native routes and `infer` write it, and what a client may want of it.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.rows import Array, ShapesDiffer
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, Labels, ModelFace, plain_names
from rowserve.handlers.native_json import PLAIN, jsonable
from rowserve.handlers.problem import Problem
from rowserve.handlers.top_classes import top_classes

DEFAULT_TOP = 5
MOST_TOP = 100_000
Query = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Wants:
    """What a client wants of each row: its `top` classes (None: no labels), and `outputs` as raw arrays."""

    top: int | None
    outputs: tuple[str, ...]


def single(query: Query, name: str) -> str:
    """The value of a query parameter, "" where it is missing. Raises Problem 400 where it comes twice."""
    values = query.get(name, ())
    if len(values) > 1:
        raise Problem(400, f"query parameter {name} comes {len(values)} times")
    return values[0] if values else ""


def check_names(query: Query, known: Sequence[str]) -> None:
    """Raises Problem 400 for a parameter that is not known: a misspelt wish must not pass in silence."""
    for name in query:
        if name not in known:
            raise Problem(400, f"unknown query parameter {name[:64]!r}; there are: {plain_names(known)}")


def read_wants(face: ModelFace, signature: Signature, top: str, outputs: str) -> Wants:
    """Wants out of the texts of `top=` and `outputs=` ("" where not given). Raises Problem 400."""
    labelled = face.labels is not None and signature.output(face.labels.output) is not None
    there = [spec.name for spec in signature.outputs]
    names = tuple(dict.fromkeys(name.strip() for name in outputs.split(",") if name.strip()))
    for name in names:
        if name not in there:
            told = f"signature {signature.name} has no output {name[:64]!r}; it has: {plain_names(there)}"
            raise Problem(400, told)
    if not labelled:
        if top:
            told = f"top= needs labels, and {face.name} has none here; ask for outputs=: {plain_names(there)}"
            raise Problem(400, told)
        return Wants(None, names or tuple(there))
    count = int(top) if top.isascii() and top.isdigit() and len(top) < 7 else -1 if top else DEFAULT_TOP
    if not 0 <= count <= MOST_TOP:
        raise Problem(400, f"top= takes a whole number up to {MOST_TOP:,}, not {top[:40]!r}")
    return Wants(count, names)


def plain_rows(face: ModelFace, answer: Answer, wants: Wants) -> list[dict[str, Any]]:
    """Each row: {"cache", "top" where there are labels, "outputs"}, or {"error"}; for orjson with numpy."""
    good = [index for index, packed in enumerate(answer.packed) if packed is not None]
    tops, outputs = good_rows(face, answer, good, wants)
    rows: list[dict[str, Any]] = [{} for _ in answer.packed]
    for index, problem in answer.errors.items():
        rows[index] = {"error": problem.to_plain()}
    outcomes = answer.outcomes
    if tops is None:
        for index, row in zip(good, outputs, strict=True):
            rows[index] = {"cache": outcomes[index].value, "outputs": row}
    else:
        for index, top, row in zip(good, tops, outputs, strict=True):
            rows[index] = {"cache": outcomes[index].value, "top": top, "outputs": row}
    return rows


def good_rows(
    face: ModelFace, answer: Answer, good: Sequence[int], wants: Wants
) -> tuple[list[orjson.Fragment] | None, list[dict[str, Any]]]:
    """(best classes, outputs) of each answered row."""
    labels = face.labels if wants.top is not None else None
    needed = list(wants.outputs)
    if labels is not None and labels.output not in needed:
        needed.append(labels.output)
    columns = stacked(answer, good, needed)
    if columns is not None:
        outputs = spread({name: columns[name] for name in wants.outputs}, len(good))
        tops = None if labels is None else labelled(labels, columns[labels.output], wants.top or 0)
        return tops, outputs
    unpacked = [answer.row(index, needed) for index in good]
    outputs = [{name: jsonable(row[name]) for name in wants.outputs} for row in unpacked]
    if labels is None:
        return None, outputs
    return [labelled(labels, row[labels.output][None], wants.top or 0)[0] for row in unpacked], outputs


def stacked(answer: Answer, good: Sequence[int], names: Sequence[str]) -> dict[str, Array] | None:
    """These outputs as arrays [rows, ...]; None where there is one row only, or rows of several shapes."""
    if answer.alone or len(good) < 2:
        return None
    try:
        return answer.layout.stack([packed for packed in answer.packed if packed is not None], names)
    except ShapesDiffer:
        return None


def spread(columns: Mapping[str, Array], count: int) -> list[dict[str, Any]]:
    """Columns [rows, ...] as one {name: row} for each row."""
    values = [iter(jsonable(column)) for column in columns.values()]
    names = list(columns)
    if len(names) == 1:
        name = names[0]
        return [{name: row} for row in values[0]]
    if not names:
        return [{} for _ in range(count)]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def labelled(labels: Labels, scores: Array, k: int) -> list[orjson.Fragment]:
    """The best classes of each row of scores [rows, ...], by name, as JSON."""
    flat = scores.reshape(len(scores), -1)
    best = top_classes(flat, k)
    if not best.shape[1]:
        return [orjson.Fragment(b"[]")] * len(best)
    entries, count = labels.entries, len(labels.entries)
    numbers = orjson.dumps(jsonable(flat[np.arange(len(flat))[:, None], best]), option=PLAIN)
    rows = []
    for indices, row in zip(best.tolist(), numbers[2:-2].split(b"],["), strict=True):
        starts = [entries[i] if i < count else b'{"index":%d,"label":null,"score":' % i for i in indices]
        classes = [b"%b%b}" % pair for pair in zip(starts, row.split(b","), strict=True)]
        rows.append(orjson.Fragment(b"[%b]" % b",".join(classes)))
    return rows
