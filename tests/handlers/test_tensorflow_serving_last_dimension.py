"""A last dimension of 1 that a client of TensorFlow Serving leaves out, in every form of a predict."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import json_pieces
from rowserve.handlers.items import Answer, ModelFace, Options, Outcome
from rowserve.handlers.kserve import read_predict as read_kserve
from rowserve.handlers.predict_plan import plan_of
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensor_protos import Budget, read_tensor, tensor_parts
from rowserve.handlers.tensorflow_messages import PredictRequest, PredictResponse, TensorProto
from rowserve.handlers.tensorflow_serving import encode_predict, read_predict
from rowserve.handlers.tensorflow_serving_grpc import predict_question
from rowserve.handlers.tensorflow_serving_grpc import read_predict as read_grpc

ROOM = 1 << 20
HALF = Signature("serving_default", (TensorSpec("x", "float32", (1,)),), (TensorSpec("y", "float32", (1,)),))
PAIR = Signature(
    "serving_default",
    (TensorSpec("s", "string", (1,)), TensorSpec("x", "float32", (2, 1))),
    (TensorSpec("text", "string", (1,)), TensorSpec("wide", "float32", (2,))),
)


def face(signature: Signature) -> ModelFace:
    return ModelFace("m", 1, {"serving_default": signature})


def asked(body: Any, signature: Signature = HALF) -> Any:
    return read_predict(face(signature), json.dumps(body).encode())


def answer(signature: Signature, **outputs: Any) -> Answer:
    layout = RowLayout(signature.outputs)
    arrays = {spec.name: np.array(outputs[spec.name], spec.numpy_dtype) for spec in signature.outputs}
    count = len(next(iter(arrays.values())))
    return Answer(layout, [*layout.pack(arrays, count)], [Outcome.HIT] * count)


def given(rows: Rows) -> dict[str, Any]:
    return {name: array.tolist() for name, array in rows.arrays.items()}


def packed(rows: Rows, signature: Signature = HALF) -> list[bytes]:
    """What the keys are made of."""
    return [bytes(row) for row in RowLayout(signature.row_inputs).pack(rows.arrays, rows.count)]


def test_rows_and_columns_are_the_rows_of_the_declared_shape() -> None:
    (whole,) = asked({"instances": [[1.0], [2.0], [5.0]]}).items
    for body in ({"instances": [1.0, 2.0, 5.0]}, {"instances": [{"x": 1}, {"x": 2}, {"x": 5}]}, {"inputs": [1, 2, 5]}):
        request = asked(body)
        (rows,) = request.items
        assert rows.arrays["x"].shape == (3, 1)
        assert packed(rows) == packed(whole)
        assert request.flat


def test_long_lists_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pieces, "PIECE", 256)
    monkeypatch.setattr("rowserve.handlers.tensorflow_serving_json.PIECE", 256)
    numbers = [number / 2 for number in range(400)]
    for key in ("instances", "inputs"):
        request = asked({key: numbers})
        assert [value for rows in request.items for value in rows.arrays["x"].ravel().tolist()] == numbers
        assert all(rows.arrays["x"].shape[1:] == (1,) for rows in request.items)


def test_outputs_go_the_way_the_inputs_came() -> None:
    told = answer(HALF, y=[[2.5], [3.0], [4.5]])
    assert json.loads(encode_predict(asked({"instances": [1, 2, 5]}), told).body) == {"predictions": [2.5, 3.0, 4.5]}
    assert json.loads(encode_predict(asked({"inputs": [1, 2, 5]}), told).body) == {"outputs": [2.5, 3.0, 4.5]}
    whole = json.loads(encode_predict(asked({"instances": [[1], [2], [5]]}), told).body)
    assert whole == {"predictions": [[2.5], [3.0], [4.5]]}


def test_each_input_is_looked_at_by_itself_and_only_outputs_of_one_element_a_row_change() -> None:
    request = asked({"instances": [{"s": "a", "x": [[1], [2]]}, {"s": "b", "x": [[3], [4]]}]}, PAIR)
    (rows,) = request.items
    assert given(rows) == {"s": [[b"a"], [b"b"]], "x": [[[1], [2]], [[3], [4]]]}
    told = answer(PAIR, text=[[b"u"], [b"v"]], wide=[[1, 2], [3, 4]])
    rows_told = json.loads(encode_predict(request, told).body)["predictions"]
    assert rows_told == [{"text": "u", "wide": [1, 2]}, {"text": "v", "wide": [3, 4]}]
    columns = asked({"inputs": {"s": [["a"]], "x": [[1, 2]]}}, PAIR)
    assert given(columns.items[0]) == {"s": [[b"a"]], "x": [[[1], [2]]]}


@pytest.mark.parametrize("rows", [[[1.0], 2.0], [1.0, [2.0]], [[1.0, 2.0]], [[[1.0]]], [None], ["1"]])
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_whatever_else_does_not_fit_is_refused(key: str, rows: Any) -> None:
    with pytest.raises(Problem) as caught:
        asked({key: rows})
    assert caught.value.status == 400


def test_a_sentence_about_levels_does_not_contradict_itself() -> None:
    two = Signature("serving_default", (TensorSpec("x", "float32", (2,)),), HALF.outputs)
    for body, told in (
        ({"instances": [1.0, 2.0]}, "1.0 found at incorrect level: 0 in the JSON DOM. Expected at level: 1"),
        ({"inputs": [1.0, 2.0]}, "1.0 found at incorrect level: 1 in the JSON DOM. Expected at level: 2"),
    ):
        with pytest.raises(Problem) as caught:
            asked(body, two)
        assert told in caught.value.detail


def test_only_a_size_of_1_that_is_declared_is_added() -> None:
    for shape in ((None,), (2,), (1, 2)):
        free = Signature("serving_default", (TensorSpec("x", "float32", shape),), HALF.outputs)
        with pytest.raises(Problem):
            asked({"instances": [1.0, 2.0]}, free)


def test_kserve_takes_no_such_rows() -> None:
    with pytest.raises(Problem):
        read_kserve(face(HALF), {}, b'{"instances": [1.0, 2.0]}')


def message(array: Any, *, typed: bool = True) -> bytes:
    tensor = TensorProto.FromString(b"".join(tensor_parts(array)))
    if not typed:
        shape = {"dim": [{"size": size} for size in array.shape]}
        tensor = TensorProto(dtype=tensor.dtype, tensor_shape=shape, tensor_content=array.tobytes())
    return PredictRequest(model_spec={"name": "m"}, inputs={"x": tensor}).SerializeToString()


def test_grpc_alike() -> None:
    array = np.array([1, 2, 5], np.float32)
    for flat in (True, False):
        question = predict_question(face(HALF), read_grpc(message(array if flat else array[:, None])), Options(), ROOM)
        (rows,) = question.items
        assert isinstance(rows, Rows)
        assert rows.arrays["x"].shape == (3, 1)
        told = PredictResponse.FromString(question.encode(answer(HALF, y=[[2.5], [3.0], [4.5]]))).outputs["y"]
        found = read_tensor(memoryview(told.SerializeToString()), Budget(ROOM))
        assert found.tolist() == ([2.5, 3.0, 4.5] if flat else [[2.5], [3.0], [4.5]])
    with pytest.raises(Problem):
        predict_question(face(HALF), read_grpc(message(array[:, None, None])), Options(), ROOM)


def test_a_layout_that_is_remembered_gives_the_declared_shape_too() -> None:
    data = message(np.array([1, 2, 5], np.float32), typed=False)
    request = read_grpc(data)
    question = predict_question(face(HALF), request, Options(), ROOM)
    plan = plan_of(data, request.spec, face(HALF), question)
    assert plan is not None
    (rows,) = plan.question(data, Options()).items
    assert isinstance(rows, Rows)
    assert rows.arrays["x"].tolist() == [[1], [2], [5]]
    told = PredictResponse.FromString(plan.encode(answer(HALF, y=[[1], [2], [3]]))).outputs["y"]
    assert len(told.tensor_shape.dim) == 1
