"""The Open Inference Protocol's REST form: what is read, what is written, what is refused and in which words."""

from __future__ import annotations

import gzip
import json
import random
import re
import tracemalloc
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.graphs.rows import Array, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec, numpy_dtype
from rowserve.handlers.http_headers import response_coding
from rowserve.handlers.items import Answer, Encoded, Labels, ModelFace, Outcome, Priority, Question
from rowserve.handlers.open_inference import read_infer
from rowserve.handlers.open_inference_datatypes import DTYPES, NAMES, tensor_bytes
from rowserve.handlers.open_inference_texts import encode_fault
from rowserve.handlers.problem import Problem
from tests.mutations import MUTATIONS

LENGTH = "inference-header-content-length"


def face(*specs: tuple[str, str, Any], labels: Labels | None = None) -> ModelFace:
    """A model whose outputs are its inputs."""
    tensors = tuple(TensorSpec(name, dtype, shape) for name, dtype, shape in specs)
    return ModelFace("m", 3, {"serving_default": Signature("serving_default", tensors, tensors)}, labels)


PAIR = face(("x", "float32", (2,)), labels=Labels("x", ["cat", "dog"]))
FOUR = face(("f", "float32", (3,)), ("i", "int64", ()), ("o", "bool", (2,)), ("s", "string", ()))


def request(inputs: list[dict[str, Any]], *blobs: bytes, **more: Any) -> tuple[dict[str, str], bytes]:
    text = json.dumps({"inputs": inputs, **more}).encode()
    return ({LENGTH: str(len(text))} if blobs else {}), text + b"".join(blobs)


def tensor(name: str, array: Array, **more: Any) -> dict[str, Any]:
    datatype = "BYTES" if array.dtype == object else NAMES[array.dtype.name]
    return {"name": name, "shape": list(array.shape), "datatype": datatype, **more}


def binary(name: str, array: Array) -> tuple[dict[str, Any], bytes]:
    blob = bytes(tensor_bytes(array))
    return tensor(name, array, parameters={"binary_data_size": len(blob)}), blob


def rows_of(question: Question[Encoded]) -> Rows:
    (rows,) = question.items
    assert isinstance(rows, Rows)
    return rows


def answer(question: Question[Encoded]) -> Encoded:
    """The rows that were asked, given back."""
    rows, layout = rows_of(question), RowLayout(question.signature.outputs)
    packed: list[Any] = list(layout.pack(rows.arrays, rows.count))
    return question.encode(Answer(layout, packed, [Outcome.HIT] * rows.count))


