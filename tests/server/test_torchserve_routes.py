"""TorchServe's routes: predictions in every form, its description of models, its errors."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from rowserve.server.limits import Limits
from rowserve.server.row_queue import BatchLimits
from tests.http_doubles import Server, form, head

ROW = struct.pack("<2f", 1, 2)
BEST = {"second": 4.0, "first": 2.0}
PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.fixture
def server() -> Server:
    server = Server()
    for state in server.models.states():
        model: Any = state.model
        model.batcher = SimpleNamespace(limits=BatchLimits(max_rows=16, max_wait=0.005), rows=6)
    return server


def part(data: bytes, content_type: str = "", name: str = "data") -> bytes:
    """A form of one field."""
    kind = f"\r\nContent-Type: {content_type}" if content_type else ""
    top = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="a"{kind}\r\n\r\n'
    return top.encode() + data + b"\r\n--B--\r\n"


FORM: Any = {"Content_Type": "multipart/form-data; boundary=B"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_any_method_will_do(server, method):
    reply = server.request(method, "/predictions/m", ROW)
    assert (reply.status, reply.json) == (200, BEST)


@pytest.mark.parametrize(
    "path",
    [
        *("/predictions/m", "/predictions/m/2", "/predictions/m/2.0", "/models/m/invoke"),
        *("/invocations?model_name=m", "/invocations", "/predictions/m?customized=true"),
    ],
)
def test_every_path_of_a_prediction(server, path):
    assert server.request("POST", path, ROW).json == BEST


def test_every_form_of_a_prediction(server):
    def asked(body: bytes, **headers: str) -> Any:
        return server.request("POST", "/predictions/m", body, **headers)

    assert asked(b"[1, 2]", Content_Type="application/json").json == BEST
    assert asked(b'{"instances": [[1, 2]]}').json == [BEST]
    assert asked(ROW * 2).json == [BEST, BEST]
    assert asked(part(ROW), **FORM).json == BEST
    assert asked(part(b"[1, 2]", "application/json"), **FORM).json == BEST
    assert asked(PNG).json == {"first": 2.0 * len(PNG), "second": 2.0}
    assert asked(part(PNG, "image/png"), **FORM).json == {"first": 2.0 * len(PNG), "second": 2.0}
    assert asked(part(b"any bytes", "image/png"), **FORM).json == {"first": 18.0, "second": 2.0}
    assert asked(form(PNG), **FORM).json["first"] == 2.0 * len(PNG)
    reply = asked(ROW)
    assert (reply.headers["cache-status"], reply.headers["content-type"]) == ("rowserve; hit", "application/json")
    assert len(reply.headers["x-request-id"]) == 36
    told = 'rowserve_rows_total{model="m",outcome="hit",protocol="torchserve",version="2"}'
    assert server.figures()[told] == 11
    assert server.adds_up()


@pytest.mark.parametrize(
    ("method", "path", "code", "kind"),
    [
        ("POST", "/predictions/no", 404, "ModelNotFoundException"),
        ("POST", "/predictions/m/7", 404, "ModelVersionNotFoundException"),
        ("POST", "/predictions/m/x", 404, "ModelVersionNotFoundException"),
        ("POST", "/predictions/m", 400, "BadRequestException"),
        ("POST", "/predictions", 404, "ResourceNotFoundException"),
        ("POST", "/predictions/m/1/2/3", 404, "ResourceNotFoundException"),
        ("POST", "/invocations?model_name=no", 404, "ModelNotFoundException"),
        ("POST", "/ping", 405, "MethodNotAllowedException"),
        ("POST", "/explanations/m", 501, "UnsupportedOperationException"),
        ("POST", "/explanations/no", 404, "ModelNotFoundException"),
        ("GET", "/models/no", 404, "ModelNotFoundException"),
        ("GET", "/models/no/all", 404, "ModelNotFoundException"),
        ("GET", "/models/m/9", 404, "ModelVersionNotFoundException"),
        ("POST", "/models?url=a.mar", 405, "ModelsManagedByFilesException"),
        ("PUT", "/models/m?min_worker=3", 405, "ModelsManagedByFilesException"),
        ("PUT", "/models/m/1/set-default", 405, "ModelsManagedByFilesException"),
        ("DELETE", "/models/m/1", 405, "ModelsManagedByFilesException"),
        ("DELETE", "/models/m", 405, "ModelsManagedByFilesException"),
    ],
)
def test_errors_have_torchserves_form(server, method, path, code, kind):
    reply = server.request(method, path, b"")
    assert (reply.status, reply.json["code"], reply.json["type"]) == (code, code, kind)
    assert set(reply.json) == {"code", "type", "message"}
    assert len(reply.headers["x-request-id"]) == 36


def test_a_picture_that_does_not_decode(server):
    reply = server.request("POST", "/predictions/m", b"broken", Content_Type="image/png")
    assert (reply.status, reply.json["message"]) == (422, "this is no picture")


def test_of_several_models_one_must_be_named(server):
    server.models.expect("other", 1)
    reply = server.request("POST", "/invocations", ROW)
    assert (reply.status, reply.json["message"]) == (400, "Parameter model_name is required.")


def test_a_large_part_is_read_on_the_pool(server):
    client = server.connect()
    body = part(b'{"instances": [%s]}' % b",".join([b"[1, 2]"] * 50_000), "application/json")
    client.send(head("POST", "/predictions/m", len(body), **FORM) + body)
    assert client.wire.value() == b""
    for _ in range(2):
        server.pool.step_all()
        server.turns()
    assert len(client.reply().json) == 50_000


def test_a_body_over_the_limit():
    reply = Server(Limits(body_bytes=100)).request("POST", "/predictions/m", bytes(200))
    assert (reply.status, reply.json["code"]) == (413, 413)


def test_ping(server):
    good = server.request("GET", "/ping")
    assert (good.status, good.json) == (200, {"status": "Healthy"})
    server.fault = "stuck"
    bad = server.request("GET", "/ping")
    assert (bad.status, bad.json) == (500, {"status": "Unhealthy"})


def test_models(server):
    assert server.request("GET", "/models").json == {"models": [{"modelName": "m", "modelUrl": "m"}]}
    server.models.expect("a", 1).state = "broken"
    listed = server.request("GET", "/models?limit=1").json
    assert (listed["nextPageToken"], [each["modelName"] for each in listed["models"]]) == ("1", ["a"])
    (told,) = server.request("GET", "/models/m").json
    assert (told["modelVersion"], told["batchSize"], told["maxBatchDelay"]) == ("2", 16, 5)
    assert told["jobQueueStatus"] == {"remainingCapacity": 4090, "pendingRequests": 6}
    assert [each["modelVersion"] for each in server.request("GET", "/models/m/1.0").json] == ["1"]
    assert [each["modelVersion"] for each in server.request("GET", "/models/m/all").json] == ["2", "1"]
    assert server.request("GET", "/models/a").json[0]["workers"][0]["status"] == "STOPPED"
    assert json.loads(server.request("GET", "/models/m").body)[0]["workers"][0]["status"] == "READY"
