"""Heads that are known: the same answers as if they were read anew, for everybody, and never more memory than said."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.server import channel, head_memo
from rowserve.server.listener import ApiSite
from rowserve.server.routing import Router
from tests.handlers.graphpipe_requests import infer_request
from tests.http_doubles import FORM, Client, Server, StandInModel, chunked, form, head

PREDICT = "/v1/models/m:predict"


def instances(*rows: list[float]) -> bytes:
    return json.dumps({"instances": rows}).encode()


def infer(*rows: list[float]) -> bytes:
    tensor = {"name": "x", "shape": [len(rows), 2], "datatype": "FP32", "data": rows}
    return json.dumps({"inputs": [tensor]}).encode()


ASKED: dict[str, tuple[str, str, dict[str, Any], Any]] = {  # of each route that asks: profile, path, headers, body
    "predict": ("native", PREDICT, {}, instances),
    "version": ("native", "/v1/models/m/versions/1:predict", {}, instances),
    "infer": ("native", "/v2/models/m/infer", {}, infer),
    "graphpipe": ("native", "/graphpipe/m", {}, lambda *rows: infer_request([floats(*rows)])),
    "root": ("native", "/", {}, lambda *rows: infer_request([floats(*rows)])),
    "prediction": ("torchserve", "/predictions/m", {"Content_Type": "application/json"}, instances),
    "invoke": ("torchserve", "/models/m/invoke", {"Content_Type": "application/json"}, instances),
    "invocations": ("torchserve", "/invocations?model_name=m", {"Content_Type": "application/json"}, instances),
    "kserve": ("kserve", PREDICT, {}, instances),
}


def floats(*rows: list[float]) -> Any:
    return np.array(rows, np.float32)


def server_of(profile: str) -> Server:
    server = Server()
    server.site = ApiSite(server.api, profile)
    return server


def forgetful(server: Server) -> Server:
    """It reads each head anew."""
    server.site.heads.keep = lambda raw, known: None  # type: ignore[method-assign]
    return server


def plain(data: bytes) -> bytes:
    """Answers, but for when they were made."""
    return re.sub(rb"Date: [^\r]*", b"Date: then", data)


@pytest.mark.parametrize("name", ASKED)
def test_a_known_head_is_neither_read_nor_routed_again_and_answers_whoever_asks(name, monkeypatch):
    profile, path, headers, body = ASKED[name]
    server = server_of(profile)
    first, second = body([1.0, 2.0]), body([3.0, 5.0])
    assert server.request("POST", path, first, **headers).status == 200
    assert len(server.site.heads) == 1

    def forbidden(*_: object) -> None:
        raise AssertionError("it is known")

    monkeypatch.setattr(channel, "read_head", forbidden)
    monkeypatch.setattr(Router, "open", forbidden)
    told = server.request("POST", path, second, **headers)
    monkeypatch.undo()
    anew = forgetful(server_of(profile)).request("POST", path, second, **headers)
    assert (told.status, told.body) == (anew.status, anew.body)
    assert told.headers.keys() == anew.headers.keys()
    counted = {
        key: count for key, count in server.figures().items() if key.startswith("rowserve_request_seconds_count")
    }
    assert list(counted.values()) == [2]


def test_the_faults_of_a_body_have_the_form_of_its_route_from_a_known_head_too():
    server = Server()
    good, bad = instances([1.0, 2.0]), b"x" * len(instances([1.0, 2.0]))
    client = server.connect()
    assert [client.request("POST", PREDICT, body).status for body in (good, bad, good)] == [200, 400, 200]
    assert list(client.request("POST", PREDICT, bad).json) == ["error"]
    server.pipeline.raises = RuntimeError("secret")
    reply = client.request("POST", PREDICT, good)
    assert (reply.status, list(reply.json)) == (500, ["error"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/livez", {}, None),
        ("POST", "/v1/models/no:predict", {}, b"{}"),
        ("POST", "/nothing", {}, b"{}"),
        ("POST", "/images/m", FORM, form(b"abc")),
        ("POST", "/rows/m", {}, b"[1, 2]\n"),
        ("POST", PREDICT, {"Expect": "100-continue"}, instances([1.0, 2.0])),
        ("POST", PREDICT, {"Content_Encoding": "gzip"}, b"x"),
        ("POST", PREDICT, {"X": "a" * head_memo.HEAD_BYTES}, instances([1.0, 2.0])),
    ],
)
def test_what_does_not_follow_from_the_head_alone_or_is_no_good_is_not_kept(method, path, headers, body):
    server = Server()
    for _ in range(2):
        server.request(method, path, body, **headers)
    assert len(server.site.heads) == 0


def test_heads_that_all_differ_fill_no_memory_and_harm_nobody():
    server = Server()
    body = instances([1.0, 2.0])
    client = server.connect()
    for number in range(2 * head_memo.HEADS + 10):
        client.request("POST", PREDICT, body, X=str(number))
        assert len(server.site.heads) <= head_memo.HEADS
    assert client.request("POST", PREDICT, body).status == 200


def test_what_becomes_of_a_model_is_known_to_the_next_request():
    server = Server()
    client = server.connect()
    body = instances([1.0, 2.0])

    def asked() -> tuple[int, str]:
        client.send(head("POST", PREDICT, len(body)) + body)
        return client.reply().status, str(server.pipeline.seen and len(server.pipeline.seen))

    assert asked() == (200, "1")
    newer = server.models.expect("m", 3)
    assert asked() == (200, "2")
    newer.model = StandInModel(server.metrics, "m", 3)  # type: ignore[assignment]
    newer.state = "ready"
    assert asked() == (200, "3")
    assert server.metrics.rows("m", 3, "tensorflow_serving").hit == 1
    for state in server.models.states():
        state.state = "broken"
    assert asked() == (503, "3")


def test_a_known_head_is_answered_and_closed_as_it_says():
    server = Server()
    body = instances([1.0, 2.0])
    for _ in range(2):
        client = server.connect()
        assert client.request("POST", PREDICT, body, Connection="close").headers["connection"] == "close"
        assert client.closed
    old = b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (PREDICT.encode(), len(body), body)
    for _ in range(2):
        client = server.connect()
        client.send(old)
        assert client.wire.value().startswith(b"HTTP/1.0 200 OK\r\n")
        assert client.closed


def test_a_known_head_is_the_last_of_its_connection_once_the_server_stops():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    body = instances([1.0, 2.0])
    for _ in range(2):
        client.send(head("POST", PREDICT, len(body)) + body)
        if not server.api.draining and len(server.site.heads):
            server.pipeline.step()
            assert "connection" not in client.reply().headers
    server.site.drain()
    server.pipeline.step_all()
    assert client.closed


def test_a_known_head_waits_for_its_body_within_the_same_deadlines():
    server = Server()
    body = instances([1.0, 2.0])
    server.request("POST", PREDICT, body)
    client = server.connect()
    client.send(head("POST", PREDICT, len(body)) + body[:5])
    server.wait(10.5)
    assert client.reply().status == 408
    assert client.closed


def test_a_client_that_hangs_up_behind_a_known_head_cancels_its_rows():
    server = Server()
    body = instances([1.0, 2.0])
    server.request("POST", PREDICT, body)
    server.pipeline.holding = True
    client = server.connect()
    client.send(head("POST", PREDICT, len(body)) + body)
    client.hang_up()
    assert server.pipeline.cancelled == 1
    assert server.adds_up()


ONE, TWO = instances([1.0, 2.0]), instances([3.0, 4.0])
PIECES = (
    head("POST", PREDICT, len(ONE)) + ONE,
    head("POST", PREDICT, len(TWO)) + TWO,
    head("POST", PREDICT, len(ONE)) + b"x" * len(ONE),
    head("POST", PREDICT, len(ONE), Cache_Control="no-store") + ONE,
    head("POST", PREDICT, len(ONE), Expect="100-continue") + ONE,
    head("POST", PREDICT, Transfer_Encoding="chunked") + chunked(ONE[:3], ONE[3:]),
    head("POST", "/v1/models/no:predict", len(ONE)) + ONE,
    head("POST", "/v2/models/m/infer", len(infer([1.0, 2.0]))) + infer([1.0, 2.0]),
    head("POST", "/rows/m", 11) + b"[1, 2]\n\n{}\n",
    head("POST", "/images/m", len(form(b"abc")), **FORM) + form(b"abc"),
    head("GET", "/livez"),
    head("HEAD", "/livez"),
    b"\r\n" + head("OPTIONS", PREDICT),
)
LAST = (
    b"",
    head("POST", PREDICT, len(ONE), Connection="close") + ONE + head("GET", "/livez"),
    head("POST", PREDICT, len(ONE), Content_Length=3) + ONE,
    head("POST", PREDICT, Transfer_Encoding="chunked") + b"zz\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    head("POST", "/images/m", 1 << 40, **FORM) + b"and so on",
    b"POST /rows/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
)


def answers(server: Server, pieces: list[bytes]) -> bytes:
    """What one connection says to these bytes, and at their end."""
    client: Client = server.connect()
    for piece in pieces:
        client.send(piece)
    data: bytes = client.wire.take()
    server.wait(100, 5)
    assert client.wire.lost
    return plain(data + client.wire.take())


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.sampled_from(LAST), st.data())
def test_the_same_bytes_get_the_same_answers_however_they_are_cut_and_whatever_is_known(requests, last, data):
    raw = b"".join([*requests, last])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    whole = answers(forgetful(Server()), [*requests, last])
    server = Server()
    assert answers(server, [raw]) == whole
    assert answers(server, pieces) == whole  # all that can be known is known by now
    assert answers(forgetful(Server()), pieces) == whole
