from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature, TensorSpec, numpy_dtype
from rowserve.handlers.items import ModelFace, Options, Question
from rowserve.handlers.predict_plan import MOST_AROUND, PredictPlan, plan_of
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensor_protos import NUMBERS, tensor_parts
from rowserve.handlers.tensorflow_messages import PredictRequest, TensorProto
from rowserve.handlers.tensorflow_serving_grpc import predict_question, read_predict
from tests.mutations import MUTATIONS

ROOM = 1 << 16
OUTPUTS = (TensorSpec("y", "float32", (2,)),)
SIGNATURES = {
    name: Signature(name, (TensorSpec("x", name, (None,)),), OUTPUTS) for name in NUMBERS
} | {
    "serving_default": Signature(
        "serving_default",
        (TensorSpec("a", "float32", (2,)), TensorSpec("b", "int64", (None,)), TensorSpec("t", "float64", (), False)),
        OUTPUTS,
    )
}
FACE = ModelFace("m", 1, SIGNATURES)
OPTIONS = Options("test")


def message(signature: str = "", *, typed: bool = False, **inputs: Any) -> bytes:
    """A PredictRequest, of tensor_content or of typed values."""
    made = PredictRequest(model_spec={"name": "m", "signature_name": signature})
    for name, array in inputs.items():
        proto = TensorProto.FromString(b"".join(tensor_parts(array)))
        if not typed:
            shape = {"dim": [{"size": size} for size in array.shape]}
            proto = TensorProto(dtype=proto.dtype, tensor_shape=shape, tensor_content=array.tobytes())
        made.inputs[name].CopyFrom(proto)
    return made.SerializeToString(deterministic=True)


def asked(data: bytes) -> Question[bytes]:
    return predict_question(FACE, read_predict(data), OPTIONS, ROOM)


def planned(data: bytes) -> PredictPlan | None:
    return plan_of(data, read_predict(data).spec, FACE, asked(data))


def plan(data: bytes) -> PredictPlan:
    found = planned(data)
    assert found is not None
    return found


def told(question: Question[bytes]) -> Any:
    (rows,) = question.items
    assert isinstance(rows, Rows)
    arrays = {**rows.arrays, **rows.static}
    return (
        question.signature,
        question.options,
        rows.count,
        list(rows.arrays),
        {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()},
    )


def several(number: float, rows: int = 2) -> dict[str, Any]:
    return {
        "a": np.full((rows, 2), number, np.float32),
        "b": np.full((rows, 3), int(number)),
        "t": np.array(number, np.float64),
    }


@pytest.mark.parametrize("typed", [False, True])
def test_a_message_of_the_same_layout_is_read_alike(typed: bool) -> None:
    x = np.array([[1.5, -2.5]], np.float32)
    layout = plan(message("float32", typed=typed, x=x))
    other = message("float32", typed=typed, x=x * 7)
    assert layout.fits(other)
    assert told(layout.question(other, OPTIONS)) == told(asked(other))
    assert layout.spec == read_predict(other).spec


def test_several_inputs_have_a_layout_too() -> None:
    layout = plan(message(**several(1)))
    other = message(**several(2))
    assert layout.fits(other)
    assert told(layout.question(other, OPTIONS)) == told(asked(other))


def test_options_are_those_of_each_call() -> None:
    data = message("float32", x=np.ones((1, 2), np.float32))
    assert plan(data).question(data, Options("other", timeout=3.0)).options.timeout == 3.0


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - {"bool", "string"}))
def test_every_dtype_whose_bytes_mean_nothing_else_has_a_layout(name: str) -> None:
    x = np.arange(4).reshape(1, 4).astype(numpy_dtype(name))
    layout = plan(message(name, x=x))
    other = message(name, x=x[:, ::-1])
    assert layout.fits(other)
    assert told(layout.question(other, OPTIONS)) == told(asked(other))


@pytest.mark.parametrize(
    ("name", "typed"),
    [("string", True), ("bool", False), ("bool", True), ("int64", True), ("uint8", True), ("float16", True)],
)
def test_values_that_are_more_than_bytes_have_none(name: str, typed: bool) -> None:
    x = np.array([[b"a", b""]], object) if name == "string" else np.ones((1, 2)).astype(numpy_dtype(name))
    assert planned(message(name, typed=typed, x=x)) is None


def test_what_is_not_a_piece_of_the_message_has_none() -> None:
    empty = message("float32", x=np.zeros((0, 2), np.float32))
    assert planned(empty) is None
    start = message("float32", x=np.zeros((1, 0), np.float32))
    proto = TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1}, {"size": 4}]}, float_val=[1])
    repeated = PredictRequest.FromString(start)
    repeated.inputs["x"].CopyFrom(proto)
    assert planned(repeated.SerializeToString()) is None


def test_a_layout_of_much_else_is_not_kept() -> None:
    made = PredictRequest.FromString(message("float32", x=np.ones((1, 2), np.float32)))
    data = made.SerializeToString() + b"\x3a" + b"\x80\x40" + b"\0" * (2 * MOST_AROUND)
    assert asked(data).items
    assert planned(data) is None


def test_another_layout_does_not_fit() -> None:
    layout = plan(message("float32", x=np.ones((1, 2), np.float32)))
    for other in (
        message("float64", x=np.ones((1, 1), np.float64)),
        message("float32", x=np.ones((2, 1), np.float32)),
        message("float32", x=np.ones((2, 2), np.float32)),
        message("float33", x=np.ones((1, 2), np.float32)),
        message("float32", z=np.ones((1, 2), np.float32)),
        message("float32", x=np.ones((1, 2), np.int32)),
        b"",
    ):
        assert not layout.fits(other)


def test_whatever_fits_is_read_as_without_a_layout() -> None:
    chance = random.Random(3)
    whole = [
        message(**several(1)),
        message("float32", x=np.ones((1, 3), np.float32)),
        message("float32", typed=True, x=np.ones((1, 3), np.float32)),
    ]
    fitted = 0
    for _ in range(MUTATIONS):
        first = chance.choice(whole)
        layout = plan(first)
        data = bytearray(first)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if layout.fits(bytes(data)):
            assert told(layout.question(bytes(data), OPTIONS)) == told(asked(bytes(data)))
            fitted += 1
        else:
            try:
                asked(bytes(data))
            except Problem as problem:
                assert problem.status in (400, 413)  # noqa: PT017
    assert 1000 < fitted < 9000