def read_back(encoded: Encoded) -> tuple[dict[str, Any], dict[str, Array]]:
    """An answer as a client reads it."""
    headers = dict(encoded.headers)
    assert headers["Cache-Status"] == "rowserve; hit"
    body = encoded.body
    if coding := headers.get("Content-Encoding"):
        body = gzip.decompress(body) if coding == "gzip" else zlib.decompress(body)
    length = int(headers.get("Inference-Header-Content-Length", len(body)))
    assert headers["Content-Type"] == ("application/octet-stream" if length < len(body) else "application/json")
    document, at, arrays = json.loads(body[:length]), length, {}
    for output in document["outputs"]:
        dtype = numpy_dtype(DTYPES[output["datatype"]])
        if "data" in output:
            data = [each.encode() for each in output["data"]] if dtype.kind == "O" else output["data"]
            array = np.array(data, dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            blob, at = body[at : at + size], at + size
            array = np.array(strings(blob), object) if dtype.kind == "O" else np.frombuffer(blob, dtype)
        arrays[output["name"]] = array.reshape(output["shape"])
    assert at == len(body)
    return document, arrays


def strings(blob: bytes) -> list[bytes]:
    found = []
    while blob:
        size = int.from_bytes(blob[:4], "little")
        found.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return found


def refused(model: ModelFace, headers: dict[str, str], body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        read_infer(model, headers, body)
    return caught.value


def same(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool((one == other).all()) if one.dtype == object else one.tobytes() == other.tobytes()


NUMERIC = sorted(set(NAMES) - {"string"})


def values(dtype: str) -> Array:
    spec = numpy_dtype(dtype)
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    if spec.kind in "iu":
        return np.array([[np.iinfo(spec).min, np.iinfo(spec).max], [0, 1]], spec)
    return np.array([[1.5, -0.0], [float("nan"), float("-inf")]], spec)


# Round trips


@pytest.mark.parametrize("dtype", NUMERIC)
def test_every_dtype_as_bytes_both_ways_without_a_copy(dtype: str) -> None:
    array = values(dtype)
    entry, blob = binary("x", array)
    headers, body = request([entry], blob, parameters={"binary_data_output": True})
    whole = memoryview(body)
    question = read_infer(face(("x", dtype, (2,))), headers, whole)
    assert np.shares_memory(rows_of(question).arrays["x"], np.frombuffer(whole, np.uint8))
    document, arrays = read_back(answer(question))
    assert same(arrays["x"], array)
    assert (document["model_name"], document["model_version"]) == ("m", "3")
    assert "id" not in document


@pytest.mark.parametrize("dtype", sorted(set(NUMERIC) - {"float16", "bfloat16"}))
@pytest.mark.parametrize("nested", [True, False])
def test_every_dtype_that_json_can_hold_as_json_both_ways(dtype: str, nested: bool) -> None:
    array = values(dtype)
    headers, body = request([tensor("x", array, data=array.tolist() if nested else array.ravel().tolist())])
    document, arrays = read_back(answer(read_infer(face(("x", dtype, (2,))), headers, body)))
    assert same(arrays["x"], array)
    assert not any(isinstance(each, list) for each in document["outputs"][0]["data"])


def test_nan_and_infinity_are_bare_words_in_the_answer() -> None:
    headers, body = request([{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [float("nan"), -np.inf]}])
    assert b"NaN,-Infinity" in answer(read_infer(PAIR, headers, body)).body


def test_several_inputs_mixed_and_outputs_in_the_order_and_form_that_is_asked() -> None:
    arrays = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "i": np.array([2**63 - 1, -1]),
        "o": np.array([[True, False], [True, True]]),
        "s": np.array([b"\0\xff", b""], object),
    }
    entry_f, blob_f = binary("f", arrays["f"])
    entry_s, blob_s = binary("s", arrays["s"])
    inputs = [
        entry_s, tensor("i", arrays["i"], data=arrays["i"].tolist()), entry_f,
        tensor("o", arrays["o"], data=arrays["o"].tolist()),
    ]  # fmt: skip
    outputs = [
        {"name": "o", "parameters": {"binary_data": True}},
        {"name": "s", "parameters": {"binary_data": True}},
        {"name": "i"},
    ]
    headers, body = request(inputs, blob_s, blob_f, outputs=outputs, id="some id")
    document, back = read_back(answer(read_infer(FOUR, headers, body)))
    assert document["id"] == "some id"
    assert list(back) == ["o", "s", "i"]
    assert all(same(back[name], arrays[name]) for name in back)
    assert "data" in document["outputs"][2]
    headers, body = request(inputs, blob_s, blob_f, parameters={"binary_data_output": True})
    back = read_back(answer(read_infer(FOUR, headers, body)))[1]
    assert all(same(back[name], arrays[name]) for name in ("f", "i", "o", "s"))


def test_an_outputs_own_wish_goes_before_the_requests() -> None:
    outputs = [{"name": "x", "parameters": {"binary_data": False}}]
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
    headers, body = request(inputs, outputs=outputs, parameters={"binary_data_output": True})
    assert read_back(answer(read_infer(PAIR, headers, body)))[0]["outputs"][0]["data"] == [1, 2]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_rows_at_all(as_json: bool) -> None:
    parameters = {} if as_json else {"binary_data_size": 0}
    entry = {"name": "x", "shape": [0, 2], "datatype": "FP32", "parameters": parameters}
    headers, body = request([{**entry, "data": []} if as_json else entry], *([] if as_json else [b""]))
    for wish in (True, False):
        given = {**json.loads(body), "parameters": {"binary_data_output": wish}}
        text = json.dumps(given).encode()
        encoded = answer(read_infer(PAIR, {LENGTH: str(len(text))} if headers else {}, text))
        assert "Inference-Header-Content-Length" not in dict(encoded.headers)
        assert read_back(encoded)[1]["x"].shape == (0, 2)


def test_strings_as_json_and_what_json_cannot_hold() -> None:
    words = face(("s", "string", ()))
    headers, body = request([{"name": "s", "shape": [2], "datatype": "BYTES", "data": ["äh", "\0"]}])
    question = read_infer(words, headers, body)
    assert rows_of(question).arrays["s"].tolist() == ["äh".encode(), b"\0"]
    assert read_back(answer(question))[1]["s"].tolist() == ["äh".encode(), b"\0"]
    entry, blob = binary("s", np.array([b"\xff"], object))
    with pytest.raises(Problem, match="ask for it with binary_data"):
        answer(read_infer(words, *request([entry], blob)))


def test_the_only_binary_input_may_leave_out_its_size() -> None:
    entry, blob = binary("x", np.ones((1, 2), np.float32))
    del entry["parameters"]
    assert rows_of(read_infer(PAIR, *request([entry], blob))).arrays["x"].tolist() == [[1, 1]]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_tensors_come_back_to_the_bit(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 4))
    model, inputs, blobs, arrays = [], [], [], {}
    for name in ("a", "b"):
        dtype = data.draw(st.sampled_from(sorted(NAMES)))
        shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=2)))
        size = count * int(np.prod(shape))
        if dtype == "string":
            array = np.empty(size, object)
            array[:] = [data.draw(st.binary(max_size=5)) for _ in range(size)]
        else:
            wide = numpy_dtype(dtype).itemsize
            raw = data.draw(st.binary(min_size=size * wide, max_size=size * wide))
            raw = bytes(byte % 2 for byte in raw) if dtype == "bool" else raw
            array = np.frombuffer(raw, numpy_dtype(dtype))
        arrays[name] = array.reshape(count, *shape)
        model.append((name, dtype, shape))
        entry, blob = binary(name, arrays[name])
        inputs.append(entry)
        blobs.append(blob)
    question = read_infer(face(*model), *request(inputs, *blobs, parameters={"binary_data_output": True}))
    back = read_back(answer(question))[1]
    assert all(same(back[name], arrays[name]) for name in arrays)


