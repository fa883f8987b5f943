"""Which signature answers: the one a request names, else the one of the model's card, else serving_default."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from rowserve.handlers.open_inference_messages import ModelMetadataResponse
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import head
from rowserve.server.open_inference_grpc import OpenInference
from tests.handlers.graphpipe_requests import METADATA, answered, infer_request
from tests.http_doubles import OTHER, SIGNATURE, Server

triton: Any = service_pb2
TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
EMBED, SCORE = replace(SIGNATURE, name="embed"), replace(OTHER, name="score")


def serving(default: str = "serving_default") -> Server:
    """A model of the signatures embed (double, sum) and score (only), and that default."""
    server = Server()
    for state in server.models.states():
        model: Any = state.model
        model.face = replace(
            model.face, signatures={"embed": EMBED, "score": SCORE}, default=default, labels=None, decoders={}
        )
    return server


def infer(server: Server, **more: Any) -> Any:
    return server.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [TENSOR], **more}).encode())


def outputs(reply: Any) -> list[str]:
    assert reply.status == 200, reply.body
    return [output["name"] for output in reply.json["outputs"]]


def test_a_request_parameter_of_open_inference_names_it() -> None:
    for server in (serving(), serving("score")):
        assert outputs(infer(server, parameters={"signature_name": "embed"})) == ["double", "sum"]
        assert outputs(infer(server, parameters={"signature_name": "score"})) == ["only"]


def test_with_binary_tensors_too_and_again() -> None:
    server = serving()
    blob = np.ones((1, 2), np.float32).tobytes()
    for name, wanted in 2 * (("embed", ["double", "sum"]), ("score", ["only"])):
        tensor = {**TENSOR, "parameters": {"binary_data_size": len(blob)}}
        del tensor["data"]
        text = json.dumps({"inputs": [tensor], "parameters": {"signature_name": name}}).encode()
        lengths = {"Inference-Header-Content-Length": str(len(text))}
        assert outputs(server.request("POST", "/v2/models/m/infer", text + blob, **lengths)) == wanted


def test_without_a_name_the_cards_answers_or_the_error_says_how_to_name_one() -> None:
    assert outputs(infer(serving("score"))) == ["only"]
    for reply in (infer(serving()), serving().request("GET", "/v2/models/m")):
        assert reply.status == 400
        for word in ("embed, score", "signature_name", "card"):
            assert word in reply.json["error"]
    reply = infer(serving(), parameters={"signature_name": "nothing"})
    assert (reply.status, "nothing" in reply.json["error"]) == (400, True)
    assert infer(serving(), parameters={"signature_name": 5}).status == 400


def test_metadata_tells_of_that_one_and_lists_the_others() -> None:
    told = serving("score").request("GET", "/v2/models/m").json
    assert [output["name"] for output in told["outputs"]] == ["only"]
    assert told["parameters"] == {"signature_name": "score", "other_signatures": "embed"}
    asked = serving().request("GET", "/v2/models/m?signature_name=embed").json
    assert [output["name"] for output in asked["outputs"]] == ["double", "sum"]


def test_over_grpc_alike() -> None:
    server = serving("score")
    service: Any = OpenInference(server.models, server.metrics)
    told = ModelMetadataResponse.FromString(service.model_metadata(head(1, 1) + b"m", {}))
    assert [output.name for output in told.outputs] == ["only"]
    assert told.parameters["other_signatures"].string_param == "embed"
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}
    for parameters, name in ({}, "score"), ({"signature_name": {"string_param": "embed"}}, "embed"):
        message = triton.ModelInferRequest(model_name="m", inputs=[tensor], parameters=parameters)
        assert service.infer(message.SerializeToString(), {}).question.signature.name == name
    with pytest.raises(Problem, match="embed, score"):
        message = triton.ModelInferRequest(model_name="m", parameters={"signature_name": {"string_param": "no"}})
        service.infer(message.SerializeToString(), {})


def test_the_cards_is_that_of_every_other_protocol() -> None:
    server = serving("score")
    assert server.request("POST", "/v1/models/m:predict", b'{"instances": [[1, 2]]}').json["predictions"] == [[1, 2]]
    (tensor,) = answered(server.request("POST", "/graphpipe/m", infer_request([np.ones((1, 2), np.float32)])).body)
    assert tensor.tolist() == [[1, 1]]
    assert b"signature score" in server.request("POST", "/graphpipe/m", METADATA).body
    assert server.request("POST", "/predictions/m", b"[1, 2]").json == [1, 2]
    (row,) = server.request("POST", "/rows/m", b"[1, 2]\n").lines
    assert row["outputs"] == {"only": [1, 2]}


def test_the_platform_is_what_runs_the_model() -> None:
    server = serving("score")
    assert server.request("GET", "/v2/models/m").json["platform"] == "tensorflow_savedmodel"
    for state in server.models.states():
        model: Any = state.model
        model.face = replace(model.face, engine="openvino")
    assert server.request("GET", "/v2/models/m").json["platform"] == "openvino"
    service: Any = OpenInference(server.models, server.metrics)
    assert ModelMetadataResponse.FromString(service.model_metadata(head(1, 1) + b"m", {})).platform == "openvino"
