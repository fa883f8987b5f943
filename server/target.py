"""The target of a request: path, query, and what its parts may be. Pure functions."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote_to_bytes

from rowserve.handlers.problem import Problem

COLON = re.compile("%3[Aa]")
ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


def authority_of(uri: bytes) -> bytes | None:
    """Whom a request target in absolute form names; None for the other forms."""
    found = ABSOLUTE.match(uri)
    return None if found is None else found[1]


def without_authority(uri: bytes) -> bytes:
    """The path and query of a request target, which may be in absolute form."""
    for scheme in (b"http://", b"https://"):
        if uri[: len(scheme)].lower() == scheme:
            return b"/" + uri[len(scheme) :].partition(b"/")[2]
    return uri


def parse_query(query: bytes, most: int) -> dict[str, list[str]]:
    """The fields of a query. Raises Problem 400."""
    if not query:
        return {}
    try:
        return parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=most, errors="strict")
    except ValueError as error:
        raise Problem(400, f"the query cannot be parsed: {error}", reason="malformed") from None


def fixed_path(path: bytes) -> str:
    """The path as routes are found by it: as it came, but for a colon, which may come escaped."""
    text = path.decode("latin-1")
    return COLON.sub(":", text) if "%" in text else text


def decoded(part: str) -> str:
    """A part of a path that is a name, percent-decoded. Raises Problem 400."""
    try:
        return unquote_to_bytes(part.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "the path is not UTF-8", reason="malformed") from None


def version_number(version: str) -> int:
    """A version of a path; 0 is whichever answers for the name. Raises Problem 404."""
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise Problem(404, f"versions are positive whole numbers, not {version[:40]!r}")
    return int(version)