# Long JSON


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint64", "uint8"])
@pytest.mark.parametrize("layout", ["flat", "nested", "wide", "deep"])
def test_long_lists_of_numbers(dtype: str, layout: str) -> None:
    random_numbers = np.random.default_rng(3)
    spec = numpy_dtype(dtype)
    if spec.kind == "f":
        array = random_numbers.normal(size=(20, 400, 3)).astype(spec)
    else:
        array = random_numbers.integers(np.iinfo(spec).min, np.iinfo(spec).max, (20, 400, 3), spec, endpoint=True)
    form = {"flat": array.ravel(), "nested": array, "wide": array.reshape(20, -1), "deep": array[None, None]}[layout]
    separators = (", ", ": ") if layout == "wide" else (",", ":")
    document = {"inputs": [tensor("x", array, data=form.tolist())], "id": 'a "data": [1, 2'}
    question = read_infer(face(("x", dtype, (400, 3))), {}, json.dumps(document, separators=separators).encode())
    assert same(rows_of(question).arrays["x"], array)


def test_a_long_answer_is_written_in_slices_that_make_one_list() -> None:
    array = np.random.default_rng(4).normal(size=(20_000, 2)).astype(np.float32)
    array[7, 1], array[19_999, 0] = np.nan, np.inf
    entry, blob = binary("x", array)
    assert same(read_back(answer(read_infer(PAIR, *request([entry], blob))))[1]["x"], array)


