"""TensorFlow Serving's routes, status and metadata."""

from __future__ import annotations

import json

import pytest

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import ModelFace
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving_models import (
    Route,
    VersionState,
    encode_metadata,
    encode_status,
    preflight,
    route,
)
from rowserve.handlers.tensorflow_serving_texts import servable_not_found, status_not_found


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("POST", "/v1/models/m:predict", Route("predict", "m")),
        ("POST", "/V1/Models/m:PREDICT", Route("predict", "m")),
        ("POST", "/v1/models/m/versions/12:predict", Route("predict", "m", 12)),
        ("POST", "/v1/models/a%3Ab%2Fc:classify", Route("classify", "a:b/c")),
        ("GET", "/v1/models/m", Route("status", "m")),
        ("GET", "/v1/models/m/versions/0012", Route("status", "m", 12)),
        ("GET", "/v1/models/m/metadata", Route("metadata", "m")),
        ("GET", "/v1/models/m/versions/3/metadata", Route("metadata", "m", 3)),
    ],
)
def test_routes(method: str, path: str, wanted: Route):
    assert route(method, path) == wanted


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/v1/models/m:predict", "Malformed request: GET /v1/models/m:predict"),
        ("POST", "/v1/models/m/metadata", "Malformed request: POST /v1/models/m/metadata"),
        ("POST", "/v1/models/m", "Malformed request: POST /v1/models/m"),
        ("DELETE", "/v1/models/m", "Malformed request: DELETE /v1/models/m"),
        ("GET", "/v1/models/m/versions/x", "Malformed request"),
        ("GET", "/v1/models/m/versions/1/labels/a", "Malformed request"),
        ("GET", "/v1/models", "Missing model name in request."),
        ("POST", "/v1/models/m/labels/st%61ble:predict", "Unrecognized servable version label: stable"),
        ("GET", "/v1/models/m/versions/9223372036854775808", "Failed to convert version: 9223372036854775808"),
        ("GET", f"/v1/models/m/versions/{'9' * 5000}", "Failed to convert version: "),
    ],
)
def test_what_is_no_route_is_400(method: str, path: str, words: str):
    with pytest.raises(Problem) as caught:
        route(method, path)
    assert caught.value.status == 400
    assert caught.value.detail.startswith(words)


def test_status_highest_version_first():
    got = encode_status([VersionState(2), VersionState(10, "LOADING"), VersionState(3, "END", "INTERNAL", "broken")])
    assert dict(got.headers)["Content-Type"] == "application/json"
    versions = json.loads(got.body)["model_version_status"]
    assert [(v["version"], v["state"]) for v in versions] == [("10", "LOADING"), ("3", "END"), ("2", "AVAILABLE")]
    assert versions[1]["status"] == {"error_code": "INTERNAL", "error_message": "broken"}
    assert versions[2]["status"] == {"error_code": "OK", "error_message": ""}
    assert got.body.startswith(b'{\n "model_version_status": [\n  {\n   "version": "10",')


def test_metadata():
    signature = Signature(
        "serving_default",
        (TensorSpec("k", "string", (), batched=False), TensorSpec("x", "float32", (None, 3))),
        (TensorSpec("p", "float16", (4,)), TensorSpec("q", "int64", None)),
        "tensorflow/serving/predict",
    )
    document = json.loads(encode_metadata(ModelFace("m", 7, {"serving_default": signature})).body)
    assert document["model_spec"] == {"name": "m", "signature_name": "", "version": "7"}
    told = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert told["method_name"] == "tensorflow/serving/predict"
    assert told["defaults"] == {}
    sizes = [dim["size"] for dim in told["inputs"]["x"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "-1", "3"]
    assert told["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert told["inputs"]["k"] == {
        "dtype": "DT_STRING", "name": "k:0", "tensor_shape": {"dim": [], "unknown_rank": False}
    }  # fmt: skip
    assert told["outputs"]["p"]["dtype"] == "DT_HALF"
    assert told["outputs"]["q"]["tensor_shape"] == {"dim": [], "unknown_rank": True}


def test_a_fixed_batch_is_told():
    signature = Signature("s", (TensorSpec("x", "int8", (2,)),), (), batch=1)
    document = json.loads(encode_metadata(ModelFace("m", 1, {"s": signature})).body)
    info = document["metadata"]["signature_def"]["signature_def"]["s"]["inputs"]["x"]
    assert [dim["size"] for dim in info["tensor_shape"]["dim"]] == ["1", "2"]


def test_words_for_models_that_are_not_there():
    assert servable_not_found("m", None).detail == "Servable not found for request: Latest(m)"
    assert servable_not_found("m", 50).detail == "Servable not found for request: Specific(m, 50)"
    assert status_not_found("m", None).detail == "Could not find any versions of model m"
    assert status_not_found("m", 5).detail == "Could not find version 5 of model m"
    assert servable_not_found("m", 1).status == status_not_found("m", 1).status == 404


@pytest.mark.parametrize("origin", ["http://a", "https://b.c:80"])
def test_options_of_a_browsers_preflight(origin: str):
    got = preflight(origin)
    assert got is not None
    assert (got.status, got.body, dict(got.headers)) == (200, b"", {"Content-Type": "application/json"})


@pytest.mark.parametrize("origin", ["", "null", "ftp://a"])
def test_options_of_anything_else(origin: str):
    assert preflight(origin) is None
