"""Our reader of heads and of chunks against h11 and httptools (llhttp), on generated input.

Two parsers that read the same bytes differently are how requests are smuggled past a proxy. So whatever we take, the
others must take to mean the same, and each kind of difference is listed here with its reason; another one is a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import h11
import httptools
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from rowserve.handlers.problem import Problem
from rowserve.server.framing import ChunkReader
from rowserve.server.request_head import read_head

Fields = list[tuple[bytes, bytes]]
# The same examples in each run, and not fewer than this, however few a profile asks for.
EXAMPLES = settings(max_examples=max(500, settings().max_examples))


@dataclass
class Told:
    """What a parser read of a head, or why it would not."""

    method: bytes = b""
    target: bytes = b""
    fields: Fields = field(default_factory=list)
    refused: str = ""


def ours(raw: bytes) -> Told:
    try:
        head = read_head(raw)
    except Problem as problem:
        return Told(refused=problem.detail)
    fields = sorted((name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers.items())
    return Told(head.method, head.target, fields)


def by_h11(raw: bytes) -> Told:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return Told(refused=str(error))
    if not isinstance(event, h11.Request):
        return Told(refused=f"{event!r}")
    return Told(event.method, event.target, joined(event.headers.raw_items()))


class Heard:
    """What httptools calls."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: Fields = []
        self.body = b""
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


def by_httptools(raw: bytes) -> Told:
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # it has read the head, and leaves what follows to others
    except httptools.HttpParserError as error:
        return Told(refused=f"{type(error).__name__}: {error}")
    return Told(parser.get_method(), heard.target, joined(heard.fields))


def joined(fields: Sequence[tuple[bytes, bytes]]) -> Fields:
    """Names in lower case, values of the same name joined, as we have them."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        key, told = name.lower(), value.strip(b" \t")
        found[key] = found[key] + b", " + told if key in found else told
    return sorted(found.items())


def comparable(fields: Fields) -> Fields:
    """h11 gives the coding of a body in lower case."""
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]


def both_took(
    name: str, mine: str, theirs: str, stricter: Mapping[str, str], laxer: Mapping[tuple[str, str], str]
) -> bool:
    """Whether neither of the two refused it. Where only one did, the reason must be listed."""
    if mine and not theirs:
        assert any(map(mine.startswith, stricter)), (name, mine)
    if theirs and not mine:
        assert any(peer == name and part in theirs for peer, part in laxer), (name, theirs)
    return not (mine or theirs)


PARSERS = {"h11": by_h11, "httptools": by_httptools}
# What we refuse and one of them may take: by how our text begins.
STRICTER = {
    "the request line cannot be parsed": "RFC 9112, section 3: one space, and visible ASCII, between its parts",
    "the target is neither a path": "RFC 9112, section 3.2: CONNECT's form and bare words name no route",
    "HTTP/": "RFC 9110, section 15.6.6: another major version has another message syntax",
    "a line ends in a bare line feed": "RFC 9112, section 2.2 allows to read it, and that is how lines are hidden",
    "a header contains a control character": "RFC 9110, section 5.5: dangerous in a field value",
    "a header is folded": "RFC 9112, section 5.2: a server must refuse it or replace it",
    "a header cannot be parsed": "RFC 9110, section 5.1: a name is a token, and nothing stands before the colon",
    "the only Transfer-Encoding taken is chunked": "RFC 9112, section 6.1: 501 or 400 for codings that are not known",
    "there are both a Content-Length and a Transfer-Encoding": "RFC 9112, section 6.1: ought to be handled as an error",
    "HTTP/1.0 has no Transfer-Encoding": "RFC 9112, section 6.1: its framing is faulty",
    "Content-Length is not a number": "RFC 9112, section 6.3: of several lengths, each may be believed by somebody",
    "the Host header is missing": "RFC 9112, section 3.2: 400",
    "the Host header is malformed": "RFC 9112, section 3.2: 400 for a value that is no host",
    "there are two Host headers": "RFC 9112, section 3.2: 400",
}
# What we take and one of them refuses: by its name and a part of its text.
LAXER = {
    ("httptools", "Invalid method encountered"): "it knows a list of methods; here a method that no route has is a 405",
    ("httptools", "Invalid HTTP version"): "RFC 9110, section 2.5: a later minor version is read as the latest known",
}

METHODS = st.sampled_from(["GET", "POST", "PUT", "get", "M-SEARCH", "BREW", "G(T", "", "G T", "OPTIONS", "CONNECT"])
TARGETS = st.sampled_from(
    ["/", "/a?b=c", "/a%20b", "//a", "*", "http://h/p", "HTTP://h", "h:80", "a", "/\xff", "/a b", "", "/a#b", "/\t"]
)
VERSIONS = st.sampled_from(
    ["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/11.1", "http/1.1", "HTTP/1", ""]
)
LENGTHS = st.sampled_from(["0", "3", "03", "+3", "-3", "3, 3", "3,4", "0x3", "3 ", "", "9" * 30])
CODINGS = st.sampled_from(
    ["chunked", "Chunked", "identity", "gzip, chunked", "chunked, chunked", "xchunked", "", "chunked "]
)
SPACES = st.sampled_from([" "] * 9 + ["  ", "\t"])
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\r\n"])
COLONS = st.sampled_from([": "] * 6 + [":", " : ", ":\t", ""])
VALUES = st.text(st.sampled_from("ab,;= \t\x00\x0b\x1f\x7f\x80\xff"), max_size=6)
FIELDS = st.one_of(
    st.tuples(st.just("Host"), st.sampled_from(["a", "a:80", "[::1]:80", "", "a b", "a/b", "u@a", "a,b"])),
    st.tuples(st.just("Content-Length"), LENGTHS),
    st.tuples(st.just("Transfer-Encoding"), CODINGS),
    st.tuples(st.just("Connection"), st.sampled_from(["close", "keep-alive", "upgrade", "a, b"])),
    st.tuples(st.sampled_from(["X-A", "x_a", "a b", "a(", "\xe4", "", "A"]), VALUES),
    st.tuples(st.just(" folded"), VALUES),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads that are right in most places."""
    end = draw(ENDS)
    line = draw(METHODS) + draw(SPACES) + draw(TARGETS) + draw(SPACES) + draw(VERSIONS)
    fields = draw(st.lists(FIELDS, max_size=4))
    if draw(st.integers(0, 9)):
        fields.insert(0, ("Host", "test"))
    lines = [line, *(name + draw(COLONS) + value for name, value in fields)]
    return "".join([*(each + (end if draw(st.booleans()) else "\r\n") for each in lines), "\r\n"]).encode("latin-1")