def test_long_lists_of_strings_and_truths() -> None:
    words = [f'{index} "data": [' for index in range(20_000)]
    body = json.dumps({"inputs": [{"name": "s", "shape": [20_000], "datatype": "BYTES", "data": words}]}).encode()
    rows = rows_of(read_infer(face(("s", "string", ())), {}, memoryview(body)))
    assert rows.arrays["s"].tolist() == [word.encode() for word in words]
    truths = (np.arange(40_000) % 3 == 0).reshape(-1, 2)
    body = json.dumps({"inputs": [tensor("o", truths, data=truths.tolist())]}).encode()
    assert same(rows_of(read_infer(face(("o", "bool", (2,))), {}, body)).arrays["o"], truths)
    body = body.replace(b"true", b'"no"', 30_000)
    assert "expected true or false, found a string" in refused(face(("o", "bool", (2,))), {}, body).detail


def test_very_many_inputs_are_too_many() -> None:
    body = b'{"inputs":[%b]}' % b",".join([b"[]"] * 1_000_000)
    assert "more than 4096" in refused(PAIR, {}, body).detail
    assert refused(PAIR, {}, b'{"inputs":[]}' + b" " * 100_000 + b"x").status == 400


def long_request(data: str, count: int, more: str = "") -> bytes:
    text = '{"inputs":[{"name":"x","shape":[%d,2],"datatype":"FP32","data":%s}]%s}'
    return (text % (count // 2, data, more)).encode()


ONES = ",".join(["1"] * 20_000)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (f"[{ONES},NaN,-Infinity]", 20_002),
        (f"[{ONES},[[]],[2,[3]]]", 20_002),
        (f"[\n  {ONES},\n  2,\n  3\n]", 20_002),
        (f"[1e0,[{ONES}],2]", 20_002),
        (f"[{ONES},2{' ' * 140_000},3]", 20_002),
    ],
)
def test_long_lists_that_are_out_of_the_ordinary(data: str, count: int) -> None:
    array = rows_of(read_infer(PAIR, {}, long_request(data, count))).arrays["x"]
    assert array.shape == (count // 2, 2)
    assert array[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    "data",
    [
        f"[{ONES}", f"[{ONES}]]", f"[[{ONES}]", f"[{ONES},]", f"[,{ONES}]", f"[{ONES},,1]", f"[{ONES} 1,1]",
        f"[[1,]{ONES}]", f"[[1][,{ONES},1]]", f"[[1][,1],{ONES}]", f"[1Y,{ONES}_]", f"[{ONES},1{' ' * 140_000}1]",
        f"[[1{ONES}], 1[ ], 1]", f"[]{ONES}]", f"[{ONES}][1]", f"[[{ONES}],1]]", f"[[1],[{ONES},1]",
        f"[[1[,{ONES}],1]]", f"[{ONES}, ]", f"[[1 ] [, {ONES}]]",
    ],
)  # fmt: skip
def test_long_lists_that_are_no_json(data: str) -> None:
    count = len(re.findall("[0-9]+", data))
    body = b'{"inputs":[{"name":"x","shape":[%d],"datatype":"FP32","data":%b}]}' % (count, data.encode())
    assert refused(face(("x", "float32", ())), {}, body).status == 400


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (f"[{ONES},true]", "data[20000]: expected a number, found true"),
        (f"[{ONES},null]", "data[20000]: expected a number, found null"),
        (f"[{ONES},1,1]", "Shape does not match true shape of 'data' field: [20001] has 20001 elements"),
        (f"[{ONES}]", "Shape does not match true shape of 'data' field: [20001] has 20001 elements"),
    ],
)
def test_long_lists_that_do_not_hold_so_many_numbers(data: str, told: str) -> None:
    body = b'{"inputs":[{"name":"x","shape":[20001],"datatype":"FP32","data":%b}]}' % data.encode()
    assert told in refused(face(("x", "float32", ())), {}, body).detail


def test_brackets_alone_take_little_memory() -> None:
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":%b}]}' % (b"[" * (4 << 20) + b"]" * (4 << 20))
    tracemalloc.start()
    try:
        assert refused(face(("x", "float32", ())), {}, body).status == 400
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()


def test_a_long_list_that_is_no_inputs_is_left_where_it_is() -> None:
    body = long_request("[1,2]", 2, f',"parameters":{{"data":[{ONES}]}}')
    assert rows_of(read_infer(PAIR, {}, body)).arrays["x"].tolist() == [[1, 2]]
    body = long_request("[null]", 2, f',"parameters":{{"data":[{ONES}]}}')
    assert refused(PAIR, {}, body).status == 400


