"""TensorFlow Serving's predict: both forms, its rules, its words."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.graphs.rows import Array, Buffer, RowLayout
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import json_number_lists, json_pieces, tensorflow_serving_json
from rowserve.handlers import tensorflow_serving as serving
from rowserve.handlers.items import Answer, Encoded, ModelFace, Outcome
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving import PredictRequest, encode_predict, read_predict
from rowserve.handlers.tensorflow_serving_json import write_array, write_rows
from rowserve.handlers.tensorflow_serving_texts import encode_error

INVALID = "of 'instances' list. Error: INVALID_ARGUMENT:"
Y = TensorSpec("y", "float32", ())


def signature(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (Y,), **more: Any) -> Signature:
    return Signature("serving_default", inputs, outputs, **more)


def spec(name: str, dtype: str, shape: Any, batched: bool = True) -> TensorSpec:
    return TensorSpec(name, dtype, shape, batched)


ONE = signature(spec("x", "float32", (2,)))
FREE = signature(spec("x", "float32", (None,)))
TWO = signature(spec("a", "int64", ()), spec("b", "string", (2,)))
STATIC = signature(spec("k", "int32", (), batched=False), spec("x", "float32", (2,)))


def face(one: Signature, **others: Signature) -> ModelFace:
    return ModelFace("m", 1, {"serving_default": one, **others})


def read(body: Any, one: Signature = ONE) -> PredictRequest:
    return read_predict(face(one), body if isinstance(body, bytes) else json.dumps(body).encode())


def arrays(body: Any, one: Signature = ONE) -> dict[str, Any]:
    (rows,) = read(body, one).items
    return {name: array.tolist() for name, array in rows.arrays.items()}


def refused(body: Any, one: Signature = ONE, status: int = 400) -> str:
    with pytest.raises(Problem) as caught:
        read(body, one)
    assert caught.value.status == status
    return caught.value.detail


def test_rows():
    assert arrays({"instances": [[1, 2], [3.5, 4]]}) == {"x": [[1, 2], [3.5, 4]]}
    assert arrays({"instances": [{"x": [1, 2]}]}) == {"x": [[1, 2]]}
    both = [{"a": 1, "b": ["u", "v"]}, {"b": ["w", {"b64": "AP8="}], "a": 2}]
    assert arrays({"instances": both}, TWO) == {"a": [1, 2], "b": [[b"u", b"v"], [b"w", b"\0\xff"]]}
    assert arrays({"instances": [1, 2]}, signature(spec("x", "int32", ()))) == {"x": [1, 2]}
    assert read({"instances": [[1, 2]]}).by_rows


def test_columns():
    request = read({"inputs": [[1, 2], [3, 4]]})
    assert not request.by_rows
    assert request.items[0].count == 2
    assert arrays({"inputs": {"x": [[1, 2]], "ignored": 1}}) == {"x": [[1, 2]]}
    assert arrays({"inputs": {"a": [1], "b": [["u", "v"]]}}, TWO) == {"a": [1], "b": [[b"u", b"v"]]}
    assert arrays({"inputs": []}) == {"x": []}


def test_static_inputs():
    request = read({"inputs": {"k": 3, "x": [[1, 2], [3, 4]]}}, STATIC)
    assert request.items[0].static["k"].item() == 3
    assert request.items[0].count == 2
    items = read({"instances": [{"k": k, "x": [1, 2]} for k in (1, 1, 2)]}, STATIC).items
    assert [(rows.count, rows.static["k"].item()) for rows in items] == [(2, 1), (1, 2)]
    alone = signature(*STATIC.inputs, alone="a counter")
    assert "equal values" in refused({"instances": [{"k": k, "x": [1, 2]} for k in (1, 2)]}, alone)


def test_the_signature_that_is_named():
    others = face(ONE, other=TWO)
    body = b'{"signature_name": "other", "instances": [{"a": 1, "b": ["u", "v"]}]}'
    assert read_predict(others, body).signature is TWO
    assert read_predict(others, b'{"signature_name": "", "instances": [[1, 2]]}').signature is ONE
    for text in (
        b'{"instances": [[1,2]], "signature_name": "serving_default"}',
        b'{"signature_name": "serving_default", "instances": [[1,2]]}',
    ):
        assert read_predict(others, text).signature is ONE
    twice = b'{"signature_name": "serving_default", "instances": [{"a":1,"b":["u","v"]}], "signature_name": "other"}'
    assert read_predict(others, twice).signature is TWO
    twice = b'{"signature_name": "serving_default", "instances": [[1, 2]], "signature_name": "third"}'
    assert read_predict(face(ONE, third=FREE), twice).signature is FREE  # either way of reading takes the last
    assert 'Serving signature name: "no" not found in signature def' in refused(
        {"signature_name": "no", "instances": [[1, 2]]}
    )
    assert "'signature_name' key must be a string value." in refused({"signature_name": 5, "instances": [[1, 2]]})


def test_nan_and_what_follows_the_document_are_allowed():
    got = arrays(b' {"instances": [[NaN, -Infinity], [Infinity, 1]]} and more')["x"]
    assert math.isnan(got[0][0])
    assert got[0][1] == -math.inf
    assert got[1] == [math.inf, 1.0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"  ", "JSON Parse error: The document is empty"),
        (b'{"instances": [', "JSON Parse error: "),
        (b"\xff", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b'{"instances": [[1, 1e400]]}', "JSON Parse error: nested too deeply, or a number too large"),
        (b'{"instances": [[NaN, 1e400]]}', "JSON Parse error: nested too deeply, or a number too large"),
        ([1], "Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "one of 'inputs' or 'instances' keys to exist"),
        ({"instances": 5}, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [[1, 2], {"x": [1, 2]}]}, "Expecting value/list but got object at item 1 of input list"),
        ({"instances": [{"x": [1, 2]}, [1, 2]]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [{"x": [1, 2]}, {}]}, "element: 1 of 'instances' list. JSON object: {} must only have keys: x"),
        ({"instances": [{"x": [1, 2], "z": 1}]}, f"key: z {INVALID} JSON object: does not have named input: z"),
        ({"instances": [[1, 2], [1, "2"]]}, (f'Failed to process element: 1 {INVALID} JSON Value: "2" Type: String'
          " is not of expected type: float (at instances[1][1])")),
        ({"instances": [{"x": [1, None]}]}, (f"element: 0 key: x {INVALID} JSON Value: null Type: Null"
          " is not of expected type: float (at instances[0].x[1])")),
        ({"instances": [[1, 2], [1, 2, 3]]}, "Encountered list at unexpected size: 3 at level: 0 expected size: 2"),
        ({"instances": [[1, 2], 5]}, "JSON Value: 5 found at incorrect level: 0 in the JSON DOM. Expected at level: 1"),
        ({"instances": [[1, [2]]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"instances": [[1, True]]}, "JSON Value: true Type: True is not of expected type: float"),
        ({"instances": [[1, 1e39]]}, "is not of expected type: float"),
        ({"inputs": {"y": 1}}, "Missing named input: x in 'inputs' object."),
        ({"inputs": [[1, "2"]]}, 'JSON Value: "2" Type: String is not of expected type: float (at inputs[0][1])'),
        ({"inputs": {"x": [[1, []]]}}, "(at inputs.x[0][1])"),
        ({"inputs": 5}, "found at incorrect level: 0 in the JSON DOM. Expected at level: 2"),
    ],
)  # fmt: skip
def test_the_words_for_what_is_wrong(body: Any, words: str):
    assert words in refused(body)


def test_the_words_where_several_inputs_are_required():
    assert refused({"instances": [1]}, TWO).startswith("instances is a plain list, but expecting list of objects")
    assert refused({"inputs": [1]}, TWO).startswith("inputs is a plain value/list, but expecting an object")
    assert "different numbers of rows" in refused({"inputs": {"a": [1, 2], "b": [["u", "v"]]}}, TWO)


def test_rows_of_different_shapes():
    assert "Expecting shape [2] but got: [1]" in refused({"instances": [[1, 2], [1]]}, FREE)
    assert arrays({"instances": [[1, 2], [1, 2]]}, FREE) == {"x": [[1, 2], [1, 2]]}


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32", "uint64"])
def test_integers_must_be_integers(dtype: str):
    one = signature(spec("x", dtype, ()))
    assert arrays({"instances": [7]}, one) == {"x": [7]}
    for wrong in (b"1.0", b"1e2", b"true", b'"1"', b"NaN", b"18446744073709551616", b"-9223372036854775809"):
        assert f"is not of expected type: {dtype}" in refused(b'{"instances": [%b]}' % wrong, one)
    large = np.iinfo(dtype).max
    assert arrays({"instances": [large]}, one) == {"x": [large]}


def test_booleans_and_strings():
    flags = signature(spec("x", "bool", ()))
    assert arrays({"instances": [True, False]}, flags) == {"x": [True, False]}
    assert "is not of expected type: bool" in refused({"instances": [1]}, flags)
    texts = signature(spec("x", "string", ()))
    assert arrays({"instances": ["u", {"b64": "AP8="}]}, texts) == {"x": [b"u", b"\0\xff"]}
    assert arrays({"inputs": [{"b64": "AP8="}]}, texts) == {"x": [b"\0\xff"]}
    assert "Unable to base64 decode" in refused({"instances": ["u", {"b64": "!"}]}, texts)
    assert "is not of expected type: string" in refused({"instances": [5]}, texts)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint16", "complex64"])
def test_a_dtype_without_a_json_form_is_501(dtype: str):
    name = {"float16": "half"}.get(dtype, dtype)
    for form in ("instances", "inputs"):
        assert refused({form: [1]}, signature(spec("x", dtype, ())), 501).endswith(f"to type: {name}")


ODD: list[Any] = [True, None, "x", [], {}, math.nan]
NUMBER: st.SearchStrategy[Any] = st.integers(-5, 5) | st.floats(-9, 9) | st.sampled_from(ODD)


@settings(max_examples=300)
@given(
    st.lists(st.lists(NUMBER, max_size=3) | NUMBER, max_size=3), st.sampled_from(["instances", "inputs"]), st.booleans()
)
def test_the_fast_way_is_the_slow_way(values: list[Any], form: str, named: bool):
    body = json.dumps({form: values} | ({"signature_name": "serving_default"} if named else {})).encode()
    fast = serving.numbers_only(face(ONE), body)
    if fast is not None:
        slow = serving.by_document(face(ONE), json.loads(body))
        assert fast.by_rows == slow.by_rows
        assert fast.items[0].count == slow.items[0].count
        assert np.array_equal(fast.items[0].arrays["x"], slow.items[0].arrays["x"])


MANY = signature(spec("a", "int32", (None,)), spec("b", "string", ()), spec("k", "float64", (), batched=False))
SEEDS = [
    (ONE, b'{"signature_name": "serving_default", "instances": [[1, 2], [3.5, 4e0], [5, 6], [7, -8.25]]}'),
    (ONE, b'{"inputs": {"x": [[1, 2], [NaN, 4], [5, 6]]}, "more": {"y": [[], "\\u00e9"]}}'),
    (FREE, b'{"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}, {"x": [7, 8, 9]}]}'),
    (TWO, b'{"instances": [{"a": 1, "b": ["u", {"b64": "AP8="}]}, {"b": ["v\\"", "w"], "a": -2}]}'),
    (MANY, b'{"instances": [{"a": [1], "b": "x", "k": 1.5}, {"k": 1.5, "a": [22], "b": "y"}], "signature_name": ""}'),
    (MANY, b'{"inputs": {"a": [[1, 2], [3, 4]], "b": ["x", {"b64": "AAAA"}], "k": -Infinity}}'),
]
MARKS = b'[]{}",:0e.-nN\xff\\ 19'


def spoilt(text: bytes, chance: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.choice(MARKS)
            case 1:
                data.insert(at, chance.choice(MARKS))
            case 2:
                del data[at : at + chance.randint(1, 9)]
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 30)]
    return bytes(data)


def outcome(body: bytes, one: Signature) -> Any:
    """What a request reads as, comparable; its status where it cannot be read."""
    try:
        request = read(body, one)
    except Problem as problem:
        return problem.status
    rows = [(rows.count, {**rows.arrays, **rows.static}) for rows in request.items]
    return repr((request.by_rows, [(n, {k: (v.shape, v.tolist()) for k, v in found.items()}) for n, found in rows]))


def test_spoilt_requests_are_rows_or_problems_and_the_same_by_pieces(monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(5)
    bodies = [(one, spoilt(text, chance)) for _ in range(10_000 // len(SEEDS) + 1) for one, text in SEEDS]
    whole = [outcome(body, one) for one, body in bodies]
    assert {found for found in whole if isinstance(found, int)} == {400}
    assert sum(isinstance(found, str) for found in whole) > 500
    for module in (json_pieces, json_number_lists, serving, tensorflow_serving_json):
        monkeypatch.setattr(module, "PIECE", 24)
    for (one, body), found in zip(bodies, whole, strict=True):
        # Of a long list that nobody reads only the brackets are looked at.
        assert outcome(body, one) == found or (found == 400 and (b"more" in body or body.count(b"ins") > 1)), body


def test_numbers_never_become_python_objects(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "read_document", None)
    for body in (b'{"instances": [[1,2]]}', b'{ "inputs" : [ [1,2] ], "signature_name": "serving_default" }\n'):
        assert arrays(body) == {"x": [[1, 2]]}


def answer(outputs: Mapping[str, Any], specs: tuple[TensorSpec, ...], alone: bool = False) -> Answer:
    layout = RowLayout(specs)
    columns = {name: np.asarray(value) for name, value in outputs.items()}
    count = len(next(iter(columns.values())))
    packed: list[Buffer | None] = list(layout.pack(columns, count))
    return Answer(layout, packed, [Outcome.COMPUTED] * count, alone=alone)


def told(outputs: dict[str, Any], specs: tuple[TensorSpec, ...], by_rows: bool = True, **options: Any) -> Encoded:
    request = PredictRequest(signature(spec("x", "float32", (2,)), outputs=specs), [], by_rows)
    return encode_predict(request, answer(outputs, specs, **options))


def test_one_output_goes_without_its_name():
    values = {"y": np.array([1, 0.1, 9e6, 1e-7, 3.4e38, 1 / 3], np.float32)}
    for by_rows, key in ((True, "predictions"), (False, "outputs")):
        got = told(values, (Y,), by_rows)
        assert got.status == 200
        back = json.loads(got.body)[key]
        assert all(isinstance(number, float) for number in back)
        assert np.array_equal(np.array(back, np.float32), values["y"])
    assert b"1.0,0.1,9000000.0," in told(values, (Y,)).body
    headers = dict(got.headers)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Status"].startswith("rowserve; fwd=miss")
    assert "Server-Timing" in headers


def test_several_outputs_go_by_name():
    specs = (Y, spec("n", "int64", (2,)))
    values = {"y": np.array([1, 2], np.float32), "n": np.array([[1, 2], [3, 2**62]])}
    rows = json.loads(told(values, specs).body)["predictions"]
    assert rows == [{"n": [1, 2], "y": 1.0}, {"n": [3, 2**62], "y": 2.0}]
    assert json.loads(told(values, specs, False).body)["outputs"] == {"n": [[1, 2], [3, 2**62]], "y": [1.0, 2.0]}


def test_nan_and_infinity_go_as_bare_words():
    values = {"y": np.array([[1, np.nan], [np.inf, -np.inf]], np.float32)}
    specs = (spec("y", "float32", (2,)),)
    assert b"[[1.0,NaN],[Infinity,-Infinity]]" in told(values, specs).body
    assert (
        b'"n":7,"y":NaN'
        in told({"y": np.array([np.nan], np.float32), "n": np.array([7])}, (Y, spec("n", "int64", ()))).body
    )


@given(st.lists(st.floats(), min_size=1, max_size=6))
def test_every_double_comes_back(values: list[float]):
    back = json.loads(write_array("y", np.array(values)))
    assert np.array_equal(np.array(back, np.float64), np.array(values), equal_nan=True)
    assert all(isinstance(number, float) for number in back)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 24), (24, 1), (5, 0), (0, 9), (1, 1, 30, 2)])
def test_large_outputs_are_written_slice_by_slice(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    array[array % 7 == 3] = np.inf
    whole = write_array("y", array)
    monkeypatch.setattr(tensorflow_serving_json, "SLICE", 6)
    assert write_array("y", array) == whole
    assert json.loads(whole) == array.tolist()


def test_strings_raw_or_as_bytes():
    def objects(*elements: bytes) -> Array:
        array = np.empty(len(elements), dtype=object)
        array[:] = elements
        return array

    values = objects(b'a"\n', b"\xc3\xa9", b"\xff")
    assert json.loads(write_array("t", values[:2])) == ['a"\n', "\u00e9"]
    assert write_array("t", values[2:]) == b'["\xff"]'
    assert json.loads(write_array("t_bytes", values)) == [{"b64": t} for t in ("YSIK", "w6k=", "/w==")]
    specs = (spec("t", "string", (1,)),)
    assert json.loads(told({"t": values[:2].reshape(2, 1)}, specs).body) == {"predictions": [['a"\n'], ["\u00e9"]]}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint16", "complex64"])
def test_outputs_that_have_no_json_form(dtype: str):
    one = spec("y", dtype, ())
    got = told({"y": np.ones(1, one.numpy_dtype)}, (one,))
    assert got.status == 400
    assert "Failed to write JSON value for tensor type: " in json.loads(got.body)["error"]


def alone(outputs: dict[str, Any], by_rows: bool, *inputs: TensorSpec) -> Encoded:
    """A request that ran as one: the outputs are whole tensors."""
    specs = tuple(spec(name, "float32", np.shape(value), batched=False) for name, value in outputs.items())
    request = PredictRequest(
        signature(*(inputs or (spec("x", "float32", (2,)),)), outputs=specs, alone="why"), [], by_rows
    )
    whole = {name: np.asarray(value, np.float32)[None] for name, value in outputs.items()}
    return encode_predict(request, answer(whole, specs, alone=True))


def test_whole_outputs_of_a_request_that_ran_alone():
    assert json.loads(alone({"y": [1, 2, 3]}, True).body) == {"predictions": [1.0, 2.0, 3.0]}
    assert json.loads(alone({"y": 5.0, "z": [1, 2]}, False).body) == {"outputs": {"y": 5.0, "z": [1.0, 2.0]}}
    assert json.loads(alone({"y": 5.0}, False).body) == {"outputs": 5.0}
    scalar, uneven, none = (
        alone({"y": 5.0}, True),
        alone({"y": [1], "z": [1, 2]}, True),
        alone({"y": np.ones((0, 2))}, True),
    )
    assert scalar.status == uneven.status == none.status == 400
    assert json.loads(scalar.body)["error"] == "Tensor name: y has no shape information "
    assert json.loads(uneven.body)["error"] == "Tensor name: z has inconsistent batch size: 2 expecting: 1"
    assert json.loads(none.body)["error"] == "Tensor name: y has invalid batch size: 0"


def test_a_signature_without_any_leading_dimension_answers_its_one_instance():
    assert json.loads(alone({"y": [1, 2]}, True, spec("k", "int32", (), batched=False)).body) == {
        "predictions": [[1.0, 2.0]]
    }


def test_the_first_bad_row_is_the_answer():
    bad = answer({"y": np.ones(3, np.float32)}, (Y,))
    bad.packed[1], bad.packed[2] = None, None
    bad.errors = {2: Problem(504, "late"), 1: Problem(400, "broke the graph")}
    got = encode_predict(PredictRequest(ONE, [], True), bad)
    assert got.status == 400
    assert json.loads(got.body) == {"error": "broke the graph"}


def test_rows_of_many_shapes_make_no_tensor():
    free = spec("y", "float32", (None,))
    layout = RowLayout([free])
    packed: list[Buffer | None] = [layout.pack({"y": np.ones((1, n), np.float32)}, 1)[0] for n in (1, 2)]
    got = encode_predict(PredictRequest(ONE, [], True), Answer(layout, packed, [Outcome.HIT] * 2))
    assert got.status == 500
    assert "do not make one tensor" in json.loads(got.body)["error"]


def test_errors():
    got = encode_error(Problem(503, 'full "queue"', retry_after=1))
    assert got.body == b'{\n    "error": "full \\"queue\\""\n}'
    assert dict(got.headers) == {"Content-Type": "application/json", "Retry-After": "1"}
    assert encode_error(Problem(422, "values that the model refuses")).status == 400


def test_large_bodies_come_back():
    pictures = np.random.default_rng(1).random((2, 16, 16, 3)).astype(np.float32)
    body = b'{"instances":%b}' % orjson.dumps(pictures, option=orjson.OPT_SERIALIZE_NUMPY)
    (rows,) = read(body, signature(spec("x", "float32", (16, 16, 3)))).items
    assert np.array_equal(rows.arrays["x"], pictures)


def test_rows_of_several_outputs_are_written_without_holding_each_number_apart():
    count = 20_000
    outputs = {"a": np.arange(count, dtype=np.float32), "b": np.arange(count * 2, dtype=np.float32).reshape(count, 2)}
    tracemalloc.start()
    try:
        text = write_rows(outputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(text)
