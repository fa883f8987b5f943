"""The head of an answer: its date is made once a second, and no value can begin a header of its own."""

from __future__ import annotations

from rowserve.handlers.items import Encoded
from rowserve.server.response_head import FirstLines, head_lines
from tests.http_doubles import Server, head


def test_the_first_lines_are_made_once_a_second():
    now = [1_000_000_000.0]
    lines = FirstLines(lambda: now[0])
    first = lines.get(b"HTTP/1.1", 200, False)
    assert first == b"HTTP/1.1 200 OK\r\nServer: rowserve\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT\r\n"
    now[0] += 0.9
    assert lines.get(b"HTTP/1.1", 200, False) is first
    now[0] += 0.1
    assert b"01:46:41 GMT" in lines.get(b"HTTP/1.1", 200, False)
    assert lines.get(b"HTTP/1.0", 404, True).startswith(b"HTTP/1.0 404 Not Found\r\n")
    assert lines.get(b"HTTP/1.0", 404, True).endswith(b"\r\nConnection: close\r\n")


def test_a_reason_stays_on_its_line():
    made = FirstLines().make(b"HTTP/1.1", 400, False, "no\r\nX: such \u20ac")
    assert made.startswith(b"HTTP/1.1 400 no??X: such ?\r\nServer")


def test_a_value_stays_on_its_line():
    assert head_lines([("A", "b"), ("C", "\xe9")]) == "A: b\r\nC: \xe9\r\n".encode()
    for value in ("b\r\nSet-Cookie: c", "b\nSet-Cookie: c", "b\rSet-Cookie: c"):
        assert head_lines([("A", value), ("D", "e")]) == b"A: b Set-Cookie: c\r\nD: e\r\n"
    assert head_lines([("A", "b\n"), ("C", "d\r")]) == b"A: b\r\nC: d\r\n"


def test_an_answer_without_a_body_has_no_length():
    server = Server()
    client = server.connect()
    told = client.request("OPTIONS", "/livez")
    assert (told.status, told.body, "content-length" in told.headers) == (204, b"", False)


def test_an_answer_is_written_once():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    body = b'{"instances": [[1, 2]]}'
    client.send(head("POST", "/v1/models/m:predict", len(body)) + body)
    request = client.protocol.request
    server.pipeline.step()
    for _ in range(2):
        request.respond(Encoded(500, [], b"again"))
        request.write(b"more")
        request.finish()
    reply = client.reply()
    assert (reply.status, reply.rest) == (200, b"")
