"""POST /rows: answers before the end of the body, backpressure both ways, sync, hang-ups."""

from __future__ import annotations

import gc
import gzip
import json
import tracemalloc

import pytest

from rowserve.handlers.items import Priority
from rowserve.handlers.problem import Problem
from rowserve.server.limits import MIB, Limits
from tests.http_doubles import FORM, Server, chunked, form, head, parse


def begin(server: Server, query: str = "", room: int | None = None):
    client = server.connect(room)
    client.send(head("POST", f"/rows/m{query}", Transfer_Encoding="chunked"))
    return client


def lines(*numbers: float) -> bytes:
    return b"".join(b"[%g, 1]\n" % number for number in numbers)


def test_each_line_has_its_answer_in_order():
    reply = Server().request("POST", "/rows/m?outputs=sum", b'[1, 2]\n{"x": [3, 4]}\r\nbroken\n\n[5, 6]')
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/x-ndjson"
    answers = reply.lines
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4, 5]
    assert [answer.get("outputs") for answer in answers] == [{"sum": 3.0}, {"sum": 7.0}, None, None, {"sum": 11.0}]
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, None, 400, 400, None]


def test_no_lines_are_a_fault_and_the_connection_is_kept():
    client = Server().connect()
    assert client.request("POST", "/rows/m", b"").status == 400
    assert client.request("POST", "/rows/m?outputs=sum", b"[1,2]").lines[0]["outputs"] == {"sum": 3.0}
    assert client.request("GET", "/livez").status == 200
    assert not client.closed


def test_answers_come_before_the_body_ends_and_are_computed_in_company():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    client.send(chunked(lines(1, 2), end=False))
    assert client.wire.value() == b""
    server.pipeline.step()
    reply = parse(client.wire.value())
    assert [line["line"] for line in reply.lines] == [1, 2]
    client.send(chunked(lines(3)[:4], end=False))
    client.send(chunked(lines(3)[4:], end=False))
    server.pipeline.step()
    assert [line["line"] for line in parse(client.wire.value()).lines] == [1, 2, 3]
    client.send(b"0\r\n\r\n")
    assert client.wire.value().endswith(b"0\r\n\r\n")
    assert [sum(item.count for item in items) for items, _ in server.pipeline.seen] == [2, 1]
    client.wire.take()
    assert client.request("GET", "/livez").status == 200


def test_answers_keep_the_order_of_the_lines_whichever_is_first():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    for number in (1, 2, 3):
        client.send(chunked(lines(number), end=False))
    first = server.pipeline.asked.popleft()
    server.pipeline.step_all()
    assert client.wire.value() == b""
    server.pipeline.asked.append(first)
    server.pipeline.step()
    assert [line["line"] for line in parse(client.wire.value()).lines] == [1, 2, 3]


def test_nothing_more_is_read_while_too_many_rows_are_on_their_way():
    server = Server(Limits(stream_rows=100))
    server.pipeline.holding = True
    client = begin(server)
    client.protocol.dataReceived(chunked(lines(*range(1000)), end=False))
    server.turns()
    assert client.wire.paused
    on_their_way = sum(item.count for items, _ in server.pipeline.seen for item in items)
    assert 100 <= on_their_way <= 164
    server.pipeline.step()
    server.turns()
    assert sum(item.count for items, _ in server.pipeline.seen for item in items) <= on_their_way + 64
    while server.pipeline.asked:
        server.pipeline.step()
        server.turns()
    assert not client.wire.paused
    assert len(parse(client.wire.value()).lines) == 1000


def test_bytes_on_their_way_are_bounded_as_well():
    server = Server(Limits(stream_bytes=10_000))
    server.pipeline.holding = True
    client = begin(server)
    client.protocol.dataReceived(chunked((b"[1, 2]" + b" " * 3000 + b"\n") * 20, end=False))
    server.turns()
    assert client.wire.paused
    assert len(server.pipeline.seen) < 20


def test_nothing_more_is_read_nor_computed_while_the_client_does_not_take_its_answers():
    server = Server(Limits(stream_rows=200))
    client = begin(server, room=1000)
    client.protocol.dataReceived(chunked(lines(*range(2000)), end=False))
    server.turns()
    assert client.wire.full
    assert client.wire.paused
    assert sum(item.count for items, _ in server.pipeline.seen for item in items) < 600
    data = b""
    while client.wire.value():
        data += client.wire.take()
        server.turns()
    assert [line["line"] for line in parse(data).lines] == list(range(1, 2001))
    assert not client.wire.paused


