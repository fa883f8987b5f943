"""Bodies: limits that a client can read about, flat memory, gzip, multipart, Expect."""

from __future__ import annotations

import gc
import gzip
import tempfile
import tracemalloc
import zlib

import pytest

from rowserve.server.bodies import EMPTY_MEMBERS
from rowserve.server.limits import MIB, Limits
from tests.http_doubles import FORM, Server, chunked, form, head, parse

SMALL = Limits(body_bytes=100_000, parts=5)
PATHS = ["/images/m", "/v1/models/m:predict"]


def upload(server: Server, files: list[bytes]):
    return server.request("POST", "/images/m?outputs=sum", form(*files), **FORM)


def test_pictures_come_in_by_form_one_row_each_in_order():
    server = Server()
    reply = upload(server, [b"a", b"broken", b"abc"])
    assert reply.status == 200
    rows = reply.json["rows"]
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert [row.get("outputs") for row in rows] == [{"sum": 2.0}, None, {"sum": 4.0}]
    assert rows[1]["error"]["status"] == 422
    assert reply.json["version"] == "2"
    assert reply.headers["cache-status"].startswith("rowserve")


def test_one_picture_may_be_the_body():
    reply = Server().request("POST", "/images/m/versions/1?outputs=sum", b"abcd", Content_Type="image/jpeg")
    assert reply.json["rows"][0]["outputs"] == {"sum": 5.0}
    assert reply.json["version"] == "1"


def test_a_body_may_come_in_chunks_byte_by_byte():
    body = form(b"abc")
    client = Server().connect()
    raw = head("POST", "/images/m?outputs=sum", Transfer_Encoding="chunked", **FORM)
    client.send(raw + chunked(*[bytes([byte]) for byte in body]), step=1)
    assert client.reply().json["rows"][0]["outputs"] == {"sum": 4.0}
    assert client.request("GET", "/livez").status == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_declared_length_over_the_limit_is_refused_straight_from_the_headers(path):
    server = Server()
    client = server.connect()
    client.send(head("POST", path, 128 * MIB, **FORM))
    reply = client.reply()
    assert reply.status == 413
    assert "67,108,864" in reply.body.decode()
    assert reply.headers["connection"] == "close"
    assert client.wire.half_closed  # the client sees the end of the answer ...
    assert not client.closed  # ... and may go on sending


