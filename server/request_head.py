"""The head of a request, read strictly: whatever could be read two ways is refused. Pure functions.

Folded headers, spaces around names, control characters, bare line feeds, any Transfer-Encoding but `chunked`, two
lengths or a length beside chunks, a Host that is missing (HTTP/1.1), malformed or given twice, a target that is neither
a path nor an absolute address: none of them passes. What is refused is a Problem.
"""

from __future__ import annotations

import re

from rowserve.handlers.problem import Problem
from rowserve.server.principal import ANYBODY, Principal

END = b"\r\n\r\n"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Below 2^63, so that no proxy in front reads another number.
MAX_LENGTH_DIGITS = 18
MAX_HEADERS = 500
REQUEST_LINE = re.compile(rf"({TOKEN}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
TARGET = re.compile(r"/[!-~]*|(?i:https?)://[^/?#]+(?:[/?][!-~]*)?")
FIELDS = re.compile(rf"(?:{TOKEN}:[\t -~\x80-\xff]*\r\n)*")
FIELD = re.compile(r"([^:\r]+):([^\r]*)\r\n")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
FOLD = re.compile(r"\n[ \t]")
BARE_LF = re.compile(rb"(?:^|[^\r])\n")


class RequestHead:
    """What a head says. It is not changed once it is judged, so requests with the same head may share it.

    `principal` is who sent it, set by who judges it. `length` is the body's, None where it comes in chunks; `keeps` is
    whether the client will have the connection kept. `headers` have names in lower case, and several values joined by
    commas.
    """

    __slots__ = (
        "_last", "expects_continue", "headers", "keeps", "length", "method", "principal", "target", "version",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, version: bytes, fields: list[tuple[str, str]]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.principal: Principal = ANYBODY
        self._last = dict(fields)
        self.headers = self._last if len(self._last) == len(fields) else joined(fields)
        self.length = body_length(self.headers, version)
        check_host(self.headers.get("host"), fields, version)
        new = version == b"HTTP/1.1"
        wishes = [wish.strip().lower() for wish in self.headers.get("connection", "").split(",")]
        self.keeps = "close" not in wishes and (new or "keep-alive" in wishes)
        self.expects_continue = new and self.header("expect").lower() == "100-continue"

    def header(self, name: str) -> str:
        """The value of a header, of several the last; "" where there is none."""
        return self._last.get(name, "")


def read_head(raw: bytes) -> RequestHead:
    """A complete head, its empty line included. Raises Problem 400 or 505."""
    text = raw.decode("latin-1")
    line = request_line(text)
    start = line.end()
    if FIELDS.fullmatch(text, start, len(text) - 2) is None:
        raise malformed(fault_of_fields(text[start:]))
    fields = [(name.lower(), value.strip(" \t")) for name, value in FIELD.findall(text, start)]
    if len(fields) > MAX_HEADERS:
        raise malformed(f"there are more than {MAX_HEADERS} headers")
    method, target, _, minor = line.groups()
    # A later HTTP/1 is read as the latest that is known here (RFC 9110, section 2.5).
    return RequestHead(method.encode(), target.encode(), b"HTTP/1.0" if minor == "0" else b"HTTP/1.1", fields)


def request_line(text: str) -> re.Match[str]:
    """The first line: method, target, and the two digits of the version. Raises Problem 400 or 505."""
    line = REQUEST_LINE.match(text)
    if line is None:
        raise malformed("the request line cannot be parsed")
    method, target, major, minor = line.groups()
    if major != "1":
        raise Problem(505, f"HTTP/{major}.{minor} is not spoken here; HTTP/1.1 is", reason="malformed")
    if TARGET.fullmatch(target) is None and (method, target) != ("OPTIONS", "*"):
        raise malformed("the target is neither a path, which begins with a slash, nor an absolute http:// address")
    return line


def check_beginning(data: bytes) -> None:
    """Raises Problem 400 or 505 for a head that is not complete where something is wrong with it already."""
    if BARE_LF.search(data):
        raise malformed("a line ends in a bare line feed")
    line = data.find(b"\r\n")
    if line >= 0:
        request_line(data[: line + 2].decode("latin-1"))


def over_limit(data: bytes, limit: int) -> Problem:
    """A head of more than `limit` bytes, or its beginning: whether the target is to blame, or the headers are."""
    line = data.find(b"\r\n")
    if line < 0 or 2 * line > limit:
        return Problem(414, f"the target is too long: target and headers together may have {limit} bytes")
    return Problem(431, f"the headers are larger than {limit} bytes")


def malformed(how: str) -> Problem:
    """The client broke the protocol."""
    return Problem(400, how, reason="malformed")


def fault_of_fields(text: str) -> str:
    """Why the headers do not parse."""
    if BARE_LF.search(text.encode("latin-1")):
        return "a line ends in a bare line feed"
    if CONTROL.search(text):
        return "a header contains a control character"
    if FOLD.search("\n" + text[:-2]):
        return "a header is folded over two lines"
    return "a header cannot be parsed"


def joined(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Values of the same name, joined."""
    headers: dict[str, str] = {}
    for name, value in fields:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def body_length(headers: dict[str, str], version: bytes) -> int | None:
    """Where the body ends. Raises Problem 400 where that is in doubt; values that come twice are joined by now."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked":
            raise malformed("the only Transfer-Encoding taken is chunked")
        if length is not None:
            raise malformed("there are both a Content-Length and a Transfer-Encoding")
        if version != b"HTTP/1.1":
            raise malformed("HTTP/1.0 has no Transfer-Encoding")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()) or len(length) > MAX_LENGTH_DIGITS:
        raise malformed("Content-Length is not a number")
    return int(length)


def check_host(host: str | None, fields: list[tuple[str, str]], version: bytes) -> None:
    """Raises Problem 400."""
    if host is None:
        if version == b"HTTP/1.1":
            raise malformed("the Host header is missing")
    elif HOST.fullmatch(host) is None:
        two = sum(name == "host" for name, _ in fields) > 1
        raise malformed("there are two Host headers" if two else "the Host header is malformed")
