"""Requests whose JSON has been read before: their tensors are read anew, and nothing else differs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.rows import Array, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import open_inference_plan
from rowserve.handlers.items import Answer, Encoded, ModelFace, Outcome, Priority, Question
from rowserve.handlers.open_inference import read_infer
from rowserve.handlers.problem import Problem

LENGTH = "inference-header-content-length"
X, Y = TensorSpec("x", "float32", (2,)), TensorSpec("y", "uint8", ())
FACTOR = TensorSpec("factor", "float32", (), batched=False)


def face(*inputs: TensorSpec) -> ModelFace:
    return ModelFace("m", 1, {"serving_default": Signature("serving_default", inputs, (X,))})


def body(arrays: dict[str, Array], **more: Any) -> tuple[dict[str, str], bytes]:
    datatypes = {"float32": "FP32", "uint8": "UINT8", "bool": "BOOL"}
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatypes[array.dtype.name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    outputs = [{"name": "x", "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": inputs, "outputs": outputs, **more}).encode()
    return {LENGTH: str(len(text))}, text + b"".join(array.tobytes() for array in arrays.values())


def read(model: ModelFace, headers: dict[str, str], content: bytes) -> tuple[str, Any]:
    """What became of a request, in a form that can be compared."""
    try:
        question = read_infer(model, headers, content)
    except Problem as problem:
        return "problem", (problem.status, problem.detail)
    (rows,) = question.items
    assert isinstance(rows, Rows)
    arrays = {**rows.arrays, **rows.static}
    about = {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}
    return "rows", (rows.count, sorted(rows.arrays), about, question.options, answer(question))


def answer(question: Question[Encoded]) -> Encoded:
    (rows,) = question.items
    assert isinstance(rows, Rows)
    packed: list[Any] = [bytes([at % 7] * 8) for at in range(rows.count)]
    return question.encode(Answer(RowLayout([X]), packed, [Outcome.HIT] * rows.count))


@pytest.mark.parametrize("inputs", [(X,), (X, Y), (X, FACTOR)], ids=["one", "two", "static"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_same_json_with_other_tensors_gives_the_other_rows(inputs, count):
    model = face(*inputs)
    rng = np.random.default_rng(1)
    for turn in range(3):
        arrays = {
            spec.name: rng.integers(0, 200, ((count, *spec.shape) if spec.batched else spec.shape)).astype(spec.dtype)
            for spec in inputs
        }
        assert read(model, *body(arrays)) == read(face(*inputs), *body(arrays))
        assert len(model.plans) == 1, turn


def test_what_was_read_once_is_not_read_again(monkeypatch):
    model = face(X)
    headers, content = body({"x": np.ones((1, 2), "f4")})
    read_infer(model, headers, content)
    monkeypatch.setattr("rowserve.handlers.open_inference.read_document", None)
    kind, _ = read(model, headers, content[:-8] + bytes(8))
    assert kind == "rows"


@pytest.mark.parametrize(
    "headers",
    [
        {"cache-control": "no-store"},
        {"request-timeout": "3"},
        {"rowserve-throw-away": "1"},
        {"accept-encoding": "gzip"},
    ],
    ids=str,
)
def test_the_headers_count_too(headers):
    model = face(X)
    first, content = body({"x": np.ones((300, 2), "f4")})
    read_infer(model, first, content)
    both = {**first, **headers}
    assert read(model, both, content) == read(face(X), both, content)
    assert read(model, both, content) != read(model, first, content)


def test_a_body_of_another_length_is_refused_as_ever():
    model = face(X)
    headers, content = body({"x": np.ones((1, 2), "f4")})
    read_infer(model, headers, content)
    for wrong in (content[:-1], content + b"x", content[: int(headers[LENGTH])]):
        assert read(model, headers, wrong) == read(face(X), headers, wrong)
        assert read(model, headers, wrong)[0] == "problem"


def test_what_the_json_asks_for_is_kept_with_it():
    model = face(X)
    headers, content = body({"x": np.ones((1, 2), "f4")}, id="seven", parameters={"priority": 2, "timeout": 5_000_000})
    for _ in range(2):
        question = read_infer(model, headers, content)
        assert question.options.priority is Priority.BULK
        assert question.options.timeout == 5.0
        assert b'"id":"seven"' in answer(question).body


def test_tensors_that_may_be_wrong_are_read_each_time():
    model = ModelFace("m", 1, {"serving_default": Signature("serving_default", (TensorSpec("b", "bool", ()),), (X,))})
    headers, content = body({"b": np.array([True])})
    assert read(model, headers, content)[0] == "rows"
    assert read(model, headers, content[:-1] + b"\7")[0] == "problem"
    assert not model.plans


def test_a_model_remembers_so_many_and_no_long_ones(monkeypatch):
    monkeypatch.setattr(open_inference_plan, "MOST", 4)
    model = face(X)
    for number in range(20):
        headers, content = body({"x": np.ones((1, 2), "f4")}, id=str(number))
        read_infer(model, headers, content)
        assert 1 <= len(model.plans) <= 4
    model.plans.clear()
    read_infer(model, *body({"x": np.ones((1, 2), "f4")}, id="x" * open_inference_plan.LONGEST))
    assert not model.plans


BASE = body({"x": np.ones((2, 2), "f4"), "y": np.ones(2, "u1")})


@given(at=st.integers(0, len(BASE[1]) - 1), byte=st.integers(0, 255))
def test_a_spoilt_request_after_a_good_one_is_as_bad_as_alone(at, byte):
    model = face(X, Y)
    read_infer(model, *BASE)
    headers, content = BASE
    spoilt = content[:at] + bytes([byte]) + content[at + 1 :]
    assert read(model, headers, spoilt) == read(face(X, Y), headers, spoilt)