def test_what_a_refused_client_still_sends_is_thrown_away_and_memory_stays_flat():
    server = Server()
    client = server.connect()
    client.send(head("POST", "/images/m", 128 * MIB, **FORM))
    piece = b"x" * 65536
    gc.collect()
    tracemalloc.start()
    for _ in range(128 * 16):
        assert not client.closed
        client.protocol.dataReceived(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB
    assert client.reply().status == 413
    client.hang_up()
    assert not server.site.channels


@pytest.mark.parametrize("path", PATHS)
def test_a_chunked_body_is_cut_at_the_limit_and_memory_stays_flat(path):
    server = Server(Limits(body_bytes=MIB))
    client = server.connect()
    raw = head("POST", path, Transfer_Encoding="chunked", **FORM)
    client.send(raw + chunked(form(b"")[:90], end=False))
    piece = chunked(b"x" * 65536, end=False)
    gc.collect()
    tracemalloc.start()
    for _ in range(64 * 16):
        client.send(piece, step=70_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB
    assert not client.closed
    assert client.reply().status == 413
    assert server.pipeline.seen == []


def test_lingering_ends_with_quiet_with_time_and_with_bytes():
    server = Server(Limits(body_bytes=10, linger_bytes=1000))
    quiet, endless, greedy = (server.connect() for _ in range(3))
    for client in (quiet, endless, greedy):
        client.send(head("POST", "/images/m", 100_000_000, **FORM))
    server.wait(1.5)
    assert not quiet.closed
    greedy.send(b"x" * 1001)
    assert greedy.closed
    for second in range(31):
        if not endless.closed:
            endless.send(b"x")
        server.wait(1)
        if second == 2:
            assert quiet.closed
        if second == 26:
            assert not endless.closed
    assert endless.closed


def test_a_part_too_many_is_refused_while_the_client_still_sends():
    server = Server(SMALL)
    client = server.connect()
    body = form(*[b"abc"] * 6)
    client.send(head("POST", "/images/m", len(body) + 90_000, **FORM) + body)
    reply = client.reply()
    assert reply.status == 413
    assert "5 parts" in reply.json["detail"]
    assert client.wire.half_closed
    assert upload(server, [b"abc"] * 5).status == 200


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", "multipart/form-data; boundary=B", "empty"),
        (b"abc", "multipart/form-data; boundary=B", "boundary"),
        (form(b"abc"), "multipart/form-data; boundary=C", "boundary"),
        (form(b"abc"), "multipart/form-data", "boundary"),
        (form(b"abc")[:-8], "multipart/form-data; boundary=B", "closing boundary"),
        (form(), "multipart/form-data; boundary=B", "no parts"),
        (b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--B--\r\n', FORM["Content_Type"], "no file"),
        (b"--B\r\nbroken\r\n\r\nx\r\n--B--\r\n", "multipart/form-data; boundary=B", ""),
    ],
)
def test_malformed_forms_are_named(body, content_type, words):
    server = Server()
    client = server.connect()
    reply = client.request("POST", "/images/m", body, Content_Type=content_type)
    assert reply.status == 400
    assert words in reply.json["detail"]
    assert reply.json["title"] == "Malformed multipart"
    assert server.pipeline.seen == []
    assert server.figures().get("rowserve_rows_asked_total") is None


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_bodies_are_no_pictures(content_type):
    client = Server().connect()
    assert client.request("POST", "/images/m", b"a=b", Content_Type=content_type).status == 415
    assert client.request("GET", "/livez").status == 200  # a small refused body does not cost the connection


def test_gzip_is_inflated_on_the_way_with_the_limit_behind_it():
    server = Server(SMALL)
    body = form(b"x" * 60_000)
    packed = gzip.compress(body)
    reply = server.request("POST", "/images/m?outputs=sum", packed, Content_Encoding="gzip", **FORM)
    assert reply.json["rows"][0]["outputs"] == {"sum": 60_001.0}
    twice = gzip.compress(body[:100]) + gzip.compress(body[100:])
    assert server.request("POST", "/images/m", twice, Content_Encoding="gzip", **FORM).status == 200


def test_deflate_is_zlibs_form():
    body = form(b"x" * 100)
    packed = zlib.compress(body)
    assert Server().request("POST", "/images/m?outputs=sum", packed, Content_Encoding="deflate", **FORM).status == 200
    for broken in (packed[:-3], packed + b"more", zlib.compress(body, wbits=-15)):
        reply = Server().request("POST", "/images/m", broken, Content_Encoding="deflate", **FORM)
        assert reply.status == 400
        assert "deflate" in reply.json["detail"]


def test_a_gzip_bomb_is_cut_at_the_limit_and_memory_stays_flat():
    server = Server(Limits(body_bytes=MIB))
    bomb = gzip.compress(form(b"x" * 200 * MIB))
    client = server.connect()
    gc.collect()
    tracemalloc.start()
    client.send(head("POST", "/images/m", len(bomb), Content_Encoding="gzip", **FORM) + bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert client.reply().status == 413
    assert peak < 6 * MIB


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(form(b"abc"))[:-9], gzip.compress(form(b"abc")) + b"junk", b"\x1f\x8b"]
)
def test_broken_gzip_is_refused(body):
    reply = Server().request("POST", "/images/m", body, Content_Encoding="gzip", **FORM)
    assert reply.status == 400
    assert "gzip" in reply.json["detail"]


def test_empty_members_of_a_gzip_body_are_bounded():
    whole, empty = gzip.compress(form(b"four")), gzip.compress(b"")
    for count, status in ((EMPTY_MEMBERS, 200), (EMPTY_MEMBERS + 1, 400)):
        body = empty * (count // 2) + whole + empty * (count - count // 2) + gzip.compress(b"\r\n")
        assert Server().request("POST", "/images/m", body, Content_Encoding="gzip", **FORM).status == status


def test_other_codings_are_refused():
    reply = Server().request("POST", "/images/m", b"x", Content_Encoding="br", **FORM)
    assert (reply.status, reply.headers["accept-encoding"]) == (415, "gzip, deflate")
    reply = Server().request("POST", "/v2/models/m/infer", b"x", Content_Encoding="br")
    assert (reply.status, reply.headers["accept-encoding"]) == (501, "gzip, deflate")


def test_inflating_a_large_body_leaves_the_reactor_its_turns(monkeypatch):
    server = Server()
    turns: list[float] = []
    later = server.clock.callLater
    monkeypatch.setattr(server.clock, "callLater", lambda delay, *call: [turns.append(delay), later(delay, *call)][1])
    packed = gzip.compress(form(b"x" * 8 * MIB))
    client = server.connect()
    client.protocol.dataReceived(head("POST", "/images/m", len(packed), Content_Encoding="gzip", **FORM) + packed)
    assert client.wire.value() == b""
    server.turns()
    assert turns.count(0) >= 100
    assert client.reply().status == 200


def test_expect_continue_invites_only_a_body_that_is_wanted():
    server = Server()
    body = form(b"abc")
    client = server.connect()
    client.send(head("POST", "/images/m", len(body), Expect="100-continue", **FORM))
    assert client.wire.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert client.reply().status == 200
    for path, length, status in [("/images/m", 128 * MIB, 413), ("/images/no", 10, 404), ("/images/m?top=x", 10, 400)]:
        client = server.connect()
        client.send(head("POST", path, length, Expect="100-continue", **FORM))
        reply = client.reply()
        assert (reply.status, reply.rest) == (status, b"")
        assert reply.headers["connection"] == "close"


def test_no_body_goes_through_files(monkeypatch):
    def forbidden(*_: object) -> None:
        raise AssertionError("not this way")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)
    assert upload(Server(), [b"x" * 200_000] * 3).status == 200


