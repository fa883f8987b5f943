"""What a request to /rows wishes, by its query and headers. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rowserve.handlers import ndjson
from rowserve.handlers.example_row import a_line_is_a_row
from rowserve.handlers.http_headers import request_options
from rowserve.handlers.items import ModelFace, Options, Priority
from rowserve.handlers.native_rows import Query, Wants, check_names, read_wants, single
from rowserve.handlers.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rowserve.graphs.signature import Signature

PROTOCOL = "rows"
PRIORITIES = {"": Priority.INTERACTIVE, "interactive": Priority.INTERACTIVE, "bulk": Priority.BULK}


@dataclass(frozen=True, slots=True)
class StreamWishes:
    """`sync`: the last line comes after all is on disk."""

    signature: Signature
    wants: Wants
    options: Options
    sync: bool


def read_wishes(face: ModelFace, query: Query, headers: Mapping[str, str]) -> StreamWishes:
    """All wishes. Raises Problem 400, and 415 for a form."""
    check_names(query, ndjson.QUERY)
    signature = face.signature(single(query, "signature"))
    wants = read_wants(face, signature, single(query, "top"), single(query, "outputs"))
    priority = choice(query, "priority", PRIORITIES)
    # A bulk door reports success only after a real sync.
    sync = choice(query, "sync", {"": priority is Priority.BULK, "0": False, "1": True})
    if headers.get("content-type", "").lower().startswith("multipart/"):
        told = f"a form is not lines of rows: {a_line_is_a_row(signature)}; pictures go to /images/{face.name}"
        raise Problem(415, told, reason="malformed")
    return StreamWishes(signature, wants, request_options(headers, PROTOCOL, priority), sync)


def empty_body(signature: Signature) -> Problem:
    """What a body without a single line is, unless it only waits for the disk."""
    return Problem(400, f"the body is empty; {a_line_is_a_row(signature)}", reason="malformed")


def choice(query: Query, name: str, values: dict[str, Any]) -> Any:
    """The value that a query parameter stands for. Raises Problem 400."""
    given = single(query, name)
    if given not in values:
        there = " or ".join(value for value in values if value)
        raise Problem(400, f"{name}= takes {there}, not {given[:40]!r}")
    return values[given]