def test_a_client_that_never_takes_its_answers_is_cut_off_and_its_rows_cancelled():
    server = Server()
    client = begin(server, room=100)
    client.send(chunked(lines(*range(100)), end=False))
    server.pipeline.holding = True
    client.protocol.dataReceived(chunked(lines(*range(5)), end=False))
    server.turns()
    server.wait(31)
    assert client.wire.aborted
    assert not server.site.channels
    assert server.adds_up()


def test_a_turn_of_the_reactor_takes_one_group_of_lines():
    server = Server()
    client = begin(server)
    client.protocol.dataReceived(chunked(lines(*range(1000)), end=False))
    assert sum(item.count for items, _ in server.pipeline.seen for item in items) <= 64
    server.turns()
    assert sum(item.count for items, _ in server.pipeline.seen for item in items) == 1000


def test_a_stream_may_be_longer_than_the_limit_of_a_body_and_memory_stays_flat():
    server = Server(Limits(body_bytes=10_000))
    client = begin(server)
    piece = chunked(lines(*range(1000)), end=False)
    client.send(piece)
    client.wire.take()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(20):
        client.send(piece * 2)
        client.wire.take()
        server.pipeline.seen.clear()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < MIB


def test_a_line_that_is_too_long_is_that_lines_error():
    server = Server(Limits(line_bytes=100))
    answers = server.request("POST", "/rows/m", lines(1) + b"[" + b"1," * 500_000 + b"1]\n" + lines(2)).lines
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, 413, None]


def test_a_large_line_is_parsed_on_the_pool():
    server = Server(Limits(pool_parse_bytes=1000))
    client = begin(server)
    client.send(chunked(lines(1) + b"[1, 2" + b" " * 200_000 + b"]\n" + lines(3)))
    assert len(server.pool.calls) == 1
    server.pool.step()
    server.turns()
    assert len(parse(client.wire.value()).lines) == 3


def test_deflated_lines_are_read_as_they_come():
    server = Server()
    reply = server.request("POST", "/rows/m", gzip.compress(lines(*range(5000))), Content_Encoding="gzip")
    assert len(reply.lines) == 5000


def test_sync_keeps_the_last_line_until_all_is_on_disk():
    server = Server()
    server.pipeline.waiting_for_keep = []
    client = server.connect()
    client.send(head("POST", "/rows/m?sync=1", 19) + lines(1, 2) + b"[3,1]")
    assert [line["line"] for line in parse(client.wire.value()).lines] == [1, 2]
    assert server.cache.syncs == []
    server.pipeline.waiting_for_keep.pop()()
    (done,) = server.cache.syncs
    assert [line["line"] for line in parse(client.wire.value()).lines] == [1, 2]
    done(None)
    reply = parse(client.wire.value())
    assert [line["line"] for line in reply.lines] == [1, 2, 3]
    client.wire.take()
    assert client.request("GET", "/livez").status == 200


def test_a_failed_sync_is_told():
    server = Server()
    client = server.connect()
    client.send(head("POST", "/rows/m?priority=bulk", 7) + lines(1)[:7])
    assert server.pipeline.seen[0][1].priority is Priority.BULK
    server.cache.syncs.pop()(OSError("no space left on device"))
    answers = client.reply().lines
    assert [answer["line"] for answer in answers] == [1, 2]
    assert "no space left" in answers[1]["error"]["detail"]


@pytest.mark.parametrize("query", ["?sync=yes", "?priority=high", "?top=x", "?outputs=no", "?signature=no", "?x=1"])
def test_wishes_that_mean_nothing_are_refused_before_the_body(query):
    server = Server()
    client = begin(server, query)
    assert client.reply().status == 400
    assert client.wire.half_closed


def test_a_client_that_hangs_up_cancels_all_its_rows():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    for number in range(5):
        client.send(chunked(lines(number, number), end=False))
    client.hang_up()
    assert server.pipeline.cancelled == 10
    server.turns()
    assert server.adds_up()
    assert server.clock.getDelayedCalls() == []


def test_a_group_that_is_refused_is_an_error_for_each_of_its_lines():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    client.send(chunked(lines(1, 2), end=False))
    client.send(chunked(lines(3)))
    server.pipeline.refuse(Problem(503, "the queue is full", retry_after=1))
    server.pipeline.step()
    reply = parse(client.wire.value())
    assert reply.status == 200
    assert [line.get("error", {}).get("status") for line in reply.lines] == [503, 503, None]


@pytest.mark.parametrize("holding", [False, True])
def test_what_breaks_inside_tells_no_internals(holding):
    server = Server()
    server.pipeline.holding = holding
    if not holding:
        server.pipeline.raises = RuntimeError("secret")
    client = begin(server)
    client.send(chunked(lines(1)))
    if holding:
        server.pipeline.refuse(RuntimeError("secret"))
    data = client.wire.value()
    assert b"secret" not in data
    assert b"500" in data


