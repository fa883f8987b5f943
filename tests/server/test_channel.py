"""Framing and deadlines of a connection, in raw bytes and on a stepped clock."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

import pytest

from rowserve.server.limits import Limits
from tests.http_doubles import FORM, Server, chunked, form, head, parse

OK = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /rows/m HTTP/1.1\r\nHost: a\r\n"

MALFORMED = {
    "content-length and transfer-encoding": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "transfer-encoding and content-length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\n",
    "list of lengths": POST + b"Content-Length: 4, 4\r\n\r\n",
    "signed length": POST + b"Content-Length: +4\r\n\r\n",
    "hexadecimal length": POST + b"Content-Length: 0x4\r\n\r\n",
    "length with underscore": POST + b"Content-Length: 1_0\r\n\r\n",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "length of 5,000 digits": POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n",
    "superscript length": POST + b"Content-Length: \xb2\r\n\r\n",
    "length with a space": POST + b"Content-Length: 4 4\r\n\r\n",
    "length behind a vertical tab": POST + b"Content-Length: \x0b4\r\n\r\n",
    "an empty length beside another": POST + b"Content-Length:\r\nContent-Length: 4\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "identity and length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 4\r\n\r\n",
    "chunked with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
    "chunked and nothing": POST + b"Transfer-Encoding: chunked,\r\n\r\n",
    "nothing, then chunked": POST + b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /rows/m HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded transfer-encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    "folded header": POST + b"X: a\r\n\tb\r\n\r\n",
    "fold in front of all": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 4\r\n\r\n",
    "space in a name": POST + b"Content Length: 4\r\n\r\n",
    "no colon": POST + b"Content-Length\r\n\r\n",
    "empty name": POST + b": 4\r\n\r\n",
    "NUL in a header": POST + b"X: a\0b\r\n\r\n",
    "NUL in a name": POST + b"X\0: a\r\n\r\n",
    "control character": POST + b"X: a\x01b\r\n\r\n",
    "bare CR in a header": POST + b"X: a\rb\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two hosts in 1.0": b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "host with a path": b"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with a user": b"GET /livez HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "list of hosts": b"GET /livez HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "host with markup": b"GET /livez HTTP/1.1\r\nHost: <script>\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n",
    "no host in 1.2": b"GET /livez HTTP/1.2\r\n\r\n",
    "HTTP/1.10": b"GET /livez HTTP/1.10\r\nHost: a\r\n\r\n",
    "HTTP/01.1": b"GET /livez HTTP/01.1\r\nHost: a\r\n\r\n",
    "space behind the version": b"GET /livez HTTP/1.1 \r\nHost: a\r\n\r\n",
    "tab for a space": b"GET\t/livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "no method": b" /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "target that is no ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "two empty lines in front": b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "target without a slash": b"GET livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "target of another scheme": b"GET ftp://a/livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target without an authority": b"GET http:///livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "authority for a target": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk for a target": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower-case version": b"GET /livez http/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare LF everywhere": b"GET /livez HTTP/1.1\nHost: a\n\n",
    "bare LF behind the request line": b"GET /livez HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF between headers": b"GET /livez HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare LF at the end of the headers": b"GET /livez HTTP/1.1\r\nHost: a\r\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    "600 headers": POST + b"".join(b"X-%d: a\r\n" % i for i in range(600)) + b"\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_could_be_read_two_ways_is_refused_and_the_connection_closed(raw):
    server = Server()
    client = server.connect()
    client.send(raw)
    reply = client.reply()
    assert reply.status == 400
    assert reply.headers["connection"] == "close"
    assert reply.headers["content-type"] == "application/problem+json"
    assert parsedate_to_datetime(reply.headers["date"]).tzinfo is UTC
    assert reply.json["detail"]
    client.send(OK)  # whatever follows is thrown away, never answered
    assert client.wire.value() == b""
    server.wait(3)
    assert client.wire.lost
    assert server.pipeline.seen == []


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_it_is_refused_byte_by_byte_as_well(raw):
    client = Server().connect()
    client.send(raw, step=1)
    assert client.reply().status == 400


BROKEN_CHUNKS = {
    "LF in a chunk extension": b"4;a\nb\r\nabcd\r\n",
    "0x2": b"0x2\r\nab\r\n",
    "negative": b"-1\r\nab\r\n",
    "sign": b"+2\r\nab\r\n",
    "underscore": b"1_0\r\nabcdefghijklmnop\r\n",
    "no line end behind a chunk": b"2\r\nabcd\r\n",
    "bare LF behind the size": b"2\nab\r\n" + b"x" * 1100,
    "space behind the size": b"2 \r\nab\r\n",
    "space before the size": b" 2\r\nab\r\n",
    "no size": b"\r\nab\r\n",
    "a size of 17 digits": b"0" * 16 + b"2\r\nab\r\n",
    "CR in a chunk extension": b"4;a\rb\r\nabcd\r\n",
    "bare LF behind a chunk": b"2\r\nab\n0\r\n\r\n",
    "a trailer that is no header": b"0\r\nno header\r\n\r\n",
    "bare LF in the trailers": b"0\r\nX: a\n\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "a long size line": b"0" * 2000 + b"2\r\nab\r\n",
    "200 kB of trailers": b"0\r\n" + b"X: " + b"a" * 200_000,
}


@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
@pytest.mark.parametrize("path", ["/images/m", "/v1/models/m:predict", "/rows/m"])
def test_broken_chunks_are_refused(path, body):
    client = Server().connect()
    client.send(head("POST", path, Transfer_Encoding="chunked", Content_Type="image/png") + body)
    reply = client.reply()
    assert reply.status == 400
    assert "cannot be parsed" in reply.body.decode()
    assert client.wire.half_closed


AT_ONCE = {
    "bare LF behind the size": (b"2\n", 400),
    "bare LF behind an extension": (b"2;a\n", 400),
    "what is no size": (b"zz", 400),
    "bare LF in the trailers": (b"0\r\nX: a\n", 400),
    "what is no trailer": (b"0\r\n X", 400),
    "one byte too many": (b"%x\r\n" % 1001, 413),
    "all that can be said": (b"f" * 16 + b"\r\n", 413),
    "too many in two": (b"1\r\na\r\n%x\r\n" % 1000, 413),
}


@pytest.mark.parametrize(("body", "status"), AT_ONCE.values(), ids=AT_ONCE.keys())
@pytest.mark.parametrize("step", [1, 1000])
def test_what_a_chunk_cannot_be_is_refused_at_once(body, status, step):
    client = Server(Limits(body_bytes=1000)).connect()
    client.send(head("POST", "/images/m", Transfer_Encoding="chunked", Content_Type="image/png"))
    client.send(body, step=step)
    assert client.reply().status == status
    assert client.wire.half_closed


def test_a_chunk_of_an_endless_body_has_no_limit_but_what_proxies_can_read():
    server = Server(Limits(body_bytes=1000))
    client = server.connect()
    client.send(head("POST", "/rows/m", Transfer_Encoding="chunked") + b"%x\r\n" % 10**17 + b"[1, 2]\n")
    assert client.wire.value().startswith(b"HTTP/1.1 200 ")
    client = server.connect()
    client.send(head("POST", "/rows/m", Transfer_Encoding="chunked") + b"%x\r\n" % 10**18)
    assert client.reply().status == 413


@pytest.mark.parametrize("raw", [b"GET /" + b"a" * 20_000, b"GET /" + b"a" * 20_000 + OK[5:]])
def test_a_long_target_is_told_from_large_headers(raw):
    client = Server().connect()
    client.send(raw)
    assert client.reply().status == 414
    assert client.wire.half_closed


def test_large_headers_are_refused_before_they_end():
    client = Server().connect()
    client.send(OK[:-2] + b"X: " + b"a" * 20_000)
    assert client.reply().status == 431
    assert client.wire.half_closed


@pytest.mark.parametrize("version", ["0.9", "2.0", "3.7", "9.9"])
@pytest.mark.parametrize("step", [1, 1000])
def test_another_major_version_is_not_spoken(version, step):
    client = Server().connect()
    client.send(f"GET /livez HTTP/{version}\r\n".encode(), step=step)
    reply = client.reply()
    assert (reply.status, reply.headers["connection"]) == (505, "close")
    assert "date" in reply.headers


def test_the_preface_of_http_2_is_told_the_version():
    client = Server().connect()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert client.reply().status == 505


@pytest.mark.parametrize("minor", [2, 9])
def test_a_later_minor_version_is_read_as_the_one_that_is_known(minor):
    client = Server().connect()
    for _ in range(2):
        client.send(OK.replace(b"1.1", b"1.%d" % minor))
        assert client.wire.value().startswith(b"HTTP/1.1 200 ")
        assert "connection" not in client.reply().headers


OLD = b"POST /v1/models/m:predict HTTP/1.0\r\nContent-Length: 23\r\n"
INSTANCES = b'{"instances": [[1, 2]]}'


@pytest.mark.parametrize("wish", [b"keep-alive", b"Keep-Alive", b"TE, keep-alive"])
def test_an_old_client_may_ask_for_the_connection_to_be_kept(wish):
    client = Server().connect()
    for _ in range(3):  # the second finds a head that is known
        client.send(OLD + b"Connection: " + wish + b"\r\n\r\n" + INSTANCES)
        assert client.wire.value().startswith(b"HTTP/1.0 200 ")
        reply = client.reply()
        assert reply.headers["connection"] == "keep-alive"
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert not client.closed


@pytest.mark.parametrize("wish", [b"", b"Connection: close\r\n", b"Connection: keep-alive, close\r\n"])
def test_an_old_client_that_does_not_ask_is_closed(wish):
    client = Server().connect()
    client.send(OLD + wish + b"\r\n" + INSTANCES)
    assert client.reply().headers["connection"] == "close"
    assert client.closed


def test_an_answer_without_a_length_ends_with_an_old_connection():
    client = Server().connect()
    client.send(b"POST /rows/m HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\n[1, 2]\n")
    reply = client.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert client.closed


def test_many_small_headers_are_counted_together():
    client = Server().connect()
    client.send(OK[:-2] + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 200) for i in range(100)))
    assert client.reply().status == 431


@pytest.mark.parametrize(
    "raw",
    [
        OK,
        b"\r\n" + OK,
        b"GET http://elsewhere/livez HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET HTTPS://elsewhere:80/livez?a=b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\tb \xe9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhOsT:\ta \t\r\nX:\r\n\r\n",
        POST.replace(b"/rows/m", b"/images/m") + b"Transfer-Encoding:  Chunked \r\nContent-Type: image/png\r\n\r\n"
        b'00A;a="b c"\r\n0123456789\r\n0;last\r\nX: a\r\nY:\r\n\r\n',
    ],
)
def test_unusual_but_sound_requests_are_answered(raw):
    client = Server().connect()
    client.send(raw)
    assert client.reply().status == 200


def test_connections_are_kept_and_pipelined_requests_answered_in_order_one_a_turn():
    server = Server()
    client = server.connect()
    client.protocol.dataReceived(OK * 50)
    assert client.wire.value().count(b"HTTP/1.1 200") == 1
    server.turns()
    assert client.wire.value().count(b"HTTP/1.1 200") == 50
    assert not client.closed


def test_what_is_read_ahead_of_a_running_request_is_bounded():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    body = form(b"abc")
    client.send(head("POST", "/images/m", len(body), **FORM) + body)
    for _ in range(10):
        if not client.wire.paused:
            client.protocol.dataReceived(OK * 200)
    assert client.wire.paused
    server.pipeline.step()
    server.turns()
    assert client.wire.value().count(b"HTTP/1.1 200") == 601
    assert not client.wire.paused


@pytest.mark.parametrize("header", ["close", "Close", "keep-alive, close", "TE,close"])
def test_connection_close(header):
    client = Server().connect()
    reply = client.request("GET", "/livez", Connection=header)
    assert reply.headers["connection"] == "close"
    assert client.closed


def test_drips_by_200_sockets_are_closed_by_absolute_deadlines_while_another_is_answered():
    server = Server()
    half = [server.connect() for _ in range(100)]
    bodies = [server.connect() for _ in range(100)]
    for client in bodies:
        client.send(head("POST", "/images/m", 100_000, **FORM))
    raw = b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100
    good = server.connect()
    for second in range(12):
        for client in half:
            client.protocol.dataReceived(raw[second : second + 1])
        for client in bodies:
            client.protocol.dataReceived(b"-")
        assert good.request("GET", "/livez").status == 200
        server.wait(1)
        if second == 8:
            assert not any(client.closed for client in half + bodies)
    assert all(client.closed for client in half + bodies)
    assert {client.reply().status for client in half + bodies} == {408}
    assert not good.closed
    assert server.site.channels == {good.protocol}


def test_a_body_is_measured_on_average_from_its_tenth_second():
    server = Server()
    client = server.connect()
    client.send(head("POST", "/images/m", 100_000, **FORM) + b"-" * 20_000)
    server.wait(19)
    assert not client.closed
    client.send(b"-" * 2000)
    server.wait(2.5)
    assert not client.closed
    server.wait(1)
    assert client.reply().status == 408
    assert client.closed


def test_an_idle_connection_is_closed_after_its_time_and_not_before():
    server = Server()
    client = server.connect()
    assert client.request("GET", "/livez").status == 200
    server.wait(59)
    assert not client.closed
    server.wait(1.5)
    assert client.wire.lost
    assert client.wire.value() == b""


def test_a_connection_that_says_nothing_is_closed():
    server = Server()
    client = server.connect()
    server.wait(10.5)
    assert client.wire.lost


def test_the_next_head_has_its_own_deadline_from_its_first_byte():
    server = Server()
    client = server.connect()
    client.request("GET", "/livez")
    server.wait(50)
    client.send(b"GET")
    server.wait(9)
    assert not client.closed
    server.wait(1.5)
    assert client.closed


def test_a_running_request_has_no_deadline_of_the_connection():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    body = form(b"abc")
    client.send(head("POST", "/images/m", len(body), **FORM) + body)
    server.wait(200, 1)
    assert not client.closed
    server.pipeline.step()
    assert client.reply().status == 200


def test_a_client_that_does_not_read_its_answer_is_cut_off():
    server = Server()
    server.api.limits = Limits(pool_encode_bytes=1 << 30)
    clients = [server.connect(room=65536) for _ in range(3)]
    body = form(*[b"abc"] * 900)
    for client in clients:
        client.send(head("POST", "/images/m?outputs=double,sum", len(body), **FORM) + body)
        server.turns()
    assert all(client.wire.full for client in clients)
    silent, slow, quick = clients
    written = 0
    while quick.wire.value():
        written += len(quick.wire.take())
    assert written > 65536
    assert not quick.closed
    for _ in range(2):
        server.wait(20)
        slow.wire.take()
    assert silent.wire.aborted
    assert not slow.wire.aborted
    assert not server.pipeline.asked


def test_a_large_answer_waits_in_the_server_only_as_one_body_and_is_written_in_pieces():
    server = Server()
    client = server.connect(room=65536)
    body = form(*[b"abc"] * 900).replace(b".png", b"-" * 1000)  # names, which the answer repeats
    client.send(head("POST", "/images/m?outputs=double,sum", len(body), **FORM) + body)
    server.pool.step_all()
    assert client.wire.full
    first = len(client.wire.value())
    assert first < 3 * 65536
    data = b""
    while client.wire.value():
        data += client.wire.take()
    reply = parse(data)
    assert len(reply.json["rows"]) == 900
    assert reply.rest == b""


def test_a_last_answer_that_is_not_taken_is_aborted():
    server = Server()
    client = server.connect(room=10)
    client.send(head("GET", "/metrics", Connection="close"))
    assert not client.wire.lost
    server.wait(16)
    assert client.wire.aborted


def test_tiny_chunks_and_pipelined_floods_leave_the_reactor_its_turns():
    server = Server()
    client = server.connect()
    client.send(head("POST", "/images/m", Transfer_Encoding="chunked", **FORM))
    client.protocol.dataReceived(chunked(*[bytes([byte]) for byte in form(b"x" * 8000)]))
    assert client.wire.paused  # the rest waits for the next turns
    assert client.wire.value() == b""
    server.turns()
    assert client.reply().status == 200
    assert not client.wire.paused
