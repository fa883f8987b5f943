"""TorchServe's ping, list and description of models; its form of errors."""

from __future__ import annotations

import json

import pytest

from rowserve.handlers.problem import Problem
from rowserve.handlers.torchserve_models import ModelAccount, encode_list, encode_models, encode_ping
from rowserve.handlers.torchserve_texts import bad_request, by_files, encode_error, model_not_found, version_not_found

NO_VERSION = "Model version: 2 does not exist for model: x"


def test_ping():
    assert (encode_ping(True).status, encode_ping(True).body) == (200, b'{\n  "status": "Healthy"\n}\n')
    assert (encode_ping(False).status, json.loads(encode_ping(False).body)) == (500, {"status": "Unhealthy"})


@pytest.mark.parametrize(
    ("query", "names", "token"),
    [
        ({}, "abc", None),
        ({"limit": ["2"]}, "ab", "2"),
        ({"limit": ["2"], "next_page_token": ["2"]}, "c", None),
        ({"limit": ["3"]}, "abc", None),
        ({"limit": ["-1"]}, "abc", None),
        ({"limit": ["no"], "next_page_token": ["1"]}, "bc", None),
        ({"next_page_token": ["-4"]}, "abc", None),
        ({"next_page_token": ["99999999999999999999"]}, "abc", None),
        ({"next_page_token": ["7"]}, "", None),
    ],
)
def test_list(query, names, token):
    told = json.loads(encode_list(["a", "b", "c"], query).body)
    assert told["models"] == [{"modelName": name, "modelUrl": name} for name in names]
    assert told.get("nextPageToken") == token


def test_description():
    (told,) = json.loads(encode_models([ModelAccount("m", 3, True, 32, 5, 7, 4089)]).body)
    assert told == {
        "modelName": "m",
        "modelVersion": "3",
        "modelUrl": "m",
        "runtime": "tensorflow",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 32,
        "maxBatchDelay": 5,
        "loadedAtStartup": True,
        "workers": [{"id": "graph", "status": "READY", "gpu": False, "gpuUsage": "N/A"}],
        "jobQueueStatus": {"remainingCapacity": 4089, "pendingRequests": 7},
    }
    states = json.loads(encode_models([ModelAccount("m", 2, None), ModelAccount("m", 1, False)]).body)
    assert [each["workers"][0]["status"] for each in states] == ["LOADING", "STOPPED"]


@pytest.mark.parametrize(
    ("problem", "code", "kind", "message"),
    [
        (bad_request("why"), 400, "BadRequestException", "why"),
        (Problem(400, "why"), 400, "BadRequestException", "why"),
        (Problem(422, "no picture"), 422, "BadRequestException", "no picture"),
        (model_not_found("x"), 404, "ModelNotFoundException", "Model not found: x"),
        (version_not_found("x", "2"), 404, "ModelVersionNotFoundException", NO_VERSION),
        (
            Problem(404, "there is nothing"),
            404,
            "ResourceNotFoundException",
            "Requested resource is not found, please refer to API document.",
        ),
        (
            Problem(405, "GET only"),
            405,
            "MethodNotAllowedException",
            "Requested method is not allowed, please refer to API document.",
        ),
        (Problem(503, "full"), 503, "ServiceUnavailableException", "full"),
        (Problem(504, "late"), 504, "RequestTimeoutException", "late"),
        (Problem(500, "broke"), 500, "InternalServerException", "broke"),
    ],
)
def test_errors(problem, code, kind, message):
    encoded = encode_error(problem)
    assert json.loads(encoded.body) == {"code": code, "type": kind, "message": message}
    assert encoded.body.startswith(b'{\n  "code"')
    assert encoded.body.endswith(b"}\n")
    assert encoded.status == code
    assert dict(encoded.headers)["Content-Type"] == "application/json"


def test_what_is_managed_by_files_says_so_and_when_to_come_again():
    told = json.loads(encode_error(by_files("register")).body)
    assert told["code"] == 405
    assert "managed by files" in told["message"]
    assert ("Retry-After", "2") in encode_error(Problem(503, "full", retry_after=1.5)).headers
