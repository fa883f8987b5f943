"""Where several protocols want one path: which answer each profile gives, to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rowserve.handlers.open_inference_messages import ServerMetadataResponse
from rowserve.server.listener import ApiSite
from rowserve.server.open_inference_grpc import OpenInference
from rowserve.server.profiles import PROFILES, router
from tests.http_doubles import Reply, Server, form

NATIVE, TENSORFLOW, KSERVE, TORCHSERVE = "native", "tensorflow-serving", "kserve", "torchserve"
ALL = (NATIVE, TENSORFLOW, KSERVE, TORCHSERVE, "triton", "mlserver")
STATUS = [
    {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for version in ("2", "1")
]
ROWS = [{"double": [2.0, 4.0], "sum": 3.0}]
COLUMNS = {"double": [[2.0, 4.0]], "sum": [3.0]}


def served(profile: str) -> Server:
    server = Server()
    server.site = ApiSite(server.api, profile)
    return server


def asked(profile: str, method: str, path: str, body: Any = None) -> Reply:
    return served(profile).request(method, path, None if body is None else json.dumps(body).encode())


def test_these_are_the_profiles():
    assert tuple(PROFILES) == ALL


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        (NATIVE, {"model_version_status": STATUS, "name": "m", "ready": True}),
        (TENSORFLOW, {"model_version_status": STATUS}),
        (KSERVE, {"name": "m", "ready": True}),
        (TORCHSERVE, {"name": "m", "ready": True}),
    ],
)
def test_a_models_state(profile, told):
    assert asked(profile, "GET", "/v1/models/m").json == told


@pytest.mark.parametrize(
    ("profile", "status", "told"),
    [
        (NATIVE, 200, {"ready": False, "name": "m"}),
        (TENSORFLOW, 200, {}),
        (KSERVE, 503, {"error": "Model with name m is not ready."}),
        (TORCHSERVE, 503, {"error": "Model with name m is not ready."}),
    ],
)
def test_the_state_of_a_model_that_loads(profile, status, told):
    server = served(profile)
    for state in server.models.versions("m"):
        state.state = "loading"
    reply = server.request("GET", "/v1/models/m")
    if status == 200:
        told = {**told, "model_version_status": [{**each, "state": "LOADING"} for each in STATUS]}
    assert (reply.status, reply.json) == (status, told)


@pytest.mark.parametrize(
    ("profile", "status", "told"),
    [
        (NATIVE, 200, {"models": ["m"]}),
        (TENSORFLOW, 400, {"error": "Missing model name in request."}),
        (KSERVE, 200, {"models": ["m"]}),
        (TORCHSERVE, 200, {"models": ["m"]}),
    ],
)
def test_the_list_of_models(profile, status, told):
    reply = asked(profile, "GET", "/v1/models")
    assert (reply.status, reply.json) == (status, told)


@pytest.mark.parametrize("profile", ALL)
def test_predict_by_rows_is_the_same_for_all(profile):
    reply = asked(profile, "POST", "/v1/models/m:predict", {"instances": [[1, 2]]})
    assert (reply.status, reply.json) == (200, {"predictions": ROWS})


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        (NATIVE, {"outputs": COLUMNS}),
        (TENSORFLOW, {"outputs": COLUMNS}),
        (KSERVE, {"predictions": ROWS}),
        (TORCHSERVE, {"predictions": ROWS}),
    ],
)
def test_predict_with_inputs(profile, told):
    assert asked(profile, "POST", "/v1/models/m:predict", {"inputs": [[1, 2]]}).json == told


@pytest.mark.parametrize(
    ("profile", "status", "told"),
    [
        (NATIVE, 404, "Servable not found for request: Latest(no)"),
        (TENSORFLOW, 404, "Servable not found for request: Latest(no)"),
        (KSERVE, 404, "Model with name no does not exist."),
        (TORCHSERVE, 404, "Model with name no does not exist."),
    ],
)
def test_predict_of_an_unknown_model(profile, status, told):
    reply = asked(profile, "POST", "/v1/models/no:predict", {"instances": [1]})
    assert (reply.status, reply.json) == (status, {"error": told})


@pytest.mark.parametrize(
    ("profile", "status", "told"),
    [
        (NATIVE, 501, {"error": "Model with name m has no explainer."}),
        (TENSORFLOW, 400, {"error": "Malformed request: POST /v1/models/m:explain"}),
        (KSERVE, 501, {"error": "Model with name m has no explainer."}),
        (TORCHSERVE, 501, {"error": "Model with name m has no explainer."}),
    ],
)
def test_explain(profile, status, told):
    reply = asked(profile, "POST", "/v1/models/m:explain", {})
    assert (reply.status, reply.json) == (status, told)


@pytest.mark.parametrize(
    ("profile", "status", "told"),
    [
        (NATIVE, 400, {"error": "Malformed request: GET /v1/nothing"}),
        (TENSORFLOW, 400, {"error": "Malformed request: GET /v1/nothing"}),
        (KSERVE, 404, {"detail": "Not Found"}),
        (TORCHSERVE, 404, {"detail": "Not Found"}),
    ],
)
def test_an_unknown_path_under_v1(profile, status, told):
    reply = asked(profile, "GET", "/v1/nothing")
    assert (reply.status, reply.json) == (status, told)


@pytest.mark.parametrize("profile", ALL)
def test_the_root_by_get(profile):
    told = asked(profile, "GET", "/").json
    if profile == KSERVE:
        assert told == {"status": "alive"}
    else:
        assert set(told) == {"status", "Name", "Version", "Server", "Description", "Inputs", "Outputs"}
        assert (told["status"], told["Name"]) == ("alive", "m")


@pytest.mark.parametrize("profile", ALL)
def test_the_root_by_post_is_told_by_its_type(profile):
    uploads = served(profile).request("POST", "/", form(b"four"), Content_Type="multipart/form-data; boundary=B")
    assert (uploads.status, uploads.json) == (200, [["first", 8.0], ["second", 2.0]])
    tensors = served(profile).request("POST", "/", b"no flatbuffer")
    assert (tensors.status, tensors.headers["content-type"].partition(";")[0]) == (400, "text/plain")


@pytest.mark.parametrize("profile", ALL)
def test_a_post_below_models_is_torchserves(profile):
    assert asked(profile, "POST", "/models/m/invoke", [1, 2]).json == {"second": 4.0, "first": 2.0}
    told = asked(profile, "POST", "/models?url=m.mar").json
    assert (told["code"], told["type"]) == (405, "ModelsManagedByFilesException")


@pytest.mark.parametrize("profile", ALL)
def test_errors_have_the_form_of_their_protocol(profile):
    def error(method: str, path: str) -> tuple[int, Any]:
        reply = asked(profile, method, path, {})
        kind = reply.headers["content-type"].partition(";")[0]
        return reply.status, set(reply.json) if kind == "application/json" else kind

    assert error("POST", "/predictions/no") == (404, {"code", "type", "message"})
    assert error("POST", "/predictions/m/1/x/y") == (404, {"code", "type", "message"})
    assert error("POST", "/v1/models/no:predict") == (404, {"error"})
    assert error("GET", "/v1/models/no") == (404, {"error"})
    assert error("POST", "/graphpipe/no") == (404, "text/plain")
    assert error("GET", "/nothing") == (404, "application/problem+json")
    assert error("POST", "/images/no") == (404, "application/problem+json")


@pytest.mark.parametrize("profile", ALL)
def test_a_query_that_cannot_be_parsed_is_told_in_the_form_of_the_path(profile):
    def kind(path: str) -> tuple[int, str]:
        reply = asked(profile, "GET", f"{path}?{'&'.join('a' * 101)}")
        return reply.status, reply.headers["content-type"].partition(";")[0]

    assert kind("/v1/models/m") == kind("/v2/models/m") == kind("/models/m") == (400, "application/json")
    assert kind("/graphpipe/m") == (400, "text/plain")
    assert kind("/livez") == (400, "application/problem+json")


@pytest.mark.parametrize("profile", ALL)
def test_open_inference_is_the_same_for_all(profile):
    server = served(profile)
    assert set(server.request("GET", "/v2").json) >= {"name", "version", "extensions"}
    missing = server.request("GET", "/v2/models/no")
    assert (missing.status, set(missing.json)) == (404, {"error"})
    assert set(server.request("GET", "/v2/nothing").json) == {"error"}
    ready = server.request("GET", "/v2/models/m/ready")
    assert (ready.status, ready.json) == (200, {"name": "m", "ready": True})


@pytest.mark.parametrize("profile", ALL)
def test_what_is_not_ready_is_a_503_for_all_who_look_at_the_status_only(profile):
    server = served(profile)
    for state in server.models.versions("m"):
        state.state = "loading"
    paths = ("/readyz", "/v2/health/ready", "/v2/models/m/ready", "/control/is_ready")
    assert [server.request("GET", path).status for path in paths] == [503] * len(paths)
    assert server.request("GET", "/ping").status == 500  # TorchServe's own


@pytest.mark.parametrize("profile", ALL)
def test_figures_are_where_prometheus_looks(profile):
    for path in ("/metrics", "/monitoring/prometheus/metrics"):
        assert b"rowserve_rows_total" in asked(profile, "GET", path).body


@pytest.mark.parametrize("profile", ALL)
def test_native_routes_are_there_in_every_profile(profile):
    there = {(route.method, route.path) for route in router(profile).routes}
    assert {("POST", "/images/{model}"), ("POST", "/rows/{model}"), ("GET", "/livez"), ("GET", "/readyz")} <= there


@pytest.mark.parametrize(("profile", "name"), [("triton", "triton"), ("mlserver", "mlserver"), ("kserve", "rowserve")])
def test_the_servers_name(profile, name):
    for path in ("/v2", "/v2/"):
        told = asked(profile, "GET", path).json
        assert told["name"] == name
        assert "binary_tensor_data" in told["extensions"]


@pytest.mark.parametrize(("profile", "name"), [("triton", "triton"), ("mlserver", "mlserver"), ("kserve", "rowserve")])
def test_grpc_tells_the_same_name(profile, name):
    server = served(profile)
    told = OpenInference(server.models, server.metrics, profile).server_metadata(b"", {})
    assert ServerMetadataResponse.FromString(told).name == name


@pytest.mark.parametrize(
    ("profile", "name", "version", "told"),
    [
        ("triton", "no", "", "Request for unknown model: 'no' is not found"),
        ("kserve", "no", "/versions/3", "Request for unknown model: 'no' version 3 is not found"),
        ("mlserver", "no", "", "Model no not found"),
        ("mlserver", "it's", "", "Model it's not found"),
        ("mlserver", "m", "/versions/3", "Model m with version 3 not found"),
    ],
)
def test_a_model_that_is_not_there_in_the_servers_words(profile, name, version, told):
    reply = asked(profile, "POST", f"/v2/models/{name}{version}/infer", {})
    assert (reply.status, reply.json) == (404, {"error": told})
