"""HTTP over the real pipeline: what clients see of hits, twins, deadlines, full queues and broken rows."""

from __future__ import annotations

import gc
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import ModelFace
from rowserve.handlers.problem import Problem
from rowserve.server.site import Api
from tests.doubles import BROKEN
from tests.http_doubles import FORM, Client, Server, form
from tests.server.conftest import PipelineBench


class NumberDecoder:
    """An upload is the number its row is made of."""

    identity = b"number"

    def __init__(self) -> None:
        self.decodes = 0

    def peak_bytes(self, upload: Any) -> int:
        return len(upload)

    def decode(self, upload: Any) -> Rows:
        self.decodes += 1
        try:
            return Rows({"x": np.full((1, 4), float(bytes(upload)), np.float32)}, 1)
        except ValueError:
            raise Problem(422, "this is no picture", reason="undecodable") from None


class RealServer(Server):
    """The HTTP side in front of a PipelineBench; `bench.run()` lets pool and graph work."""

    def __init__(self, *signatures: Signature, **limits: Any) -> None:
        super().__init__()
        self.bench = PipelineBench(*signatures, **limits)
        self.clock = self.bench.clock
        self.metrics = self.bench.metrics
        self.decoder = NumberDecoder()
        model: Any = self.bench.model
        model.face = ModelFace("m", 1, model.face.signatures, decoders={"serving_default": self.decoder})
        state = self.models.expect("m", 1)
        state.model, state.state = model, "ready"
        self.models.expect("m", 2).state = "broken"
        self.api = Api(
            self.models,
            self.bench.pipeline,
            self.bench.cache,
            self.metrics,
            self.api.limits,
            self.clock,
            self.bench.pool.defer,
            lambda: "",
        )
        self.site = type(self.site)(self.api)

    def send(self, body: str, **headers: str) -> Client:
        """Asks TensorFlow Serving's way, on a connection of its own."""
        client = self.connect()
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v1/models/m:predict HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        client.send((head + body).encode())
        return client

    def predict(self, *numbers: float, **headers: str) -> Client:
        return self.send(json.dumps({"instances": [[number] * 4 for number in numbers]}), **headers)

    def upload(self, *pictures: bytes, **headers: str) -> Any:
        client = self.connect()
        body = form(*pictures)
        lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in {**FORM, **headers}.items())
        head = f"POST /images/m?outputs=double HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        client.send(head.encode() + body)
        self.bench.run()
        self.turns()
        return client.reply()


@pytest.fixture
def server() -> RealServer:
    return RealServer()


def doubles(reply: Any) -> list[float]:
    return [row["double"][0] for row in reply.json["predictions"]]


def test_a_hit_is_answered_before_the_reactor_turns(server):
    first = server.predict(1, 2)
    server.bench.run()
    assert doubles(first.reply()) == [2.0, 4.0]
    again = server.predict(2, 1)
    reply = again.reply()
    assert (reply.status, reply.headers["cache-status"]) == (200, "rowserve; hit")
    assert doubles(reply) == [4.0, 2.0]


def test_a_partial_hit_runs_only_what_is_missing_and_says_so(server):
    server.predict(1, 2)
    server.bench.run()
    client = server.predict(1, 2, 3)
    server.bench.run()
    assert server.bench.session.seen[-1] == [3.0] * 4
    assert client.reply().headers["cache-status"] == 'rowserve; fwd=partial; detail="hit=2 computed=1"'


def test_200_clients_one_computation_and_hang_ups(server):
    server.predict(0)
    clients = [server.predict(7) for _ in range(200)]
    for client in clients[:100]:
        client.hang_up()
    assert server.adds_up()
    server.bench.run()
    replies = [client.reply() for client in clients[100:]]
    assert all(doubles(reply) == [14.0] for reply in replies)
    assert server.bench.session.seen.count([7.0] * 4) == 1
    assert server.figures()['rowserve_rows_failed_total{reason="cancelled"}'] == 100
    assert server.adds_up()


def test_a_deadline_is_a_504_while_the_graph_is_busy(server):
    client = server.predict(1, Request_Timeout="1")
    server.clock.advance(0.5)
    assert server.adds_up()
    server.clock.advance(0.5)
    assert client.reply().status == 504
    server.bench.run()
    assert server.adds_up()


def test_a_full_queue_is_a_503_with_retry_after_at_once():
    server = RealServer(queue_rows=2)
    server.predict(0)
    server.predict(1, 2)
    reply = server.predict(3).reply()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    server.bench.run()
    assert server.adds_up()


