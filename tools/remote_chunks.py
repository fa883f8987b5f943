"""Groups made ready for a server: JSON lines as they are, pictures read from this disk. Reader thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from rowserve.handlers.json_values import TITLE, read_json
from rowserve.handlers.lines import Line
from rowserve.handlers.ndjson import Mode, PathLine, path_line
from rowserve.handlers.problem import Problem
from rowserve.tools.feed import Chunk
from rowserve.tools.groups import Columns, Group, Lines
from rowserve.tools.picture_files import read_file

UPLOADS = 32
UPLOAD_BYTES = 16 << 20
ANSWER_BYTES = 4096  # of a row, for want of knowledge
NUMPY = orjson.OPT_SERIALIZE_NUMPY


@dataclass(slots=True, eq=False)
class RemoteChunk(Chunk):
    """What one request carries: lines of JSON, or pictures; or the faults of lines that go nowhere."""

    text: bytes = b""
    uploads: Sequence[bytes] = field(default_factory=list)
    problems: Sequence[Problem] = field(default_factory=list)


class RemoteParser:
    """Makes chunks for a server, each of one kind; lines are numbered from 1."""

    def __init__(self, largest_file: int) -> None:
        self._largest_file = largest_file
        self._first = 1

    def chunks(self, groups: Iterable[Group]) -> Iterator[RemoteChunk]:
        """Chunks, in order."""
        for group in groups:
            yield from self._runs(self._parts(group))

    def _parts(self, group: Group) -> Iterator[bytes | PathLine | Problem]:
        if isinstance(group, Columns):
            yield from json_lines(group)
        elif isinstance(group, Lines):
            for line in group.lines:
                yield part_of(line, group.mode)
        else:
            for path in group.paths:
                yield PathLine(path)

    def _runs(self, parts: Iterable[bytes | PathLine | Problem]) -> Iterator[RemoteChunk]:
        """Neighbours of one kind together."""
        lines: list[bytes] = []
        pictures: list[tuple[str, bytes]] = []
        for part in parts:
            content = read_file(part.path, self._largest_file) if isinstance(part, PathLine) else part
            name = part.path if isinstance(part, PathLine) else None
            is_line = isinstance(part, bytes)
            if lines and not is_line:
                yield self._lines(lines)
                lines = []
            if pictures and (is_line or isinstance(content, Problem) or full(pictures)):
                yield self._pictures(pictures)
                pictures = []
            if isinstance(content, Problem):
                yield self._number(RemoteChunk(0, 1, 0, names=[name], problems=[content]))
            elif name is None:
                lines.append(content)
            else:
                pictures.append((name, content))
        if lines:
            yield self._lines(lines)
        if pictures:
            yield self._pictures(pictures)

    def _lines(self, lines: list[bytes]) -> RemoteChunk:
        text = b"\n".join(lines) + b"\n"
        return self._number(RemoteChunk(0, len(lines), len(text) + ANSWER_BYTES * len(lines), text=text))

    def _pictures(self, pictures: list[tuple[str, bytes]]) -> RemoteChunk:
        names, uploads = zip(*pictures, strict=True)
        nbytes = sum(map(len, uploads)) + ANSWER_BYTES * len(uploads)
        return self._number(RemoteChunk(0, len(uploads), nbytes, names=names, uploads=uploads))

    def _number(self, chunk: RemoteChunk) -> RemoteChunk:
        chunk.first = self._first
        self._first += chunk.rows
        return chunk


def full(pictures: Sequence[tuple[str, bytes]]) -> bool:
    """Whether no further picture goes into the request."""
    return len(pictures) >= UPLOADS or sum(len(upload) for _, upload in pictures) >= UPLOAD_BYTES


def part_of(line: Line, mode: Mode) -> bytes | PathLine | Problem:
    """A line as JSON for the server to judge, as a path, or as neither."""
    if isinstance(line, Problem):
        return line
    text = line.strip()
    if not text:
        return Problem(400, "an empty line", title=TITLE)
    if mode is Mode.PATHS:
        return path_line(text)
    if mode is Mode.JSON or text[:1] in (b"[", b"{", b'"'):
        return text
    try:
        read_json(text)
    except Problem:
        path = path_line(text)
        return path if isinstance(path, PathLine) else Problem(400, "neither JSON nor a picture's path", title=TITLE)
    return text


def json_lines(group: Columns) -> Iterator[bytes]:
    """Rows of arrays as lines of JSON."""
    columns: dict[str, Any] = {name: plain(array) for name, array in group.arrays.items()}
    for index in range(group.count):
        row = {name: column[index] for name, column in columns.items()}
        yield orjson.dumps(row.get("", row), option=NUMPY)


def plain(array: Any) -> Any:
    """What orjson takes row by row."""
    if array.dtype.kind == "S":
        return array.astype("U").tolist()
    return array.tolist() if array.dtype.kind == "U" or array.ndim < 2 else array
