"""The rows that `bench` reads from files, as the pieces of a request. Main thread, before the load begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from rowserve.graphs.signature import STRING
from rowserve.handlers.problem import Problem
from rowserve.server.units import Bytes
from rowserve.tools.bench_rows import Input, Piece
from rowserve.tools.groups import Columns, Group, Lines, Paths
from rowserve.tools.options import Refused
from rowserve.tools.picture_files import read_file
from rowserve.tools.remote_chunks import json_lines
from rowserve.tools.sources import BadPlace, Sources

HELD_BYTES = 1 << 30
LARGEST_FILE = 64 << 20


def read_pieces(place: str, protocol: str, inputs: Sequence[Input]) -> list[Piece]:
    """The rows at a place, up to a GiB of them. Raises Refused where it has none for this protocol."""
    try:
        found: list[Piece] = []
        held = 0
        for piece in pieces_at(place, protocol, inputs):
            held += sum(map(len, piece))
            if found and held > HELD_BYTES:
                break
            found.append(piece)
    except (BadPlace, ValueError) as error:
        raise Refused(f"--input: {error}") from None
    if not found:
        raise Refused(f"--input {place}: there is no row in it")
    return found


def pieces_at(place: str, protocol: str, inputs: Sequence[Input]) -> Iterator[Piece]:
    """One after the other. Raises Refused or ValueError."""
    for group in Sources([place]).groups():
        if isinstance(group, Paths) != (protocol == "images"):
            wanted = "open-inference or rows" if protocol == "images" else "images"
            raise Refused(f"--input {place}: send it with --protocol {wanted}")
        if protocol == "images":
            yield from pictures(group)
        elif protocol == "rows":
            yield from ((line,) for line in lines(group))
        else:
            yield from tensors(group, inputs)


def pictures(group: Group) -> Iterator[Piece]:
    """The files."""
    assert isinstance(group, Paths)
    for path in group.paths:
        content = read_file(path, LARGEST_FILE)
        if isinstance(content, Problem):
            raise Refused(f"--input: {content.detail}; at most {Bytes.text(LARGEST_FILE)} are read")
        yield (content,)


def lines(group: Group) -> Iterator[bytes]:
    """JSON rows."""
    if isinstance(group, Columns):
        yield from json_lines(group)
    elif isinstance(group, Lines):
        for line in group.lines:
            if isinstance(line, Problem):
                raise ValueError(line.detail)
            if line.strip():
                yield line


def tensors(group: Group, inputs: Sequence[Input]) -> Iterator[Piece]:
    """Rows as the bytes of each input's tensor."""
    rows: Any
    if isinstance(group, Columns):
        rows = [{name: array[at] for name, array in group.arrays.items()} for at in range(group.count)]
    else:
        rows = [orjson.loads(line) for line in lines(group)]
    for row in rows:
        found = row if isinstance(row, dict) else {"": row}
        yield tuple(tensor(each, found.get(each.name, found.get("") if len(inputs) == 1 else None)) for each in inputs)


def tensor(taken: Input, value: Any) -> bytes:
    """A row of one input. Raises ValueError unless it is one of the model's shape."""
    if value is None:
        raise ValueError(f"no rows for input {taken.name!r}")
    if taken.dtype == STRING or None in taken.shape:
        raise ValueError(f"input {taken.name!r} has rows of many sizes: use --protocol rows")
    array = np.ascontiguousarray(value, taken.numpy_dtype)
    if array.shape != taken.shape:
        raise ValueError(f"input {taken.name!r} takes rows of the shape {list(taken.shape)}, not {list(array.shape)}")
    return array.tobytes()
