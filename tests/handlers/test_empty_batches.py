"""Batches without a row, in every protocol that carries tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.empty_batches import MOST_BYTES, question_of
from rowserve.handlers.graphpipe import read_request
from rowserve.handlers.items import Answer, ModelFace, Options, Outcome
from rowserve.handlers.open_inference import read_infer
from rowserve.handlers.open_inference_grpc import infer_question
from rowserve.handlers.open_inference_grpc import read_infer as read_grpc_infer
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensor_protos import tensor_parts
from rowserve.handlers.tensorflow_messages import PredictRequest, PredictResponse, TensorProto
from rowserve.handlers.tensorflow_serving_grpc import predict_question, read_predict
from tests.handlers.graphpipe_requests import answered, infer_request

triton: Any = service_pb2
FREE = Signature("serving_default", (TensorSpec("x", "float32", (None,)),), (TensorSpec("y", "float32", (None,)),))
FACE = ModelFace("m", 1, {"serving_default": FREE})
NONE = np.empty((0, 3), np.float32)


def graphpipe() -> Any:
    question: Any = read_request(FACE, {}, infer_request([NONE]))
    return question, lambda encoded: answered(encoded.body)[0].shape


def open_inference() -> Any:
    tensor = {"name": "x", "shape": [0, 3], "datatype": "FP32", "data": []}
    question = read_infer(FACE, {}, json.dumps({"inputs": [tensor]}).encode())
    return question, lambda encoded: tuple(json.loads(encoded.body)["outputs"][0]["shape"])


def open_inference_grpc() -> Any:
    tensor = {"name": "x", "shape": [0, 3], "datatype": "FP32"}
    message = triton.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=[b""])
    question = infer_question(FACE, read_grpc_infer(message.SerializeToString()), Options())
    return question, lambda raw: tuple(triton.ModelInferResponse.FromString(raw).outputs[0].shape)


def tensorflow_serving() -> Any:
    tensor = TensorProto.FromString(b"".join(tensor_parts(NONE)))
    message = PredictRequest(model_spec={"name": "m"}, inputs={"x": tensor}).SerializeToString()
    question = predict_question(FACE, read_predict(message), Options(), 1 << 20)

    def shape(raw: bytes) -> tuple[int, ...]:
        dims = PredictResponse.FromString(raw).outputs["y"].tensor_shape.dim
        return tuple(dim.size for dim in dims)

    return question, shape


@pytest.mark.parametrize("door", [graphpipe, open_inference, open_inference_grpc, tensorflow_serving])
def test_the_answer_has_the_shape_of_that_input(door: Callable[[], Any]) -> None:
    question, shape = door()
    (rows,) = question.items
    assert rows.arrays["x"].tolist() == [[0, 0, 0]]
    packed: Any = RowLayout(FREE.outputs).pack({"y": np.zeros((1, 6), np.float32)}, 1)
    assert shape(question.encode(Answer(RowLayout(FREE.outputs), packed, [Outcome.COMPUTED]))) == (0, 6)


def test_where_zeros_are_refused_the_shape_is_the_declared_one() -> None:
    question, shape = graphpipe()
    refused = Answer(RowLayout(FREE.outputs), [None], [Outcome.FAILED], {0: Problem(422, "zeros")})
    assert shape(question.encode(refused)) == (0, 0)


def asked(signature: Signature, rows: Rows) -> Rows:
    (item,) = question_of(signature, rows, Options(), lambda answer: None).items
    assert isinstance(item, Rows)
    return item


def test_nothing_is_asked_where_shapes_are_declared_or_would_be_large() -> None:
    none = Rows({"x": NONE}, 0)
    known = Signature("k", FREE.inputs, (TensorSpec("y", "float32", (3,)), TensorSpec("s", "string", ())))
    assert asked(known, none) is none
    wide = Rows({"x": np.empty((0, MOST_BYTES), np.float32)}, 0)
    assert asked(FREE, wide) is wide
    some = Rows({"x": np.ones((2, 3), np.float32)}, 2)
    assert asked(FREE, some) is some


def test_strings_and_static_inputs() -> None:
    static: Any = {"t": np.array(2.0)}
    made = asked(FREE, Rows({"s": np.empty((0, 2), object)}, 0, static))
    assert made.arrays["s"].tolist() == [[b"", b""]]
    assert made.static is static
