"""A server's answers as the lines that `infer` prints. Pure functions, any thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson

from rowserve.handlers.items import Outcome
from rowserve.handlers.ndjson import encode_problem_line, named
from rowserve.handlers.problem import Problem
from rowserve.tools.bulk_job import Reply, refusals
from rowserve.tools.feed import Chunk

OUTCOMES = {outcome.value: outcome for outcome in Outcome}
NEWLINE = orjson.OPT_APPEND_NEWLINE


def problem_in(status: int, body: bytes) -> Problem:
    """The fault that an answer tells of."""
    try:
        told = orjson.loads(body)
        return Problem(int(told["status"]), str(told["detail"]), title=str(told["title"]), reason="server")
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return Problem(status, f"the server answered with status {status}", title="Bad answer", reason="server")


def line_reply(chunk: Chunk, status: int, body: bytes) -> Reply:
    """The reply to lines that went to /rows; its lines are numbered from 1, ours from the chunk's first."""
    if status != 200:
        return refusals(chunk, [problem_in(status, body)] * chunk.rows)
    lines: list[bytes] = []
    outcomes: Counter[Outcome] = Counter()
    faults: dict[int, Problem] = {}
    for index, line in enumerate(body.splitlines()[: chunk.rows]):
        outcome, rest = told_of(line)
        if outcome is Outcome.FAILED:
            faults[index] = problem_of(orjson.loads(line).get("error"), 502)
        outcomes[outcome] += 1
        lines.append(b'{"line":%d' % (chunk.first + index) + rest + b"\n")
    for index in range(len(lines), chunk.rows):
        problem = faults[index] = Problem(502, "the server's answer broke off", title="No answer")
        outcomes[Outcome.FAILED] += 1
        lines.append(encode_problem_line(problem, chunk.first + index))
    return Reply(partial(b"".join, lines), outcomes, faults)


def told_of(line: bytes) -> tuple[Outcome, bytes]:
    """A line's outcome, and all of it that follows its number. A line of another form raises ValueError."""
    comma = line.index(b",")
    rest = line[comma:]
    if rest.startswith(b',"cache":"'):
        return OUTCOMES[rest[10 : rest.index(b'"', 10)].decode()], rest
    return Outcome.FAILED, rest


def picture_reply(chunk: Chunk, status: int, body: bytes) -> Reply:
    """The reply to pictures that went to /images."""
    try:
        rows = orjson.loads(body)["rows"]
        if len(rows) != chunk.rows:
            raise ValueError("another number of rows")
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return refusals(chunk, [problem_in(status, body)] * chunk.rows)
    outcomes = Counter(OUTCOMES.get(row.get("cache", ""), Outcome.FAILED) for row in rows)
    faults = {index: problem_of(row["error"], status) for index, row in enumerate(rows) if "error" in row}
    return Reply(partial(picture_lines, chunk, rows), outcomes, faults)


def picture_lines(chunk: Chunk, rows: Sequence[dict[str, Any]]) -> bytes:
    """A line for each row."""
    lines = []
    for index, row in enumerate(rows):
        row.pop("name", None)
        lines.append(
            orjson.dumps({"line": chunk.first + index, **named(chunk.name(index)), **row}, option=NEWLINE)
        )
    return b"".join(lines)


def problem_of(error: Any, status: int) -> Problem:
    """The problem of one row."""
    error = error if isinstance(error, dict) else {}
    return Problem(
        int(error.get("status", status)), str(error.get("detail", "no reason given")), title=str(error.get("title", ""))
    )