# Classification


def test_the_best_classes_with_labels() -> None:
    inputs = [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [3.3, -1, 0.25, 7]}]
    for as_bytes in (True, False):
        outputs = [{"name": "x", "parameters": {"classification": 5, "binary_data": as_bytes}}]
        document, back = read_back(answer(read_infer(PAIR, *request(inputs, outputs=outputs))))
        assert document["outputs"][0]["datatype"] == "BYTES"
        assert back["x"].tolist() == [[b"3.300000:0:cat", b"-1.000000:1:dog"], [b"7.000000:1:dog", b"0.250000:0:cat"]]


def test_the_best_classes_of_integers_without_labels_over_all_dimensions() -> None:
    inputs = [{"name": "x", "shape": [1, 2, 2], "datatype": "INT32", "data": [5, -7, 9, 9]}]
    outputs = [{"name": "x", "parameters": {"classification": 3}}]
    back = read_back(answer(read_infer(face(("x", "int32", (2, 2))), *request(inputs, outputs=outputs))))[1]
    assert back["x"].tolist() == [[b"9:2", b"9:3", b"5:0"]]


@pytest.mark.parametrize("dtype", ["bool", "float16", "bfloat16", "string"])
def test_what_has_no_classes(dtype: str) -> None:
    entry, blob = binary("x", np.array([[b"a"]], object) if dtype == "string" else values(dtype)[:1, :1])
    outputs = [{"name": "x", "parameters": {"classification": 1, "binary_data": True}}]
    problem = refused(face(("x", dtype, (1,))), *request([entry], blob, outputs=outputs))
    told = f"class result not available for output 'x' due to unsupported type '{NAMES[dtype]}'"
    assert (problem.status, problem.detail) == (400, told)


def test_a_million_classes_are_the_most() -> None:
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
    outputs = [{"name": "x", "parameters": {"classification": 1_000_001}}]
    assert "at most 1000000" in refused(PAIR, *request(inputs, outputs=outputs)).detail


# Raw requests


def test_a_raw_request_is_one_row_of_the_only_input_and_all_outputs_are_bytes() -> None:
    raw = np.array([1, 2], np.float32).tobytes()
    document, back = read_back(answer(read_infer(PAIR, {LENGTH: "0"}, raw)))
    assert back["x"].tolist() == [[1, 2]]
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 8}
    free = face(("x", "int16", (None, 2)))
    assert rows_of(read_infer(free, {LENGTH: "0"}, bytes(12))).arrays["x"].shape == (1, 3, 2)
    for shape in ((), (1,)):
        question = read_infer(face(("s", "string", shape)), {LENGTH: "0"}, b"\0\xff")
        assert rows_of(question).arrays["s"].reshape(-1).tolist() == [b"\0\xff"]


UNTOLD = "can not be deduced because there are more than one variable-sized dimension"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            FOUR,
            "Raw request must only have 1 input (found 1) to be deduced but got 4 inputs in 'm' model configuration",
        ),
        (face(("x", "float32", (None, None))), f"The shape of the raw input 'x' {UNTOLD}"),
        (face(("s", "string", (2,))), "For BYTE datatype raw input 's', the model must have input shape [1]"),
        (PAIR, "input byte size mismatch for input 'x'. Expected 8, got 12"),
        (face(("x", "float32", (None, 2))), "input byte size mismatch for input 'x'. Expected 8, got 12"),
        (face(("x", "float32", (None, 0))), "input byte size mismatch for input 'x'. Expected 0, got 12"),
    ],
)
def test_a_raw_request_that_cannot_be_read(model: ModelFace, told: str) -> None:
    problem = refused(model, {LENGTH: "0"}, bytes(12))
    assert (problem.status, problem.detail) == (400, told)


# Parameters and headers


