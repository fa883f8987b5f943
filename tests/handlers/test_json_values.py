"""JSON values to arrays: every dtype there and back, and a path to every fault."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.handlers import json_values
from rowserve.handlers.json_values import JsonFault, fits, read_json, tensor
from rowserve.handlers.problem import Problem

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def fault(value: Any, dtype: str, shape: Any, **options: Any) -> JsonFault:
    with pytest.raises(JsonFault) as caught:
        tensor(value, dtype, shape, "row", **options)
    assert caught.value.status == 400
    assert caught.value.detail.startswith(caught.value.path + ": ")
    return caught.value


@given(st.data(), st.sampled_from([*INTEGERS, *FLOATS, "bool"]), SHAPES)
def test_every_number_comes_back(data: st.DataObject, dtype: str, shape: tuple[int, ...]):
    elements = hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    array = data.draw(hnp.arrays(dtype, shape, elements=elements))
    back = tensor(json.loads(json.dumps(array.tolist())), dtype, shape, "row")
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(hnp.arrays("float32", 5, elements=hnp.from_dtype(np.dtype("float32"), allow_nan=False, allow_infinity=False)))
def test_float32_comes_back_from_its_shortest_digits(array: np.ndarray):
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    assert tensor(read_json(text), "float32", (5,), "row").tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20), min_size=1))
def test_strings_come_back(elements: list[bytes]):
    def as_json(element: bytes) -> Any:
        try:
            return element.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(element).decode()}

    array = tensor([as_json(element) for element in elements], "string", (None,), "row")
    assert array.dtype == object
    assert list(array) == elements


def test_bfloat16_rounds_from_the_number():
    assert tensor([1.0, 3.140625], "bfloat16", (2,), "row").tolist() == [1.0, 3.140625]


def test_integers_keep_all_their_bits():
    assert tensor([2**63 - 1, -(2**63), 2**53 + 1], "int64", (3,), "row").tolist() == [2**63 - 1, -(2**63), 2**53 + 1]
    assert tensor([2**64 - 1], "uint64", (1,), "row").tolist() == [2**64 - 1]


def test_b64_may_lack_its_padding():
    assert tensor([{"b64": "YQ"}, {"b64": "YQ=="}], "string", (2,), "row").tolist() == [b"a", b"a"]


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "path", "words"),
    [
        ([[1, 2], [3, "4"]], "float32", (2, 2), "row[1][1]", "expected a number, found a string"),
        ([[1, 2], [3]], "float32", (2, 2), "row[1]", "expected a list of 2, found one of 1"),
        ([[1, 2], [3]], "float32", (None, None), "row[1]", "expected a list of 2, found one of 1"),
        ([[1, 2], 3], "float32", (2, None), "row[1]", "expected a list, found an integer"),
        ([[1, 2], [3, [4]]], "float32", (None, None), "row[1][1]", "expected a number, found a list"),
        ([1, [2]], "int32", None, "row[1]", "expected an integer, found a list"),
        ([[1], 2], "int32", None, "row[1]", "expected a list of 1, found an integer"),
        (5, "float32", (1,), "row", "expected a list of 1, found an integer"),
        ([1], "float32", (), "row", "expected a number, found a list"),
        ([1.0], "int32", (1,), "row[0]", "expected an integer, found a number (1.0)"),
        ([True], "int32", (1,), "row[0]", "expected an integer, found true"),
        ([True], "float32", (1,), "row[0]", "expected a number, found true"),
        ([1], "bool", (1,), "row[0]", "expected true or false, found an integer"),
        ([None], "float32", (1,), "row[0]", "expected a number, found null"),
        ([{}], "float32", (1,), "row[0]", "expected a number, found an object"),
        ([{"b64": "YQ=="}], "float32", (1,), "row[0]", "expected a number, found an object"),
        ([300], "uint8", (1,), "row[0]", "300 is out of the range of uint8"),
        ([-1], "uint64", (1,), "row[0]", "-1 is out of the range of uint64"),
        ([2**64], "int64", (1,), "row[0]", "18446744073709551616 is out of the range of int64"),
        ([1e39], "float32", (1,), "row[0]", "1e+39 is out of the range of float32"),
        ([10**400], "float64", (1,), "row[0]", "is out of the range of float64"),
        ([math.nan], "float32", (1,), "row[0]", "NaN is not allowed"),
        ([-math.inf], "float64", (1,), "row[0]", "-Infinity is not allowed"),
        ([1], "string", (1,), "row[0]", 'expected a string or {"b64": ...}, found an integer'),
        ([{"b64": "!"}], "string", (1,), "row[0]", "not base64"),
        ([{"b64": "YQ==", "x": 1}], "string", (1,), "row[0]", "found an object"),
        (["\ud800"], "string", (1,), "row[0]", "no valid Unicode"),
        ([1], "complex64", (1,), "row[0]", "complex64 has no JSON form"),
    ],
)
def test_a_fault_names_its_place(value: Any, dtype: str, shape: Any, path: str, words: str):
    found = fault(value, dtype, shape)
    assert found.path == path
    assert words in found.detail


@given(st.integers(1, 5000), st.data())
def test_a_fault_among_many_is_found(count: int, data: st.DataObject):
    place = data.draw(st.integers(0, count - 1))
    flat: list[Any] = [1.5] * count
    flat[place] = "x"
    assert fault(flat, "float32", (None,)).path == f"row[{place}]"
    pairs: list[Any] = [[1, 2] for _ in range(count)]
    pairs[place] = [1, None]
    assert fault(pairs, "int32", (count, 2)).path == f"row[{place}][1]"
    pairs[place] = [1]
    assert fault(pairs, "int32", (None, 2)).path == f"row[{place}]"
    if count > 1:
        assert fault(pairs, "int32", (None, None)).path == f"row[{place or 1}]"


def test_a_fault_among_millions_is_not_walked_to(monkeypatch: pytest.MonkeyPatch):
    looked = []
    leaf_fault = json_values.leaf_fault
    monkeypatch.setattr(json_values, "leaf_fault", lambda *args: (looked.append(1), leaf_fault(*args)))
    assert fault([0.5] * 300_000 + ["x"], "float32", (None,)).path == "row[300000]"
    assert len(looked) <= json_values.WALKED


def test_nan_where_it_is_allowed():
    array = tensor([math.nan, math.inf, 1], "float32", (3,), "row", nan=True)
    assert np.isnan(array[0])
    assert array[1] == np.inf
    assert fault([math.nan], "int32", (1,), nan=True).kind == "type"
    assert fault([1e39], "float32", (1,), nan=True).kind == "range"


def test_no_elements():
    assert tensor([], "float32", (None, 3), "row").shape == (0, 3)
    assert tensor([[], []], "float32", (2, 0), "row").shape == (2, 0)
    assert fault([], "float32", (2,)).path == "row"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "x"]), inner, max_size=2),
    max_leaves=12,
)
ANY_SHAPE = st.none() | st.lists(st.none() | st.integers(0, 3), max_size=3).map(tuple)


@settings(max_examples=300)
@given(JSON, st.sampled_from([*INTEGERS, *FLOATS, "bfloat16", "bool", "string", "complex64"]), ANY_SHAPE, st.booleans())
def test_whatever_comes_is_an_array_or_a_fault_with_a_path(value: Any, dtype: str, shape: Any, nan: bool):
    found = None
    try:
        array = tensor(value, dtype, shape, "row", nan=nan)
    except JsonFault as error:
        found = error
    if found is not None:
        assert found.status == 400
        assert found.path.startswith("row")
    else:
        assert shape is None or fits(array.shape, shape)


@pytest.mark.parametrize("text", [b"", b"{", b"[1,]", b"\xff", b"[" * 100_000, b"1" * 5000, b"nul", b'"\xed\xa0\x80"'])
def test_what_is_no_json_is_a_problem(text: bytes):
    with pytest.raises(Problem) as caught:
        read_json(text)
    assert caught.value.status == 400
    assert "not JSON" in caught.value.detail


def test_nan_is_read_so_that_its_place_can_be_told():
    assert math.isnan(read_json(b"[NaN]")[0])
