"""Faults of a request's head that make its end, or its addressee, doubtful. Pure functions; "" is no fault."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.web.http_headers import Headers

# Below 2^63, so that no proxy in front reads another number.
MAX_LENGTH_DIGITS = 18
HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")
CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code != 0x09)


def value_fault(line: bytes) -> str:
    """Control characters in a header line."""
    if len(line.translate(None, CONTROLS)) != len(line):
        return "a header contains a control character"
    return ""


def content_length_fault(value: bytes) -> str:
    """A Content-Length that is no plain number."""
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        return "Content-Length is not a number"
    return ""


def transfer_encoding_fault(value: bytes) -> str:
    """Anything but `chunked`."""
    return "" if value.lower() == b"chunked" else "the only Transfer-Encoding taken is chunked"


def head_fault(version: bytes, headers: Headers) -> str:
    """What is wrong with the head as a whole."""
    hosts = headers.getRawHeaders(b"Host") or []
    if version == b"HTTP/1.1" and not hosts:
        return "the Host header is missing"
    if len(hosts) > 1:
        return "there are two Host headers"
    if hosts and not HOST.fullmatch(hosts[0]):
        return "the Host header is malformed"
    if version != b"HTTP/1.1" and headers.hasHeader(b"Transfer-Encoding"):
        return "HTTP/1.0 has no Transfer-Encoding"
    return ""


def wants_close(headers: Headers) -> bool:
    """Whether the client will have the connection closed."""
    values = headers.getRawHeaders(b"Connection") or []
    return any(token.strip().lower() == b"close" for value in values for token in value.split(b","))