@pytest.mark.parametrize(
    ("parameters", "priority", "timeout"),
    [
        ({}, Priority.INTERACTIVE, 2.0),
        ({"priority": 0, "timeout": 0}, Priority.INTERACTIVE, 2.0),
        ({"priority": 1, "timeout": 500_000}, Priority.INTERACTIVE, 0.5),
        ({"priority": 2, "timeout": 3_000_000}, Priority.BULK, 2.0),
        ({"sequence_id": 7, "anything": "else", "timeout": 2**64 - 1}, Priority.INTERACTIVE, 2.0),
    ],
)
def test_priority_and_timeout(parameters: dict[str, Any], priority: Priority, timeout: float) -> None:
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
    headers, body = request(inputs, parameters=parameters)
    options = read_infer(PAIR, {**headers, "request-timeout": "2", "cache-control": "no-store"}, body).options
    assert (options.protocol, options.priority, options.timeout) == ("open_inference", priority, timeout)
    assert options.cache.no_store


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.1,deflate;q=0.5", "deflate"),
        ("br", ""),
        ("identity;q=0.9, gzip;q=0.5", ""),
        ("gzip;q=0", ""),
        ("GZIP ; Q=1", "gzip"),
        ("gzip;q=x", ""),
        ("*", ""),
    ],
)
def test_the_coding_that_is_liked_best(accepted: str, coding: str) -> None:
    assert response_coding(accepted) == coding


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_is_compressed_where_that_is_worth_it(coding: str) -> None:
    ones = np.ones((2000, 2), np.float32)
    noise = np.random.default_rng(5).normal(size=(2000, 2)).astype(np.float32)
    for array, compressed in ((ones[:1], False), (ones, True), (noise, False)):
        entry, blob = binary("x", array)
        headers, body = request([entry], blob, parameters={"binary_data_output": True})
        encoded = answer(read_infer(PAIR, {**headers, "accept-encoding": coding}, body))
        assert (dict(encoded.headers).get("Content-Encoding") == coding) is compressed
        assert same(read_back(encoded)[1]["x"], array)


# What is refused


X = {"name": "x", "shape": [1, 2], "datatype": "FP32"}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "expected an object, found a list"),
        ({"inputs": {}}, "Unable to parse 'inputs': expected a list, found an object"),
        ({"inputs": [1]}, "Unable to parse 'inputs': expected objects, found an integer"),
        ({"inputs": []}, "expected 1 inputs but got 0 inputs for model 'm'"),
        ({}, "expected 1 inputs but got 0 inputs for model 'm'"),
        ({"inputs": [{**X, "name": 5, "data": [1, 2]}]}, "Unable to parse 'name': expected a string"),
        ({"inputs": [{**X, "datatype": "FLOAT", "data": [1, 2]}]}, "there is no datatype 'FLOAT'; there are: BOOL"),
        ({"inputs": [{**X, "datatype": "FP64", "data": [1, 2]}]}, "unexpected data-type for input 'x' for model 'm'"),
        ({"inputs": [{**X, "shape": [1, 3], "data": [1, 2, 3]}]}, "unexpected shape for input 'x' for model 'm'"),
        (
            {"inputs": [{**X, "shape": [-1, 2], "data": [1, 2]}]},
            "Unable to parse 'shape': attempt to access JSON non-uns",
        ),
        ({"inputs": [{**X, "shape": [True, 2], "data": [1, 2]}]}, "Unable to parse 'shape'"),
        ({"inputs": [{**X, "shape": [10**12, 2], "data": [1, 2]}]}, "Shape does not match true shape of 'data' field"),
        ({"inputs": [{**X, "shape": [10**12, 10**12], "data": []}]}, "total element count to exceed maximum size"),
        ({"inputs": [{**X, "shape": [10**12, 0], "data": []}]}, "1000000000000 rows without any element are too many"),
        ({"inputs": [{**X, "shape": [1] * 33, "data": [1]}]}, "33 dimensions"),
        ({"inputs": [{**X, "data": [1, 2, 3]}]}, "Shape does not match true shape of 'data' field"),
        ({"inputs": [{**X, "data": "12"}]}, "Unable to parse 'data': expected a list, found a string"),
        ({"inputs": [X]}, "Unable to parse 'data': it is missing"),
        ({"inputs": [{**X, "data": [1, "2"]}]}, "data[1]: expected a number, found a string"),
        (
            {"inputs": [{**X, "datatype": "FP16", "data": [1, 2]}]},
            "receiving FP16 data via JSON is not supported. Please use",
        ),
        ({"inputs": [{**X, "datatype": "INT8", "data": [1, 200]}]}, "200 is out of the range of int8"),
        ({"inputs": [{**X, "name": "z", "data": [1, 2]}]}, "unexpected inference input 'z' for model 'm'"),
        ({"inputs": [{**X, "data": [1, 2]}] * 2}, "input 'x' already exists in request"),
        ({"inputs": [{**X, "data": [1, 2], "parameters": 3}]}, "Unable to parse 'parameters'"),
        (
            {"inputs": [{**X, "parameters": {"binary_data_size": 8}}]},
            "must specify a valid Inference-Header-Content-Length",
        ),
        (
            {"inputs": [{**X, "data": [1, 2]}], "outputs": [{"name": "q"}]},
            "unexpected inference output 'q' for model 'm'",
        ),
        ({"inputs": [{**X, "data": [1, 2]}], "outputs": [{"name": "x"}] * 2}, "output 'x' already exists in request"),
        ({"inputs": [{**X, "data": [1, 2]}], "id": 5}, "Unable to parse 'id'"),
        ({"inputs": [{**X, "data": [1, 2]}], "parameters": {"priority": -1}}, "Unable to parse 'priority'"),
        ({"inputs": [{**X, "data": [1, 2]}], "parameters": {"timeout": "soon"}}, "Unable to parse 'timeout'"),
        (
            {"inputs": [{**X, "data": [1, float("nan")]}], "parameters": {"timeout": 10**400}},
            "Unable to parse 'timeout'",
        ),
        ({"inputs": [{**X, "shape": [10**400], "data": [1, float("nan")]}]}, "Unable to parse 'shape'"),
    ],
)
def test_what_is_wrong_is_said(document: Any, told: str) -> None:
    problem = refused(PAIR, {}, json.dumps(document).encode())
    assert problem.status == 400
    assert told in problem.detail