def test_one_bad_row_among_good_ones(server):
    body = "".join(json.dumps([number] * 4) + "\n" for number in [*range(40), BROKEN, *range(100, 123)])
    client = server.connect()
    head = f"POST /rows/m HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
    client.send((head + body).encode())
    for _ in range(20):
        server.turns()
        server.bench.run()
    rows = client.reply().lines
    assert [row["line"] for row in rows] == list(range(1, 65))
    assert [row["line"] for row in rows if "error" in row] == [41]
    assert rows[40]["error"]["status"] == 422
    assert server.adds_up()


def test_uploads_meet_tensors_and_repeated_uploads_decode_nothing(server):
    server.predict(7)
    server.bench.run()
    reply = server.upload(b"7", b"8", b"x")
    assert [row.get("cache", "failed") for row in reply.json["rows"]] == ["hit", "computed", "failed"]
    assert reply.status == 200
    decodes = server.decoder.decodes
    assert [row["cache"] for row in server.upload(b"8", b"7").json["rows"]] == ["hit", "hit"]
    assert server.decoder.decodes == decodes
    assert server.upload(b"x").status == 422
    assert server.adds_up()


def test_only_if_cached_and_no_store_through_http(server):
    missing = server.predict(5, Cache_Control="only-if-cached").reply()
    assert missing.status == 504
    assert not server.bench.graph.inbox
    for _ in range(2):
        client = server.predict(5, Cache_Control="no-store")
        server.bench.run()
        assert client.reply().headers["cache-status"].startswith("rowserve; fwd=bypass")
    assert server.adds_up()


def test_only_if_cached_on_lines_fails_only_the_lines_that_are_missing(server):
    server.predict(1, 3)
    server.bench.run()
    body = "[1,1,1,1]\n[2,2,2,2]\n[3,3,3,3]\n"
    client = server.connect()
    head = f"POST /rows/m HTTP/1.1\r\nHost: h\r\nCache-Control: only-if-cached\r\nContent-Length: {len(body)}\r\n\r\n"
    client.send((head + body).encode())
    server.turns()
    told = [row.get("cache") or row["error"]["status"] for row in client.reply().lines]
    assert told == ["hit", 504, "hit"]
    assert server.adds_up()


def test_a_small_body_of_lines_is_answered_with_what_became_of_its_rows(server):
    server.predict(1)
    server.bench.run()
    for body, told in (("[1,1,1,1]\n[2,2,2,2]\n", "fwd=partial"), ("[1,1,1,1]\n" * 3000, None)):
        client = server.connect()
        client.send(f"POST /rows/m HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        for _ in range(60):
            server.turns()
            server.bench.run()
        reply = client.reply()
        assert len(reply.lines) == body.count("\n")
        assert (reply.headers.get("cache-status") or "").startswith(f"rowserve; {told}" if told else "")
        assert ("server-timing" in reply.headers) == bool(told)


def test_refused_requests_count_no_rows(server):
    assert server.send('{"instances": [[1, 2]]}').reply().status == 400
    assert server.send("nothing").reply().status == 400
    assert not any(name.startswith("rowserve_rows_asked") and n for name, n in server.figures().items())


ROW = b'{"instances": [[%d, 2, 3, 4]]%s}'


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/images/m?outputs=double", form(b"1", b"2"), FORM),
        ("/images/m?outputs=double", form(b"3", b"a broken one"), FORM),
        ("/images/m?outputs=double", b"4", {"Content-Type": "image/jpeg"}),
        ("/rows/m", b"[5, 2, 3, 4]\n[]\n", {}),
        ("/v1/models/m:predict", ROW % (6, b""), {}),
        ("/v1/models/m:predict", ROW % (7, b" " * (2 << 20)), {}),
        ("/v1/models/m:predict", ROW % (8, b""), {"Request-Timeout": "60"}),
        ("/v1/models/m:predict", b'{"instances": [[-666, -666, -666, -666], [9, 9, 9, 9]]}', {}),
        ("/v1/models/m:predict", b"{", {}),
        ("/v2/models/m/infer", b"{}", {}),
    ],
)
def test_what_a_request_held_is_freed_when_it_is_answered(server, path, body, headers):
    """And not by the garbage collector some hundred requests later: as many large bodies would wait with it."""
    client = server.connect()
    lines = "".join(f"{name}: {told}\r\n" for name, told in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    for round_ in range(3):  # computed, then known, with a head that is known
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            client.send(head.encode() + body)
            server.bench.run()
            server.turns()
            assert client.reply().status
            gc.collect()
            left = Counter(type(each).__name__ for each in gc.garbage if "rowserve" in type(each).__module__)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        assert not left, round_
