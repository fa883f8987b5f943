"""Version 0 in every path and message that names one: whichever version answers by default, by its real number."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rowserve.handlers.open_inference_messages import ModelMetadataResponse
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import head
from rowserve.handlers.tensor_protos import tensor_parts
from rowserve.handlers.tensorflow_messages import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
    TensorProto,
)
from rowserve.server.listener import ApiSite
from rowserve.server.open_inference_grpc import OpenInference
from rowserve.server.tensorflow_serving_grpc import TensorFlowServing
from tests.handlers.graphpipe_requests import METADATA
from tests.http_doubles import Server
from tests.server.test_http_pipeline import RealServer

SPEC = {"name": "m", "version": {"value": 0}}
INSTANCES = b'{"instances": [[1, 2]]}'
TENSOR = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


@pytest.fixture
def server() -> Server:
    """Version 2 answers."""
    return Server()


def asked(server: Server, method: str, path: str, body: bytes | None = None, profile: str = "native") -> Any:
    server.site = ApiSite(server.api, profile)
    reply = server.request(method, path, body)
    assert reply.status == 200, reply.body
    return reply.json


def test_tensorflow_serving(server: Server) -> None:
    assert "predictions" in asked(server, "POST", "/v1/models/m/versions/0:predict", INSTANCES)
    assert asked(server, "GET", "/v1/models/m/versions/0/metadata")["model_spec"]["version"] == "2"
    (status,) = asked(server, "GET", "/v1/models/m/versions/0")["model_version_status"]
    assert (status["version"], status["state"]) == ("2", "AVAILABLE")
    reply = server.request("GET", "/v1/models/nothing/versions/0")
    assert (reply.status, reply.json["error"]) == (404, "Could not find any versions of model nothing")


def test_tensorflow_serving_over_grpc(server: Server) -> None:
    service = TensorFlowServing(server.models, 1 << 20)
    tensor = TensorProto.FromString(b"".join(tensor_parts(np.ones((1, 2), np.float32))))
    question: Any = service.predict(PredictRequest(model_spec=SPEC, inputs={"x": tensor}).SerializeToString(), {})
    answer: Any = server.pipeline.answer(
        question.served, question.question.signature, question.question.items, question.question.options
    )
    told = PredictResponse.FromString(question.question.encode(answer))
    assert told.model_spec.version.value == 2
    about = service.metadata(
        GetModelMetadataRequest(model_spec=SPEC, metadata_field=["signature_def"]).SerializeToString(), {}
    )
    assert GetModelMetadataResponse.FromString(about).model_spec.version.value == 2
    status = service.status(GetModelStatusRequest(model_spec=SPEC).SerializeToString(), {})
    (one,) = GetModelStatusResponse.FromString(status).model_version_status
    assert (one.version, one.state) == (2, 30)


def test_open_inference(server: Server) -> None:
    told = asked(server, "POST", "/v2/models/m/versions/0/infer", json.dumps(TENSOR).encode())
    assert told["model_version"] == "2"
    assert asked(server, "GET", "/v2/models/m/versions/0")["name"] == "m"
    assert asked(server, "GET", "/v2/models/m/versions/0/ready")["ready"]


def test_the_native_routes_graphpipe_and_torchserve(server: Server) -> None:
    (row,) = server.request("POST", "/rows/m/versions/0", b"[1, 2]\n").lines
    assert "top" in row
    assert server.request("POST", "/graphpipe/m/versions/0", METADATA).status == 200
    assert asked(server, "POST", "/predictions/m/0", b"[1, 2]", "torchserve")
    (described,) = asked(RealServer(), "GET", "/models/m/0", None, "torchserve")
    assert described["modelVersion"] == "1"  # the second is broken there


def test_open_inference_over_grpc(server: Server) -> None:
    service: Any = OpenInference(server.models, server.metrics)
    message = head(1, 1) + b"m" + head(2, 1) + b"0"
    assert list(ModelMetadataResponse.FromString(service.model_metadata(message, {})).versions) == ["1", "2"]
    with pytest.raises(Problem):
        service.model_metadata(head(1, 1) + b"m" + head(2, 1) + b"9", {})