def test_a_large_json_body_is_parsed_on_the_pool_and_a_large_answer_encoded_there():
    server = Server(Limits(pool_parse_bytes=100, pool_encode_bytes=100))
    client = server.connect()
    rows = ",".join(["[1,2]"] * 60)
    body = f'{{"instances":[{rows}]}}'.encode()
    client.send(head("POST", "/v1/models/m:predict", len(body)) + body)
    assert server.pipeline.seen == []
    server.pool.step()
    assert len(server.pipeline.seen) == 1
    assert client.wire.value() == b""
    server.pool.step()
    assert len(client.reply().json["predictions"]) == 60


def test_an_answer_of_hits_is_written_in_the_same_call():
    server = Server()
    client = server.connect()
    body = form(b"abc")
    client.protocol.dataReceived(head("POST", "/images/m", len(body), **FORM) + body)
    assert parse(client.wire.value()).status == 200
    assert not server.pool.calls


def test_a_client_that_goes_while_it_sends_leaves_nothing_behind():
    server = Server()
    client = server.connect()
    client.send(head("POST", "/images/m", 100_000, **FORM) + form(b"abc"))
    client.hang_up()
    server.turns()
    assert server.pipeline.seen == []
    assert not server.site.channels
    assert server.figures()['rowserve_request_seconds_count{code="499",route="/images/{model}"}'] == 1


def test_after_a_body_that_took_several_turns_the_connection_is_read_again():
    client = Server().connect()
    for _ in range(2):
        body = form(*[b"x" * 100] * 100)
        client.protocol.dataReceived(head("POST", "/images/m?outputs=sum", len(body), **FORM) + body)
        client.server.turns()
        assert len(client.reply().json["rows"]) == 100
        assert not client.wire.paused


def test_after_a_body_that_turned_out_broken_turns_later_the_connection_is_read_again():
    client = Server().connect()
    packed = gzip.compress(form(b"x" * 8 * MIB))
    broken = packed[:-8] + bytes(8)
    client.protocol.dataReceived(
        head("POST", "/images/m", len(broken), Content_Encoding="gzip", **FORM) + broken + head("GET", "/livez")
    )
    client.server.turns()
    reply = client.reply()
    assert reply.status == 400
    assert "gzip" in reply.json["detail"]
    assert parse(reply.rest).status == 200
    assert not client.wire.paused


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_arrives_as_it_was_sent(declared):
    body = b'{"instances": [[1, 2]' + b" " * 3 * MIB + b", [3, 4]]}"
    server = Server()
    told = {} if declared else {"Transfer_Encoding": "chunked"}
    client = server.connect()
    client.send(head("POST", "/v1/models/m:predict", len(body) if declared else None, **told))
    client.send(body if declared else chunked(body))
    server.pool.step_all()
    server.turns()
    assert len(client.reply().json["predictions"]) == 2


def test_to_promise_a_large_body_takes_no_memory():
    server = Server()
    client = server.connect()
    tracemalloc.start()
    try:
        client.send(head("POST", "/v1/models/m:predict", 60 * MIB) + b"[" * 100_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
        client.send(b"[" * 2 * MIB)
        assert tracemalloc.get_traced_memory()[0] > 60 * MIB  # numpy's memory is counted too
    finally:
        tracemalloc.stop()