def test_a_body_that_breaks_off_is_told_after_the_answers():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    client.send(chunked(lines(1), end=False) + b"no chunk\r\n")
    client.send(b"more of it")
    server.pipeline.step()
    answers = parse(client.wire.value()).lines
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, 400]
    assert client.wire.half_closed


def test_a_stream_that_waits_for_our_answers_is_not_too_slow_but_one_that_drips_is():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    client.send(chunked(lines(1), end=False))
    server.wait(100)
    client.send(chunked(lines(2), end=False))
    server.pipeline.step_all()
    server.wait(21)
    answers = parse(client.wire.value()).lines
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, None, 408]
    assert client.closed


def test_http_1_0_is_answered_until_the_connection_closes():
    client = Server().connect()
    client.send(b"POST /rows/m?outputs=sum HTTP/1.0\r\nContent-Length: 7\r\n\r\n" + lines(1)[:7])
    reply = parse(client.wire.value())
    assert "transfer-encoding" not in reply.headers
    assert json.loads(reply.body)["outputs"] == {"sum": 2.0}
    assert client.closed


def test_the_end_may_come_while_an_answer_is_written():
    server = Server()
    server.pipeline.holding = True
    client = begin(server)
    client.send(chunked(lines(1)))
    server.pipeline.step()
    server.turns()
    assert parse(client.wire.take()).lines[0]["line"] == 1
    assert client.request("GET", "/livez").status == 200


def test_lines_that_inflate_a_thousandfold_wait_deflated():
    server = Server(Limits(stream_rows=100))
    server.pipeline.holding = True
    body = gzip.compress(b"[1, 1]\n" * 2_000_000)
    assert len(body) < 65536
    client = server.connect()
    client.send(head("POST", "/rows/m", 10_000_000, Content_Encoding="gzip"))
    gc.collect()
    tracemalloc.start()
    client.protocol.dataReceived(body)
    server.turns()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * MIB
    assert client.wire.paused


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_the_connection_is_read_again_when_the_end_came_while_nothing_was_taken(coding):
    server = Server(Limits(stream_rows=10))
    server.pipeline.holding = True
    body = lines(*range(3000))
    packed = gzip.compress(body) if coding == "gzip" else body
    client = server.connect()
    client.protocol.dataReceived(head("POST", "/rows/m", len(packed), Content_Encoding=coding) + packed[:-5])
    server.turns()
    assert client.wire.paused or coding == "gzip"
    client.protocol.dataReceived(packed[-5:])  # had been read already
    while server.pipeline.asked:
        server.pipeline.step_all()
        server.turns()
    assert len(client.reply().lines) == 3000
    assert not client.wire.paused
    assert client.request("GET", "/livez").status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", {}, 400, "the body is empty; "),
        (b"", {"Content_Type": "application/json"}, 400, "the body is empty; "),
        (form(b"abc"), FORM, 415, "a form is not lines of rows: "),
    ],
)
def test_a_body_that_is_no_line_of_rows_is_refused_as_a_whole(body, headers, status, words):
    reply = Server().request("POST", "/rows/m?outputs=sum", body, **headers)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.json["detail"].startswith(words + "each line is one row, such as [1,1]")


def test_an_empty_body_may_wait_for_the_disk():
    server = Server()
    client = server.connect()
    client.send(head("POST", "/rows/m?sync=1", 0))
    assert not client.wire.value()
    (done,) = server.cache.syncs
    done(None)
    assert client.reply().status == 200


def test_an_empty_body_that_comes_in_chunks_is_refused_too():
    client = Server().connect()
    client.send(head("POST", "/rows/m", Transfer_Encoding="chunked") + b"0\r\n\r\n")
    assert client.reply().status == 400


@pytest.mark.parametrize(
    "body",
    [b"[[1, 2], [3, 4]]", b'{"instances": [[1, 2]]}', b"[\n[1, 2],\n[3, 4]\n]", b"a=1&b=2", b'"text"'],
)
def test_lines_that_are_no_rows_tell_once_what_a_row_is(body):
    reply = Server().request("POST", "/rows/m?outputs=sum", body)
    details = [line["error"]["detail"] for line in reply.lines if "error" in line]
    told = ["; each line is one row, such as [1,1]" in detail for detail in details]
    assert told[0]
    assert sum(told) == 1


def test_lines_that_curl_has_joined_are_told_as_such():
    (line,) = Server().request("POST", "/rows/m?outputs=sum", b"[1, 2][3, 4]").lines
    assert "curl keeps the ends of lines with --data-binary" in line["error"]["detail"]
