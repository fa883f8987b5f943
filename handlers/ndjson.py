"""Lines to rows and answers to lines: the format of POST /rows and of `infer`.

Pure values; runs on the reactor or in a tool, a chunk of lines at a time, because a chunk costs a third of
its lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.example_row import with_example
from rowserve.handlers.items import Answer, ModelFace, Picture
from rowserve.handlers.json_numbers import COUNTABLE, number_lines
from rowserve.handlers.json_rows import merged, row_of, same_shape_rows
from rowserve.handlers.json_values import TITLE, is_b64, read_json, unb64
from rowserve.handlers.lines import Line
from rowserve.handlers.native_json import LINE
from rowserve.handlers.native_rows import Wants, plain_rows
from rowserve.handlers.problem import Problem

CONTENT_TYPE = "application/x-ndjson"
QUERY = ("top", "outputs", "signature", "priority", "sync")
LONGEST_PATH = 4096
ROOT = "row"


class Mode(StrEnum):
    """What a line may be. On the network it is always `json`: a path would name a file of the server."""

    AUTO = "auto"
    PATHS = "paths"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class PathLine:
    """A line that names a file: the caller reads it, and gives `LineReader.picture` what it holds."""

    path: str


LineItem = Rows | Picture | PathLine | Problem


class LineReader:
    """Lines of one signature.

    `read` gives items in the order of the lines: each stands for one line, but for Rows of n, which stand for
    n lines in a row (for one, where the signature's rows run alone). Blank lines are faults like others: each
    line has an answer.
    """

    def __init__(self, face: ModelFace, signature: Signature, mode: Mode = Mode.JSON) -> None:
        self.signature = signature
        self.mode = mode
        decoder = face.decoders.get(signature.name)
        self.decoder = decoder
        self.takes_pictures = decoder is not None and not isinstance(decoder, Problem)
        spec = signature.inputs[0] if len(signature.inputs) == 1 else None
        fast = spec is not None and spec.batched and spec.dtype in COUNTABLE and spec.row_bytes is not None
        self._numbers = spec if fast and mode is not Mode.PATHS else None
        self._alone = bool(signature.alone)

    def read(self, lines: Sequence[Line]) -> list[LineItem]:
        """A chunk of lines."""
        together = self._all_numbers(lines)
        if together is not None:
            return self._apart(together)
        items: list[LineItem] = []
        waiting: list[Any] = []  # JSON values that may become one Rows
        for line in lines:
            read = line if isinstance(line, Problem) else self._value(line)
            if isinstance(read, JsonValue):
                waiting.append(read.value)
                continue
            items += self._rows(waiting)
            waiting = []
            items.append(read)
        return items + self._rows(waiting)

    def picture(self, upload: bytes) -> Picture | Problem:
        """What the file of a PathLine becomes."""
        if isinstance(self.decoder, Problem):
            return self.decoder
        if self.decoder is None:
            told = f"signature {self.signature.name} takes no pictures; give JSON rows"
            return Problem(422, told, title="Takes no pictures", reason="takes_no_pictures")
        return Picture(upload, self.decoder)

    def _all_numbers(self, lines: Sequence[Line]) -> Rows | None:
        spec = self._numbers
        if spec is None or not lines:
            return None
        texts = [line for line in lines if isinstance(line, bytes)]
        if len(texts) != len(lines):
            return None
        array = number_lines(texts, tuple(size or 0 for size in spec.shape or ()), spec.numpy_dtype)
        return None if array is None else Rows({spec.name: array}, len(lines))

    def _apart(self, rows: Rows) -> list[LineItem]:
        """Rows that run alone come one by one: each line is a request of its own."""
        return [rows.slice(i, i + 1) for i in range(rows.count)] if self._alone and rows.count > 1 else [rows]

    def _value(self, line: bytes) -> JsonValue | Picture | PathLine | Problem:
        """What one line is; a JSON value is only parsed, not yet checked."""
        line = line.strip()
        if not line:
            return Problem(400, "an empty line", title=TITLE)
        if self.mode is Mode.PATHS:
            return path_line(line)
        try:
            value = read_json(line)
        except Problem as problem:
            if self.mode is Mode.JSON or line[:1] in (b"[", b"{", b'"'):
                return problem
            if not self.takes_pictures:
                return self._no_path(line, problem)
            return path_line(line)
        return self._picture_in(value) or JsonValue(value)

    def _no_path(self, line: bytes, problem: Problem) -> Problem:
        if isinstance(self.decoder, Problem) and b"\0" not in line:
            return self.decoder  # what keeps the model from taking pictures is what the user wants to know
        return Problem(400, f"neither JSON nor a picture's path ({problem.detail})", title=TITLE)

    def _picture_in(self, value: Any) -> Picture | Problem | None:
        """A picture in JSON: {"b64": ...} where the input takes no strings."""
        spec = self.signature.inputs[0] if len(self.signature.inputs) == 1 else None
        if spec is None or spec.dtype == "string" or not isinstance(value, dict):
            return None
        path = ROOT
        if not is_b64(value) and list(value) == [spec.name]:
            path, value = f"{ROOT}.{spec.name}", value[spec.name]
        if not is_b64(value):
            return None
        try:
            return self.picture(unb64(value, path))
        except Problem as problem:
            return problem

    def _rows(self, values: Sequence[Any]) -> list[LineItem]:
        """Rows of neighbouring JSON values, with the Problems of those that do not fit in their places."""
        if not values:
            return []
        together = same_shape_rows(self.signature, values, nan=False)
        if together is not None:
            return self._apart(together)
        items: list[LineItem] = []
        good: list[Rows] = []
        for value in values:
            try:
                good.append(row_of(self.signature, value, ROOT))
            except Problem as problem:
                items += self._merged(good)
                items.append(problem.with_traceback(None))  # its frames refer to these very items
                good = []
        return items + self._merged(good)

    def _merged(self, rows: list[Rows]) -> list[LineItem]:
        return [*rows] if self._alone else [*merged(rows)]


class TellingReader:
    """Reads what a `LineReader` does; of a stream's lines the first that is no row tells what one is."""

    def __init__(self, reader: LineReader) -> None:
        self._reader = reader
        self._told = False

    def read(self, lines: Sequence[Line]) -> list[LineItem]:
        """A chunk of lines."""
        items = self._reader.read(lines)
        if not self._told:
            for at, item in enumerate(items):
                if isinstance(item, Problem) and item.title == TITLE:
                    items[at] = with_example(item, self._reader.signature)
                    self._told = True
                    break
        return items


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A line that is JSON."""

    value: Any


def path_line(line: bytes) -> PathLine | Problem:
    """A line as a path, if it can be one."""
    if b"\0" in line or len(line) > LONGEST_PATH:
        return Problem(400, "neither JSON nor a path", title=TITLE)
    return PathLine(line.decode("utf-8", "surrogateescape"))


def encode_lines(
    face: ModelFace, answer: Answer, wants: Wants, first: int, inputs: Sequence[str | None] | None = None
) -> bytes:
    """One JSON line for each row of the answer, numbered from `first`; `inputs` are the paths, if any."""
    dumps = orjson.dumps
    rows = plain_rows(face, answer, wants)
    if inputs is None:
        return b"".join([dumps({"line": first + i, **row}, option=LINE) for i, row in enumerate(rows)])
    return b"".join(
        [
            dumps({"line": first + i, **named(name), **row}, option=LINE)
            for i, (name, row) in enumerate(zip(inputs, rows, strict=True))
        ]
    )


def encode_problem_line(problem: Problem, line: int, name: str | None = None) -> bytes:
    """The line of a row that never came to be."""
    return orjson.dumps({"line": line, **named(name), "error": problem.to_plain()}, option=LINE)


def named(name: str | None) -> dict[str, str]:
    """The `input` of a line: a path as far as Unicode can show it."""
    return {} if name is None else {"input": name.encode("utf-8", "replace").decode()}