def test_a_missing_input_is_named() -> None:
    told = refused(
        FOUR, {}, json.dumps({"inputs": [{**X, "name": "f", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()
    ).detail
    assert "missing required input 'i' for model 'm'" in told


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_not_supported(where: str) -> None:
    document: dict[str, Any] = {"inputs": [{**X, "data": [1, 2]}], "outputs": [{"name": "x"}]}
    document[where][0]["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    assert refused(PAIR, {}, json.dumps(document).encode()).status == 501


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (b"1234567", "unexpected size for input 'x', expecting 1 additional bytes for model 'm'"),
        (b"123456789", "unexpected additional input data for model 'm': 1 bytes"),
    ],
)
def test_bytes_that_do_not_add_up(more: bytes, told: str) -> None:
    assert refused(PAIR, *request([{**X, "parameters": {"binary_data_size": 8}}], more)).detail == told


def test_a_size_that_is_not_that_of_the_shape() -> None:
    told = refused(PAIR, *request([{**X, "parameters": {"binary_data_size": 4}}], bytes(4))).detail
    assert told == "input byte size mismatch for input 'x'. Expected 8, got 4"


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "99999", "9" * 40, "", "٣"])
def test_a_header_length_that_cannot_be(length: str) -> None:
    body = json.dumps({"inputs": [{**X, "data": [1, 2]}]}).encode()
    told = f"inference header size should be in range (0, {len(body)}), got: {length}"
    assert refused(PAIR, {LENGTH: length}, body).detail == told


@pytest.mark.parametrize(
    "blob",
    [b"\5\0\0\0abc\1\0\0\0a", b"\1\0\0\0a", b"\1\0\0\0a\1\0\0\0bc", b"\1\0\0", b"\xff\xff\xff\xff\0\0\0\0",
     b"\1\0\0\0a\1\0"],
)  # fmt: skip
def test_strings_whose_bytes_do_not_add_up(blob: bytes) -> None:
    entry = {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    assert refused(face(("s", "string", ())), *request([entry], blob)).status == 400


def test_a_bool_is_0_or_1() -> None:
    entry = {"name": "o", "shape": [1, 2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    assert "0 or 1" in refused(face(("o", "bool", (2,))), *request([entry], b"\1\2")).detail


def test_nesting_has_its_limit() -> None:
    body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":%b1,2%b}]}'
    read_infer(PAIR, {}, body % (b"[" * 100, b"]" * 100))
    told = "JSON nesting depth exceeds maximum allowed limit (100)"
    assert told in refused(PAIR, {}, body % (b"[" * 101, b"]" * 101)).detail
    assert refused(PAIR, {}, body % (b"[" * 100_000, b"]" * 100_000)).status == 400


def test_a_lone_surrogate_is_no_id() -> None:
    body = b'{"id":"\\ud800","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
    assert refused(PAIR, {}, body).status == 400


def test_a_dtype_without_a_name_is_not_given() -> None:
    model = ModelFace(
        "m", 1,
        {"s": Signature("s", (TensorSpec("x", "float32", (2,)),), (TensorSpec("c", "complex64", ()),))},
    )  # fmt: skip
    assert "complex64" in refused(model, {}, json.dumps({"inputs": [{**X, "data": [1, 2]}]}).encode()).detail


def test_a_bad_row_is_the_answers_error() -> None:
    question = read_infer(PAIR, *request([{**X, "data": [1, 2]}]))
    bad = Answer(RowLayout(question.signature.outputs), [None], [Outcome.FAILED], {0: Problem(422, "no good")})
    with pytest.raises(Problem, match="no good"):
        question.encode(bad)


def test_a_fault_is_an_object_with_its_text() -> None:
    encoded = encode_fault(Problem(503, 'all "busy"', retry_after=2))
    assert (encoded.status, json.loads(encoded.body)) == (503, {"error": 'all "busy"'})
    assert dict(encoded.headers) == {"Content-Type": "application/json", "Retry-After": "2"}
    encoded = encode_fault(Problem(415, "br", reason="coding"))
    assert encoded.status == 501
    assert json.loads(encoded.body)["error"].startswith("Unsupported compression type")


# Mutated requests


def mutations(whole: bytes, chance: random.Random) -> bytes:
    body = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(4):
            case 0 if at < len(body):
                body[at] = chance.randrange(256)
            case 1:
                del body[at : at + chance.randint(1, 8)]
            case 2:
                body[at:at] = chance.choice(
                    [b"[", b"]", b'"', b"{", b"0", b"-", b"9" * 30, b"null", b"1e999", b"\\ud800"]
                )
            case _:
                body[at:at] = body[at : at + chance.randint(1, 20)]
    return bytes(body)


def test_ten_thousand_mutated_requests_are_read_or_refused() -> None:
    chance = random.Random(20)
    half = np.array([[1, 2]], ml_dtypes.bfloat16)
    parts = [binary("h", half), binary("s", np.array([b"word"], object)), (tensor("i", np.array([7]), data=[7]), b"")]
    outputs = [{"name": "i", "parameters": {"classification": 2}}, {"name": "s", "parameters": {"binary_data": True}}]
    model = face(("h", "bfloat16", (2,)), ("s", "string", ()), ("i", "int64", ()))
    headers, body = request(
        [part[0] for part in parts], *[part[1] for part in parts], outputs=outputs, id="1", parameters={"timeout": 5}
    )
    plain = json.dumps({"inputs": [{**X, "data": [[1.5, -2e3]]}], "outputs": [{"name": "x"}]}).encode()
    read, seen = 0, set()
    for turn in range(MUTATIONS):
        one, base, about = [(model, body, headers), (PAIR, plain, {}), (PAIR, bytes(8), {LENGTH: "0"})][turn % 3]
        length = (
            {LENGTH: mutations(about[LENGTH].encode(), chance).decode("latin-1")} if turn % 7 == 1 and about else about
        )
        try:
            question = read_infer(one, length, mutations(base, chance))
            answer(question)
            read += 1
        except Problem as problem:
            seen.add(problem.status)
            encode_fault(problem)
    assert seen <= {400, 501}
    assert read > 500
