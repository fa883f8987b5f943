"""Whom a listener answers: under which names it may be asked, and by pages of which origins. Pure values, any thread.

Every page in a browser can send requests to a server on the same machine or network: under a name of its own that it
points there (DNS rebinding), or by a form, a picture or a fetch whose answer it may not read, but whose rows are
computed all the same. Browsers tell under which name they ask (Host) and for whom (Origin, Sec-Fetch-Site), and no
page can change that. Other clients do not send the latter two, and are judged by Host alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from rowserve.handlers.problem import Problem
from rowserve.server.principal import ANYBODY, Principal
from rowserve.server.request_head import HOST
from rowserve.server.response_head import head_lines
from rowserve.server.target import authority_of

if TYPE_CHECKING:
    from rowserve.server.request_head import RequestHead

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
DEFAULT_PORTS = {"http": "80", "https": "443"}
LOOPBACK_NAME = re.compile(r"(?:.*\.)?localhost")
HOST_ENTRY = re.compile(r"(?:\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9_-][a-z0-9._-]*)(?::[0-9]+)?")
MOST_KNOWN = 64
# A browser asks again after so many seconds whether a page may send a request; Chromium's own limit.
MAX_AGE = "7200"
VARIES = Principal(lines=b"Vary: Origin\r\n")


class Authority(NamedTuple):
    """HOST or HOST:PORT, in lower case, without the dot that may end a name."""

    host: str
    port: str

    @classmethod
    def read(cls, text: str) -> Authority:
        """What a client wrote; with the host "", which nobody has, where it is none."""
        found = HOST.fullmatch(text)
        return cls("", "") if found is None else cls(found[1].lower().removesuffix("."), (found[2] or "")[1:])

    @classmethod
    def entry(cls, text: str) -> Authority:
        """An entry of `[http] hosts`: NAME, NAME:PORT or *.DOMAIN. Raises ValueError."""
        if HOST_ENTRY.fullmatch(text.lower()) is None:
            raise ValueError(
                f"hosts: {text!r} is no host; write it as clients do in the header Host, such as "
                '"models.example.org", "10.0.0.7:8080", or "*.example.org" for all names below that one'
            )
        return cls.read(text)

    def covers(self, asked: Authority) -> bool:
        """Whether this entry means the authority that was asked: at any port, where the entry has none."""
        if self.port and self.port != asked.port:
            return False
        return asked.host.endswith(self.host[1:]) if self.host.startswith("*.") else asked.host == self.host


class Origin(NamedTuple):
    """The origin of a page (RFC 6454): a port that is its scheme's own is always there."""

    scheme: str
    host: str
    port: str

    @classmethod
    def read(cls, text: str) -> Origin | None:
        """What a browser wrote; None where that names no origin, as "null" does not."""
        scheme, _, rest = text.lower().partition("://")
        host, port = Authority.read(rest)
        if not host or SCHEME.fullmatch(scheme) is None:
            return None
        return cls(scheme, host, port or DEFAULT_PORTS.get(scheme, ""))

    @classmethod
    def entry(cls, text: str) -> Origin:
        """An entry of `[http] origins`. Raises ValueError."""
        found = cls.read(text)
        if found is None or "*" in text:
            raise ValueError(
                f"origins: {text!r} is no origin; write it as browsers do, with a scheme and without a path, such as "
                '"https://page.example.org" or "http://localhost:3000"'
            )
        return found

    def is_of(self, asked: Authority) -> bool:
        """Whether the page came from there, by whatever scheme: who ends TLS in front of this server speaks http."""
        return (self.host, self.port) == (asked.host, asked.port or DEFAULT_PORTS.get(self.scheme, ""))


@dataclass(frozen=True, slots=True)
class OriginRule:
    """The rule of one listener. `loopback` is whether only this machine can reach it; `hosts` and `origins` are the
    entries of the settings.

    It remembers hosts that it answered to: to judge one takes some microseconds, and clients send the same with each
    request.
    """

    loopback: bool = False
    hosts: tuple[Authority, ...] = ()
    origins: frozenset[Origin] = frozenset()
    _known: set[str | None] = field(default_factory=set, compare=False)

    @classmethod
    def of(cls, bound: str, hosts: Iterable[str], origins: Iterable[str]) -> OriginRule:
        """That of a listener bound to an address. Raises ValueError."""
        return cls(is_loopback(bound), tuple(map(Authority.entry, hosts)), frozenset(map(Origin.entry, origins)))

    def authorize(self, head: RequestHead) -> Principal:
        """Who asks. Raises Problem 403. It follows from the rule and the head alone."""
        headers = head.headers
        plain = "origin" not in headers and "sec-fetch-site" not in headers and head.target.startswith(b"/")
        if plain and headers.get("host") in self._known:
            return VARIES if self.origins else ANYBODY
        principal = self._judge(head)
        if plain and len(self._known) < MOST_KNOWN:
            self._known.add(headers.get("host"))
        return principal

    def _judge(self, head: RequestHead) -> Principal:
        host = asked_host(head)
        asked = Authority.read(host or "")
        if host is not None and not self._answers_to(asked):
            raise forbidden(
                f"the host {host[:100]!r} is not answered here; if it is this server's, name it in [http] hosts"
            )
        origin = head.headers.get("origin")
        page = None if origin is None else Origin.read(origin)
        if origin is not None and page in self.origins:
            return allowed(origin, head)
        if origin is not None and (page is None or not page.is_of(asked)):
            raise forbidden(f"a page of {origin[:100]!r} asks; if it may, name that origin in [http] origins")
        if is_cross_site(head):
            raise forbidden(
                "a page of another site asks; if it may, name its origin in [http] origins, and ask by CORS"
            )
        return VARIES if self.origins else ANYBODY

    def _answers_to(self, asked: Authority) -> bool:
        if not self.loopback and not self.hosts:
            return True
        return is_loopback(asked.host) or any(each.covers(asked) for each in self.hosts)


def is_loopback(host: str) -> bool:
    """Whether a name or an address (in brackets or not) never means any machine but this one."""
    if LOOPBACK_NAME.fullmatch(host):
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def asked_host(head: RequestHead) -> str | None:
    """Whom the client asks: a target in absolute form counts before Host (RFC 9112, section 3.2.2)."""
    named = authority_of(head.target)
    return head.headers.get("host") if named is None else named.decode("latin-1")


def is_cross_site(head: RequestHead) -> bool:
    """Whether a browser asks for a page of another site, without going to look at the answer itself."""
    headers = head.headers
    going = headers.get("sec-fetch-mode") == "navigate" and head.method == b"GET"
    return headers.get("sec-fetch-site") == "cross-site" and not going


def allowed(origin: str, head: RequestHead) -> Principal:
    """A page of another origin that may ask: its browser lets it send what it wants, and read all of the answer."""
    lines = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
    method, fields = (head.headers.get(f"access-control-request-{what}") for what in ("method", "headers"))
    if method is None or head.method != b"OPTIONS":
        return Principal(origin, head_lines([*lines, ("Access-Control-Expose-Headers", "*")]))
    lines += [("Access-Control-Allow-Methods", method), ("Access-Control-Max-Age", MAX_AGE)]
    if fields is not None:
        lines.append(("Access-Control-Allow-Headers", fields))
    return Principal(origin, head_lines(lines), preflight=True)


def forbidden(detail: str) -> Problem:
    """403, saying which setting would change that."""
    return Problem(403, detail, reason="forbidden")
