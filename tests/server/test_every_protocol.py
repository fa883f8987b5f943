"""What every HTTP protocol that carries rows keeps: partial hits, twins, Cache-Control, deadlines, its own counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rowserve.server.listener import ApiSite
from tests.handlers.graphpipe_requests import infer_request
from tests.http_doubles import Client
from tests.server.test_http_pipeline import RealServer


@dataclass(frozen=True)
class Protocol:
    """How rows are asked for; `label` is its name in the metrics."""

    label: str
    path: str
    body: Callable[[Any], bytes]
    headers: Callable[[Any], dict[str, str]] = lambda rows: {}
    profile: str = "native"


def instances(rows: Any) -> bytes:
    return json.dumps({"instances": rows.tolist()}).encode()


def columns(rows: Any) -> bytes:
    return json.dumps({"inputs": rows.tolist()}).encode()


def lines(rows: Any) -> bytes:
    return b"".join(b"%b\n" % json.dumps(row).encode() for row in rows.tolist())


def tensor(rows: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": rows.shape, "datatype": "FP32", **more}]}).encode()


def binary_head(rows: Any) -> bytes:
    return tensor(rows, parameters={"binary_data_size": rows.nbytes})


PROTOCOLS = {
    "TensorFlow Serving, rows": Protocol("tensorflow_serving", "/v1/models/m:predict", instances),
    "TensorFlow Serving, columns": Protocol("tensorflow_serving", "/v1/models/m:predict", columns),
    "Open Inference, JSON": Protocol(
        "open_inference", "/v2/models/m/infer", lambda rows: tensor(rows, data=rows.ravel().tolist())
    ),
    "Open Inference, binary": Protocol(
        "open_inference",
        "/v2/models/m/infer",
        lambda rows: binary_head(rows) + rows.tobytes(),
        lambda rows: {"Inference-Header-Content-Length": str(len(binary_head(rows)))},
    ),
    "GraphPipe": Protocol("graphpipe", "/graphpipe/m", lambda rows: infer_request([rows])),
    "KServe": Protocol("kserve", "/v1/models/m:predict", instances, profile="kserve"),
    "TorchServe": Protocol(
        "torchserve", "/predictions/m", instances, lambda rows: {"Content-Type": "application/json"}
    ),
    "native": Protocol("rows", "/rows/m", lines),
}
every_protocol = pytest.mark.parametrize("name", PROTOCOLS)
whole_answers = pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "native"])  # that one has lines


def ask(server: RealServer, name: str, *numbers: float, **headers: str) -> Client:
    """Asks for rows of these numbers, on a connection of its own."""
    protocol = PROTOCOLS[name]
    rows = np.repeat(np.array(numbers, np.float32)[:, None], 4, axis=1)
    body = protocol.body(rows)
    told = {"Host": "h", "Content-Length": str(len(body)), **protocol.headers(rows), **headers}
    lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in told.items())
    server.site = ApiSite(server.api, protocol.profile)
    client = server.connect()
    client.send(f"POST {protocol.path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
    return client


def counted(server: RealServer, name: str, outcome: str) -> float:
    label = PROTOCOLS[name].label
    figure = 'rowserve_rows_total{model="m",outcome="%s",protocol="%s",version="1"}'
    return server.figures().get(figure % (outcome, label), 0)


def settle(server: RealServer) -> None:
    server.bench.run()
    server.turns()


@every_protocol
def test_a_partial_hit_runs_only_what_is_missing(name):
    server = RealServer()
    ask(server, name, 1, 2)
    settle(server)
    client = ask(server, name, 1, 3, 2)
    settle(server)
    assert server.bench.session.seen == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    reply = client.reply()
    assert reply.status == 200
    assert reply.headers["cache-status"] == 'rowserve; fwd=partial; detail="hit=2 computed=1"'
    assert (counted(server, name, "hit"), counted(server, name, "computed")) == (2, 3)
    assert server.adds_up()


@every_protocol
def test_a_row_is_the_same_row_by_every_other_protocol(name):
    server = RealServer()
    ask(server, name, 5)
    settle(server)
    for other in PROTOCOLS:
        assert ask(server, other, 5).reply().headers["cache-status"] == "rowserve; hit"
    assert server.bench.session.seen == [[5.0] * 4]


@every_protocol
def test_twins_run_once(name):
    server = RealServer()
    ask(server, name, 0)
    clients = [ask(server, name, 7) for _ in range(5)]
    settle(server)
    assert [client.reply().status for client in clients] == [200] * 5
    assert server.bench.session.seen == [[0.0] * 4, [7.0] * 4]
    assert (counted(server, name, "computed"), counted(server, name, "collapsed")) == (2, 4)


@whole_answers
def test_only_if_cached_never_touches_the_graph(name):
    server = RealServer()
    assert ask(server, name, 1, Cache_Control="only-if-cached").reply().status == 504
    assert not server.bench.graph.inbox
    assert server.adds_up()


@every_protocol
def test_no_store_goes_past_the_cache(name):
    server = RealServer()
    for _ in range(2):
        ask(server, name, 1, Cache_Control="no-store")
        settle(server)
    assert server.bench.session.seen == [[1.0] * 4] * 2
    assert counted(server, name, "bypassed") == 2


@whole_answers
def test_a_deadline_is_kept_while_the_graph_is_busy_and_the_row_leaves_the_queue(name):
    server = RealServer()
    ask(server, name, 0)
    client = ask(server, name, 1, Request_Timeout="1")
    server.clock.advance(0.9)
    assert server.bench.model.batcher.rows == 1
    server.clock.advance(0.2)
    assert client.reply().status == 504
    assert server.bench.model.batcher.rows == 0
    settle(server)
    assert server.bench.session.seen == [[0.0] * 4]
    assert server.adds_up()


@every_protocol
def test_who_hangs_up_leaves_the_queue(name):
    server = RealServer()
    ask(server, name, 0)
    ask(server, name, 1).hang_up()
    settle(server)
    assert server.bench.session.seen == [[0.0] * 4]
    assert server.adds_up()


def test_open_inferences_own_timeout_is_a_deadline():
    server = RealServer()
    ask(server, "Open Inference, JSON", 0)
    asked = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    body = json.dumps({"inputs": [asked], "parameters": {"timeout": 1_000_000}}).encode()
    client = server.connect()
    client.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    server.clock.advance(1.1)
    reply = client.reply()
    assert reply.status == 504
    assert list(reply.json) == ["error"]
