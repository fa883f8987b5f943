"""GraphPipe over HTTP, `/` for all who want it, and errors where each client looks for them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rowserve.handlers.graphpipe_slots import Slots
from rowserve.handlers.items import Outcome
from rowserve.handlers.problem import Problem
from rowserve.server.limits import Limits
from tests.handlers.graphpipe_requests import METADATA, answered, infer_request
from tests.http_doubles import FORM, Reply, Server, form, head, logged, parse

ROWS = np.array([[1, 2], [3, 4]], np.float32)
BODY = infer_request([ROWS])
DATA = {"Content_Type": "multipart/form-data; boundary=B"}


def two_models() -> Server:
    server = Server()
    other = server.models.expect("other", 1)
    other.state = "ready"
    other.model = server.models.find("m")
    return server


def tutorial_form(data: bytes) -> bytes:
    """As `curl -F data=@cat.jpg` sends it."""
    named = b'Content-Disposition: form-data; name="data"; filename="cat.jpg"'
    start = b"--B\r\n" + named + b"\r\nContent-Type: image/jpeg\r\n\r\n"
    return start + data + b"\r\n--B--\r\n"


def told(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[Reply, str]:
    """The answer and its reason phrase."""
    client = server.connect()
    client.send(head(method, path, None if body is None else len(body), **headers) + (body or b""))
    raw = client.wire.take()
    return parse(raw), raw.partition(b"\r\n")[0].split(b" ", 2)[2].decode("latin-1")


@pytest.mark.parametrize("path", ["/", "/graphpipe/m", "/graphpipe/m/versions/1"])
def test_tensors_in_and_tensors_out(path):
    server = Server()
    reply = server.request("POST", path, BODY)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    assert reply.headers["cache-status"] == "rowserve; hit"
    double, total = answered(reply.body)
    assert (double.tolist(), total.tolist()) == ((ROWS * 2).tolist(), [3, 7])
    assert any('protocol="graphpipe"' in key for key in server.figures())
    assert server.adds_up()


def test_the_content_type_means_nothing_but_for_forms():
    for content_type in ("application/x-www-form-urlencoded", "application/json", "image/png", ""):
        assert Server().request("POST", "/", BODY, Content_Type=content_type).status == 200


def test_metadata():
    for path in ("/", "/graphpipe/m", "/graphpipe/m/versions/2"):
        reply = Server().request("POST", path, METADATA)
        assert bytes(Slots.root(reply.body).vector(0, 1)) == b"m"
        described = Server().request("GET", path).json
        assert (described["Name"], described["Version"], described["Outputs"][0]["Name"]) == ("m", "2", "double")


def test_a_large_request_is_read_on_the_pool():
    server = Server(Limits(pool_parse_bytes=100))
    client = server.connect()
    client.send(head("POST", "/", len(BODY)) + BODY)
    assert client.wire.value() == b""
    server.pool.step_all()
    assert client.reply().status == 200


def test_the_wishes_of_the_headers_reach_the_pipeline():
    server = Server()
    server.request("POST", "/", BODY, Cache_Control="no-store", Request_Timeout="3")
    (_, options), *_ = server.pipeline.seen
    assert (options.protocol, options.timeout, options.cache.no_store) == ("graphpipe", 3.0, True)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/graphpipe/no", BODY, 404, "there is no model 'no'; there is: m"),
        ("/graphpipe/m/versions/7", BODY, 404, "model m has no version 7; it has: 2, 1"),
        ("/graphpipe/m/versions/x", BODY, 404, "positive"),
        ("/", infer_request({"no": ROWS}), 400, "there is no input 'no'; the inputs are: x"),
        ("/", infer_request([ROWS], ["no"]), 400, "there is no output 'no'; the outputs are: double, sum"),
        ("/", infer_request([ROWS.astype("f8")]), 400, "input 'x' takes float32, not float64"),
        ("/", infer_request([np.ones((1, 3), "f")]), 400, "input 'x' takes the shape [-1, 2], not [1, 3]"),
        ("/", b"no flatbuffer", 400, "the body is no GraphPipe request"),
        ("/graphpipe/m/what", BODY, 404, "there is nothing at /graphpipe/m/what"),
        ("/control/what", BODY, 404, "there is nothing at /control/what"),
    ],
)
def test_errors_are_plain_text_in_the_body_and_in_the_reason_phrase(path, body, status, words):
    reply, reason = told(Server(), "POST", path, body)
    assert reply.status == status
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert words in reason
    assert reply.body.decode().strip().startswith(reason)


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (Problem(503, "the queue is full", retry_after=1), 503),
        (Problem(504, "not all rows were answered in time"), 504),
        (RuntimeError("a secret"), 500),
    ],
)
def test_what_fails_in_the_pipeline_has_the_form_too(problem, status):
    server = Server()
    server.pipeline.raises = problem
    with logged() as events:
        reply, reason = told(server, "POST", "/", BODY)
    assert (reply.status, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert reason == reply.body.decode().strip()
    assert ("secret" in reason, len(events)) == (False, int(status == 500))
    assert ("retry-after" in reply.headers) == (status == 503)


def test_a_body_over_the_limit():
    reply, reason = told(Server(Limits(body_bytes=50)), "POST", "/", BODY)
    assert (reply.status, reason) == (413, "the body has more than 50 bytes")


def test_a_name_breaks_no_header():
    body = infer_request({"x\r\nSet-Cookie: a=b\r\n\r\n\u2603": ROWS})
    reply, reason = told(Server(), "POST", "/", body)
    assert (reply.status, "set-cookie" in reply.headers) == (400, False)
    assert "Set-Cookie: a=b" in reason


def test_computed_rows_and_a_hang_up():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    client.send(head("POST", "/", len(BODY)) + BODY)
    server.pipeline.step()
    assert client.reply().headers["cache-status"] == 'rowserve; fwd=miss; detail="computed=2"'
    client.send(head("POST", "/", len(BODY)) + BODY)
    client.hang_up()
    assert server.pipeline.cancelled == 2
    assert server.adds_up()


# Several models, or none


def test_of_several_models_the_path_must_name_one():
    server = two_models()
    reply, reason = told(server, "POST", "/", BODY)
    assert (reply.status, reason) == (
        400, "/ is for a server of one model; here, POST /graphpipe/NAME, for: m, other"
    )
    assert server.request("POST", "/graphpipe/other", BODY).status == 200
    reply = server.request("POST", "/", tutorial_form(b"picture"), **DATA)
    assert (reply.status, list(reply.json)) == (400, ["error"])
    assert "POST /images/NAME, for: m, other" in reply.json["error"]


def test_the_root_is_alive_whatever_the_models_do():
    described = two_models().request("GET", "/").json
    assert (described["status"], described["Inputs"], described["Description"]) == (
        "alive", None, "models at /graphpipe/NAME: m, other"
    )
    server = Server()
    described = server.request("GET", "/").json
    assert (described["status"], described["Name"], described["Inputs"][0]["Name"]) == ("alive", "m", "x")
    for state in server.models.states():
        state.state, state.model = "loading", None
    reply = server.request("GET", "/")
    assert (reply.status, reply.json["status"], reply.json["Outputs"]) == (200, "alive", None)
    assert "loading" in reply.json["Description"]
    reply, reason = told(server, "POST", "/", BODY)
    assert (reply.status, reason) == (503, "model m is still loading")


# The tutorials' upload


def test_a_form_is_the_tutorials_upload():
    server = Server()
    reply = server.request("POST", "/", tutorial_form(b"picture"), **DATA)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == [["first", 14.0], ["second", 2.0]]
    both = server.request("POST", "/", form(b"a", b"bc"), **FORM)
    assert both.json == [[["first", 2.0], ["second", 2.0]], [["first", 4.0], ["second", 2.0]]]
    assert any('protocol="tutorial"' in key for key in server.figures())


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (tutorial_form(b"broken"), DATA, 422, "this is no picture"),
        (tutorial_form(b""), DATA, 422, "empty"),
        (b"--B--", DATA, 400, "multipart"),
        (b"", {"Content_Type": "multipart/form-data"}, 400, "boundary"),
        (b"", {"Content_Type": "multipart/mixed; boundary=B"}, 400, "multipart/form-data"),
    ],
)
def test_an_upload_that_fails(body, headers, status, words):
    reply = Server().request("POST", "/", body, **headers)
    assert (reply.status, list(reply.json)) == (status, ["error"])
    assert reply.headers["content-type"] == "application/json"
    assert words in reply.json["error"]


def test_a_model_without_labels_says_so_before_the_body():
    server = Server()
    model: Any = server.models.find("m")
    object.__setattr__(model.face, "labels", None)
    client = server.connect()
    client.send(head("POST", "/", 1_000_000, **FORM))
    reply = client.reply()
    assert (reply.status, "no labels" in json.loads(reply.body)["error"]) == (422, True)


# Control


def test_control():
    server = Server()
    for method in ("GET", "POST"):
        for path in ("is_ready", "is_alive"):
            reply = server.request(method, f"/control/{path}")
            assert (reply.status, reply.body) == (200, b"ok\n")
    first, second = server.connect(), server.connect()
    assert second.request("GET", "/control/client_count").body == b"%d\n" % len(server.site.channels)
    first.hang_up()
    assert second.request("GET", "/control/client_count").body == b"%d\n" % len(server.site.channels)


def test_control_tells_what_is_wrong():
    server = Server()
    server.fault = "the graph thread hangs"
    next(server.models.states()).state = "loading"
    assert told(server, "GET", "/control/is_alive")[1] == "the graph thread hangs"
    reply, reason = told(server, "GET", "/control/is_ready")
    assert (reply.status, reason) == (503, "not ready; /readyz says why")


def test_a_client_cannot_stop_the_server():
    server = Server()
    reply, reason = told(server, "POST", "/control/shutdown")
    assert (reply.status, reason) == (403, "a client cannot stop this server; send its process SIGTERM")
    assert server.request("POST", "/", BODY).status == 200


def test_a_row_that_fails_fails_the_request_and_the_others_are_kept():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    client.send(head("POST", "/", len(BODY)) + BODY)
    done, work, _ = server.pipeline.asked.popleft()
    answer = work(Outcome.COMPUTED)
    answer.packed[1], answer.errors[1] = None, Problem(500, "the graph refused it")
    done.callback(answer)
    assert (client.reply().status, server.pipeline.seen[0][0][0].count) == (500, 2)
