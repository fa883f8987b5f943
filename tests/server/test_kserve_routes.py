"""KServe's V1 routes, and the merged answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rowserve.handlers.problem import Problem
from rowserve.server.listener import ApiSite
from tests.http_doubles import Server, head

EVENT = {"specversion": "1.0", "source": "here", "type": "t", "id": "1", "time": "2024-01-01T00:00:00Z"}


def served(profile: str = "kserve") -> Server:
    server = Server()
    server.site = ApiSite(server.api, profile)
    return server


def asked(server: Server, body: Any, path: str = "/v1/models/m:predict", **headers: str) -> Any:
    return server.request("POST", path, json.dumps(body).encode(), **headers)


def test_predict():
    server = served()
    reply = asked(server, {"inputs": [[1, 2]]})
    assert (reply.status, reply.json) == (200, {"predictions": [{"double": [2, 4], "sum": 3}]})
    assert reply.headers["cache-status"] == "rowserve; hit"
    assert asked(server, {"signature_name": "other", "instances": [[1, 2]]}).json == {"predictions": [[1, 2]]}
    assert server.figures()['rowserve_rows_total{model="m",outcome="hit",protocol="kserve",version="2"}'] == 2
    assert server.adds_up()


def test_a_row_that_fails_is_the_answer():
    server = served()
    server.pipeline.holding = True
    client = server.connect()
    body = b'{"instances":[[1, 2]]}'
    client.send(head("POST", "/v1/models/m:predict", len(body)) + body)
    server.pipeline.refuse(Problem(504, "too late"))
    reply = client.reply()
    assert (reply.status, reply.json) == (504, {"error": "too late"})


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/", 200, {"status": "alive"}),
        ("GET", "/v1/models", 200, {"models": ["m"]}),
        ("GET", "/v1/models/m", 200, {"name": "m", "ready": True}),
        ("GET", "/v1/models/no", 404, {"error": "Model with name no does not exist."}),
        ("POST", "/v1/models/no:predict", 404, {"error": "Model with name no does not exist."}),
        ("POST", "/v1/models/no:explain", 404, {"error": "Model with name no does not exist."}),
        ("POST", "/v1/models/m:explain", 501, {"error": "Model with name m has no explainer."}),
        ("POST", "/v1/models/m:predict", 400, {"error": 'Expected a JSON object with "instances"'}),
        ("GET", "/v1/nothing", 404, {"detail": "Not Found"}),
        ("GET", "/v1/models/m:predict", 405, {"detail": "Method Not Allowed"}),
        ("PUT", "/v1/models/m", 405, {"detail": "Method Not Allowed"}),
    ],
)
def test_answers(method, path, status, told):
    reply = served().request(method, path, b"[]" if method == "POST" else None)
    assert (reply.status, reply.json) == (status, told)
    assert reply.headers["content-type"] == "application/json"


def test_a_model_that_loads():
    server = served()
    for state in server.models.versions("m"):
        state.state = "loading"
    told = {"error": "Model with name m is not ready."}
    for method, path in (("GET", "/v1/models/m"), ("POST", "/v1/models/m:predict")):
        reply = server.request(method, path)
        assert (reply.status, reply.json, reply.headers["retry-after"]) == (503, told, "1")
    server.site = ApiSite(server.api)
    merged = server.request("GET", "/v1/models/m")
    assert (merged.status, merged.json["ready"]) == (200, False)
    assert [each["state"] for each in merged.json["model_version_status"]] == ["LOADING", "LOADING"]


def test_events():
    server = served()
    body = {**EVENT, "data": {"instances": [[1, 2]]}}
    reply = asked(server, body, Content_Type="application/cloudevents+json")
    assert reply.headers["content-type"] == "application/cloudevents+json"
    assert reply.json["data"] == {"predictions": [{"double": [2, 4], "sum": 3}]}
    binary = {f"ce_{name}": value for name, value in EVENT.items()}
    reply = asked(server, {"instances": [[1, 2]]}, **binary)
    assert (reply.headers["ce-source"], reply.headers["content-type"]) == ("io.kserve.inference.m", "application/json")


def test_the_merged_answers_have_the_keys_of_both():
    server = served("native")
    told = server.request("GET", "/v1/models/m").json
    assert (told["name"], told["ready"]) == ("m", True)
    assert [each["version"] for each in told["model_version_status"]] == ["2", "1"]
    assert server.request("GET", "/v1/models").json == {"models": ["m"]}
    reply = server.request("GET", "/v1/models/no")
    assert (reply.status, reply.json) == (404, {"error": "Could not find any versions of model no"})


def test_large_bodies_are_read_on_the_pool():
    server = served()
    client = server.connect()
    body = json.dumps({"instances": [[1, 2]] * 50_000}).encode()
    client.send(head("POST", "/v1/models/m:predict", len(body)) + body)
    assert client.wire.value() == b""
    server.pool.step_all()
    server.turns()
    server.pool.step_all()
    server.turns()
    assert len(client.reply().json["predictions"]) == 50_000