def only_one_head(raw: bytes) -> bool:
    """A channel hands over what comes before the first empty line, and that line."""
    return raw.find(b"\r\n\r\n") == len(raw) - 4


@seed(9112)
@EXAMPLES
@given(heads().filter(only_one_head))
def test_heads(raw: bytes) -> None:
    mine = ours(raw)
    for name, parser in PARSERS.items():
        theirs = parser(raw)
        if both_took(name, mine.refused, theirs.refused, STRICTER, LAXER):
            assert (theirs.method, theirs.target) == (mine.method, mine.target), name
            assert comparable(theirs.fields) == comparable(mine.fields), name


# Chunks

HEAD = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Body:
    """The body that a parser read out of chunks, whether it was complete, or why it would not."""

    data: bytes = b""
    done: bool = False
    refused: str = ""


def our_body(chunks: bytes) -> Body:
    reader, pieces, at = ChunkReader(), [], 0
    while not reader.done:
        piece, used = reader.read(chunks[at:])
        pieces.append(piece)
        at += used
        if reader.fault is not None:
            return Body(refused=reader.fault.detail)
        if not used:
            break
    return Body(b"".join(pieces), reader.done)


def body_by_h11(chunks: bytes) -> Body:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(HEAD + chunks)
    body = Body()
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body.data += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                body.done = True
                return body
            elif not isinstance(event, h11.Request):
                return body
    except h11.RemoteProtocolError as error:
        return Body(refused=str(error))


def body_by_httptools(chunks: bytes) -> Body:
    heard = Heard()
    try:
        httptools.HttpRequestParser(heard).feed_data(HEAD + chunks)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        if not heard.done:  # else it stumbles over what follows, which is another request
            return Body(refused=str(error))
    return Body(heard.body, heard.done)


BODIES = {"h11": body_by_h11, "httptools": body_by_httptools}
STRICTER_BODY = {
    "the request cannot be parsed: a chunk's size": "RFC 9112, section 7.1: hexadecimal digits, an extension, CR LF",
    "the request cannot be parsed: a chunk is longer": "RFC 9112, section 7.1: CR LF stands behind a chunk's data",
    "the request cannot be parsed: a trailer is no header": "RFC 9112, section 7.1.2: trailers are fields",
}
LAXER_BODY = {
    ("httptools", "in chunk extensions"): "RFC 9112, section 7.1.1: ignored; they end with their line in any case",
}
SIZES = st.sampled_from(
    ["{:x}"] * 6 + ["{:X}", "0{:x}", "0x{:x}", "+{:x}", " {:x}", "{:x} ", "{:x};a=b", "{:x};", '{:x};a="b"']
)
CHUNK_ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "", "\r\r\n"])
TRAILERS = st.sampled_from(
    ["", "", "", "A: b\r\n", "A b\r\n", "A : b\r\n", "A: b\n", " A: b\r\n", "A: \x00\r\n", ": b\r\n"]
)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """Chunks that are right in most places."""
    parts = []
    for size in draw(st.lists(st.integers(1, 20), max_size=3)):
        parts.append(draw(SIZES).format(size) + draw(CHUNK_ENDS) + "x" * size + draw(CHUNK_ENDS))
    parts.append(draw(st.sampled_from(["0", "0", "0", "000", "", "0;a"])) + draw(CHUNK_ENDS) + draw(TRAILERS) + "\r\n")
    return "".join(parts).encode("latin-1")


@seed(9112)
@EXAMPLES
@given(chunked())
def test_chunks(chunks: bytes) -> None:
    mine = our_body(chunks)
    for name, parser in BODIES.items():
        theirs = parser(chunks)
        if both_took(name, mine.refused, theirs.refused, STRICTER_BODY, LAXER_BODY):
            assert (theirs.done, theirs.data) == (mine.done, mine.data), name
