"""TensorFlow Serving's REST routes: what its paths are, and a real model behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from rowserve.server.limits import Limits
from rowserve.server.listener import ApiSite
from tests.http_doubles import Reply, Server
from tests.model_recipes import RECIPES
from tests.tools.processes import REAL, server

BODY = b'{"instances": [[1, 2]]}'
PREDICTED = {"predictions": [{"double": [2.0, 4.0], "sum": 3.0}]}


def served(profile: str = "tensorflow-serving") -> Server:
    found = Server()
    found.site = ApiSite(found.api, profile)
    return found


def asked(method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    return served().request(method, path, body, **headers)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/m:predict",
        "/v1/models/m/versions/2:predict",
        "/v1/models/m/versions/0002:predict",
        "/V1/models/m:predict",
        "/v1/MODELS/m:Predict",
        "/v1/models/m/Versions/2:PREDICT",
        "/v1/models/%6D:predict",
    ],
)
def test_predict_in_every_spelling(path: str):
    found = served()
    reply = found.request("POST", path, BODY)
    assert (reply.status, reply.json) == (200, PREDICTED)
    assert reply.headers["content-type"] == "application/json"
    assert any('route="/v1/models/{model}' in name and ":predict" in name for name in found.figures())


@pytest.mark.parametrize("path", ["/v1/models/m", "/V1/models/m", "/v1/Models/m/VERSIONS/2"])
def test_status_in_every_spelling(path: str):
    versions = asked("GET", path).json["model_version_status"]
    assert versions[0] == {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@pytest.mark.parametrize("path", ["/v1/models/m/metadata", "/v1/models/m/versions/2/MetaData"])
def test_metadata_in_every_spelling(path: str):
    assert asked("GET", path).json["model_spec"] == {"name": "m", "signature_name": "", "version": "2"}


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("POST", "/v1/models/no:predict", 404, "Servable not found for request: Latest(no)"),
        ("POST", "/v1/models/m/versions/50:classify", 404, "Servable not found for request: Specific(m, 50)"),
        ("POST", "/v1/models/a%2Fb:regress", 404, "Servable not found for request: Latest(a/b)"),
        ("GET", "/v1/models/no/metadata", 404, "Servable not found for request: Latest(no)"),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/m/versions/50", 404, "Could not find version 50 of model m"),
        ("POST", "/v1/models/m/labels/st%61ble:predict", 400, "Unrecognized servable version label: stable"),
        ("GET", "/v1/models/m/labels/a/metadata", 400, "Unrecognized servable version label: a"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/m:predict", 400, "Malformed request: GET /v1/models/m:predict"),
        ("POST", "/v1/models/m", 400, "Malformed request: POST /v1/models/m"),
        ("POST", "/v1/models/m/metadata", 400, "Malformed request: POST /v1/models/m/metadata"),
        ("POST", "/v1/models/m:explain", 400, "Malformed request: POST /v1/models/m:explain"),
        ("DELETE", "/v1/models/m", 405, "/v1/models/m takes GET, HEAD, OPTIONS, not DELETE"),
        ("GET", "/v1/models/m/versions/x", 400, "Malformed request: GET /v1/models/m/versions/x"),
        ("GET", "/v1/x", 400, "Malformed request: GET /v1/x"),
        ("GET", f"/v1/models/m/versions/{2**63}", 400, f"Failed to convert version: {2**63} to numeric."),
    ],
)
def test_the_words_for_what_is_wrong(method: str, path: str, status: int, told: str):
    reply = asked(method, path, None if method == "GET" else b"{}")
    assert (reply.status, reply.json) == (status, {"error": told})
    assert reply.headers["content-type"] == "application/json"


def test_the_content_type_means_nothing():
    reply = asked("POST", "/v1/models/m:predict", BODY, Content_Type="application/x-www-form-urlencoded")
    assert (reply.status, reply.json) == (200, PREDICTED)


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/v1/models/m", "/v1/anything"])
def test_options(path: str):
    assert asked("OPTIONS", path, Origin="https://test").status == 200
    reply = asked("OPTIONS", path)
    if path == "/v1/anything":
        assert (reply.status, reply.json) == (400, {"error": "Malformed request: OPTIONS /v1/anything"})
    else:
        assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize("profile", ["native", "tensorflow-serving"])
def test_figures_at_the_path_of_tensorflow_serving(profile: str):
    found = served(profile)
    found.request("POST", "/v1/models/m:predict", BODY)
    reply = found.request("GET", "/monitoring/prometheus/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert b'rowserve_rows_total{model="m",outcome="hit",protocol="tensorflow_serving"' in reply.body


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_examples_are_read_on_the_pool_where_they_are_many(verb: str):
    found = served()
    found.api.limits = Limits(pool_parse_bytes=10)
    client = found.connect()
    body = b'{"examples": [{"a": 1}]}'
    client.send(b"POST /v1/models/m:%b HTTP/1.1\r\nHost: h\r\nContent-Length: 24\r\n\r\n%b" % (verb.encode(), body))
    assert len(found.pool.calls) == 1
    found.pool.step_all()
    reply = client.reply()
    assert reply.status == 400  # the model takes no examples
    assert "found in SignatureDef: serving_default" in reply.json["error"]


# A real model in a real server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("serving")
    RECIPES["judged_examples"](home / "models" / "judge" / "1")
    with server("--models", str(home / "models"), "--cache", str(home / "cache"), program=REAL) as address:
        yield f"{address}/v1/models/judge"


def results(url: str, verb: str, *examples: dict[str, Any], **more: Any) -> tuple[Any, str]:
    """The results, and where their rows came from."""
    reply = requests.post(f"{url}:{verb}", json={"examples": examples, **more}, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()["results"], reply.headers["Cache-Status"]


@pytest.mark.slow
def test_classified_rows_are_kept(url: str):
    first, second, third = ({"n": 1.5, "word": "cat"}, {"word": "dog", "n": -2.5}, {"n": 9.5, "word": "emu"})
    cat, dog, emu = (
        [["not cat", -1.5], ["cat", 1.5]],
        [["not dog", 2.5], ["dog", -2.5]],
        [["not emu", -9.5], ["emu", 9.5]],
    )
    asking = {"signature_name": "classify"}
    assert results(url, "classify", first, second, **asking) == ([cat, dog], 'rowserve; fwd=miss; detail="computed=2"')
    turned = dict(reversed(first.items()))  # the order of the features is no part of a row
    assert results(url, "classify", second, turned, **asking) == ([dog, cat], "rowserve; hit")
    told, cache = results(url, "classify", first, third, second, **asking)
    assert told == [cat, emu, dog]
    assert cache == 'rowserve; fwd=partial; detail="hit=2 computed=1"'
    told, _ = results(url, "classify", first, signature_name="scores")
    assert told == [[["", -1.5], ["", 1.5]]]


@pytest.mark.slow
def test_regressed_rows_are_kept(url: str):
    asking = {"signature_name": "regress"}
    assert results(url, "regress", {"n": 0.1}, {"n": 3.5}, **asking)[0] == [0.2, 7.0]
    told, cache = results(url, "regress", {"n": 3.5}, {"n": 0.1}, **asking)
    assert (told, cache.partition("; detail")[0]) == ([7.0, 0.2], "rowserve; hit")
    told, cache = results(url, "regress", {"n": 3.5}, {"n": 4.5}, **asking)
    assert (told, cache.partition("; detail")[0]) == ([7.0, 9.0], "rowserve; fwd=partial")


@pytest.mark.slow
def test_a_context_is_part_of_the_row(url: str):
    told, _ = results(
        url, "classify", {"n": 1.5}, {"n": 2.5, "word": "own"}, context={"word": "all"}, signature_name="classify"
    )
    assert told == [[["not all", -1.5], ["all", 1.5]], [["not own", -2.5], ["own", 2.5]]]


@pytest.mark.slow
def test_an_example_that_the_model_refuses(url: str):
    reply = requests.post(f"{url}:regress", json={"examples": [{"n": "text"}], "signature_name": "regress"}, timeout=60)
    assert reply.status_code == 400
    assert json.loads(reply.text)["error"]


@pytest.mark.slow
def test_the_metadata_of_a_real_model(url: str):
    told = requests.get(f"{url}/metadata", timeout=60).json()["metadata"]["signature_def"]["signature_def"]
    assert told["classify"]["inputs"]["inputs"]["dtype"] == "DT_STRING"
    assert set(told["classify"]["outputs"]) == {"classes", "scores"}
    assert set(told) >= {"classify", "scores", "regress"}
