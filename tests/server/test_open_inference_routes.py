"""The Open Inference Protocol over HTTP: routes, statuses and words, metadata, statistics, compression."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest

from rowserve.handlers.items import Priority
from rowserve.handlers.problem import Problem
from tests.http_doubles import Reply, Server

INPUT = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
INFER = "/v2/models/m/infer"


@pytest.fixture
def server() -> Server:
    return Server()


def infer(server: Server, path: str = INFER, document: Any = None, **headers: str) -> Reply:
    return server.request("POST", path, json.dumps(document or {"inputs": [INPUT]}).encode(), **headers)


def error(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json) == ["error"]
    return str(reply.json["error"])


def test_json_in_json_out(server: Server):
    reply = infer(server, document={"inputs": [INPUT], "id": "one", "outputs": [{"name": "sum"}, {"name": "double"}]})
    assert reply.status == 200
    assert reply.headers["cache-status"] == "rowserve; hit"
    assert "server-timing" in reply.headers
    assert reply.json == {
        "id": "one",
        "model_name": "m",
        "model_version": "2",
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [2], "data": [3.0, 7.0]},
            {"name": "double", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 4.0, 6.0, 8.0]},
        ],
    }


def binary_request() -> tuple[bytes, str]:
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return text + np.array([1, 2], np.float32).tobytes(), str(len(text))


@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
def test_bytes_in_bytes_out_in_every_coding(server: Server, coding: str):
    body, length = binary_request()
    packed: dict[str, Any] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    body = packed[coding](body)
    headers = {"Inference_Header_Content_Length": length, "Content_Encoding": coding}
    reply = server.request("POST", "/v2/models/m/versions/1/infer", body, **headers)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/octet-stream"
    at = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:at])["model_version"] == "1"
    assert np.frombuffer(reply.body[at:], np.float32).tolist() == [2, 4, 3]


def test_another_coding_is_not_supported(server: Server):
    reply = infer(server, Content_Encoding="br")
    assert (reply.status, reply.headers["accept-encoding"]) == (501, "gzip, deflate")
    assert error(reply).startswith("Unsupported compression type")


def test_a_large_answer_is_compressed_on_the_pool(server: Server):
    rows = 40_000
    document = {"inputs": [{**INPUT, "shape": [rows, 2], "data": [1] * 2 * rows}]}
    client = server.connect()
    body = json.dumps(document).encode()
    client.send(f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n".encode())
    client.send(b"Accept-Encoding: gzip\r\n\r\n" + body)
    assert len(server.pool.calls) == 1
    server.pool.step_all()
    server.turns()
    reply = client.reply()
    assert reply.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(reply.body))["outputs"][0]["shape"] == [rows, 2]


def test_what_a_request_wishes_reaches_the_pipeline(server: Server):
    document = {"inputs": [INPUT], "parameters": {"priority": 5, "timeout": 250_000}}
    infer(server, document=document, Request_Timeout="9", Cache_Control="no-cache")
    options = server.pipeline.seen[-1][1]
    assert (options.protocol, options.priority, options.timeout) == ("open_inference", Priority.BULK, 0.25)
    assert options.cache.no_cache
    assert 'rowserve_rows_asked_total{model="m",protocol="open_inference",version="2"}' in server.figures()


def test_the_query_means_nothing(server: Server):
    assert infer(server, f"{INFER}?test_1=1&test_2=2").status == 200


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_is(server: Server, path: str):
    told = server.request("GET", path).json
    assert (told["name"], sorted(told)) == ("rowserve", ["extensions", "name", "version"])
    assert "binary_tensor_data" in told["extensions"]
    assert "system_shared_memory" not in told["extensions"]


def test_health(server: Server):
    live, ready = "/v2/health/live", "/v2/health/ready"
    assert (server.request("GET", live).status, server.request("GET", live).json) == (200, {"live": True})
    assert (server.request("GET", ready).status, server.request("GET", ready).json) == (200, {"ready": True})
    server.fault = "stuck"
    assert (server.request("GET", live).status, server.request("GET", live).json) == (503, {"live": False})
    server.api.draining = True
    assert (server.request("GET", ready).status, server.request("GET", ready).json) == (503, {"ready": False})


def test_a_model_is_ready_or_not(server: Server):
    assert server.request("GET", "/v2/models/m/versions/1/ready").json == {"name": "m", "ready": True}
    server.models.expect("slow", 1)
    reply = server.request("GET", "/v2/models/slow/ready")
    assert (reply.status, reply.json) == (503, {"name": "slow", "ready": False})
    assert server.request("GET", "/v2/models/other/ready").status == 404


def test_a_models_metadata(server: Server):
    server.models.expect("m", 7).state = "broken"
    for path in ("/v2/models/m", "/v2/models/m/versions/1"):
        told = server.request("GET", path).json
        assert (told["name"], told["versions"]) == ("m", ["1", "2"])
        assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        assert told["outputs"][1] == {"name": "sum", "datatype": "FP32", "shape": [-1]}
    assert server.request("GET", "/v2/models").json == {"models": ["m"]}


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/main/index"])
def test_the_index(server: Server, path: str):
    broken = server.models.expect("b", 1)
    broken.state, broken.fault = "broken", "no such file"
    entries = [
        {"name": "b", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"},
        {"name": "m", "version": "2", "state": "READY", "reason": ""},
        {"name": "m", "version": "1", "state": "READY", "reason": ""},
    ]
    assert server.request("POST", path, b"").json == entries
    assert server.request("POST", path, b"{}").json == entries
    assert server.request("POST", path, b'{"ready": true}').json == entries[1:]
    for wrong in (b'{"ready": 1}', b"[]", b"{"):
        assert server.request("POST", path, wrong).status == 400
    told = "Invalid value for 'ready': expected a boolean"
    assert error(server.request("POST", path, b'{"ready": "x"}')) == told


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("POST", "/v2/models/m/generate", "generate is not supported"),
        ("POST", "/v2/models/m/versions/1/generate_stream", "generate is not supported"),
        ("POST", "/v2/cudasharedmemory/region/r/register", "shared memory is not supported"),
        ("POST", "/v2/trace/setting", "a change of the tracing is not supported"),
        ("POST", "/v2/models/m/trace/setting", "a change of the tracing is not supported"),
        ("POST", "/v2/logging", "a change of the logging is not supported"),
        ("POST", "/v2/repository/models/m/load", "loading and unloading by request"),
        ("POST", "/v2/repository/r/models/m/unload", "loading and unloading by request"),
    ],
)
def test_what_is_not_there_is_said_to_be_unsupported(server: Server, method: str, path: str, told: str):
    reply = server.request(method, path, b"{}" if method == "POST" else None)
    assert reply.status == 501
    assert told in error(reply)


@pytest.mark.parametrize("memory", ["system", "cuda"])
def test_there_is_no_region_of_shared_memory_to_tell_of_or_to_forget(server: Server, memory: str):
    for region in ("", "/region/r"):
        path = f"/v2/{memory}sharedmemory{region}"
        assert server.request("GET", f"{path}/status").json == []
        reply = server.request("POST", f"{path}/unregister", b"")
        assert (reply.status, reply.body) == (200, b"")
        assert "content-type" not in reply.headers


def test_tracing_and_logging_as_they_stand(server: Server):
    for path in ("/v2/trace/setting", "/v2/models/m/trace/setting"):
        told = server.request("GET", path).json
        assert (told["trace_level"], told["trace_rate"]) == (["OFF"], "1000")
    assert server.request("GET", "/v2/models/nothing/trace/setting").status == 404
    told = server.request("GET", "/v2/logging").json
    assert (told["log_error"], told["log_verbose_level"], told["log_format"]) == (True, 0, "default")


def test_unknown_paths_methods_models_and_versions(server: Server):
    assert error(server.request("GET", "/v2/nothing")).startswith("Not Found")
    assert server.request("GET", "/v2/nothing").status == 404
    reply = server.request("GET", INFER)
    assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, POST")
    assert "POST" in error(reply)
    reply = infer(server, "/v2/models/other/infer")
    assert (reply.status, error(reply)) == (404, "Request for unknown model: 'other' is not found")
    for version in ("9", "x"):
        reply = infer(server, f"/v2/models/m/versions/{version}/infer")
        assert (reply.status, error(reply)) == (404, f"Request for unknown model: 'm' version {version} is not found")
    server.models.expect("slow", 1)
    reply = infer(server, "/v2/models/slow/infer")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "loading" in error(reply)


def test_a_fault_of_a_row_or_of_the_request_is_written_as_an_error(server: Server):
    server.pipeline.holding = True
    client = server.connect()
    body = json.dumps({"inputs": [INPUT]}).encode()
    client.send(f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    server.pipeline.refuse(Problem(504, "no answer within 1 s", reason="deadline"))
    assert error(client.reply()) == "no answer within 1 s"
    too_much = {"Content_Length": "99999999999"}
    client = server.connect()
    client.send(f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {too_much['Content_Length']}\r\n\r\n".encode())
    reply = client.reply()
    assert reply.status == 413
    assert "more than" in error(reply)
