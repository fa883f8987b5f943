"""Lists of any length to arrays: by pieces or at once, the array is the same, and so is the fault."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import json_number_lists, json_pieces, json_values
from rowserve.handlers.json_pieces import LongList, read_pieces
from rowserve.handlers.json_rows import number_rows_of
from rowserve.handlers.json_tensors import array_of
from rowserve.handlers.json_values import DIMENSIONS, JsonFault, read_json, tensor, unb64

FLOAT: Any = st.integers(-5, 5) | st.floats(-9, 9, width=16) | st.sampled_from([float("nan"), 1e39, None, True, "x"])
TEXT: Any = st.text(max_size=9) | st.sampled_from([{"b64": "AP8="}, {"b64": "!"}, {"b": 1}, 5, None])
small_pieces = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[12, 25])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So few bytes are a piece that most lists have many."""
    for module in (json_pieces, json_number_lists):
        monkeypatch.setattr(module, "PIECE", request.param)
    return int(request.param)


def nested(leaves: Any) -> Any:
    rows = st.lists(leaves, min_size=2, max_size=3)
    return st.lists(leaves, min_size=1) | st.lists(rows, min_size=1) | st.lists(st.lists(rows, min_size=1, max_size=2))


def outcome(call: Any) -> Any:
    """An array, or the path of the fault."""
    try:
        return call()
    except JsonFault as fault:
        return fault.path


@small_pieces
@given(
    nested(FLOAT), st.sampled_from(["float32", "int32", "bool"]),
    st.none() | st.lists(st.none() | st.integers(1, 3), max_size=3).map(tuple), st.booleans(),
)  # fmt: skip
def test_numbers_are_read_alike(piece: int, values: Any, dtype: str, shape: Any, nan: bool):
    same(values, dtype, shape, nan)


@small_pieces
@given(nested(TEXT), st.none() | st.lists(st.none() | st.integers(1, 3), max_size=3).map(tuple))
def test_strings_are_read_alike(piece: int, values: Any, shape: Any):
    same(values, "string", shape, False)


def same(values: Any, dtype: str, shape: Any, nan: bool) -> None:
    text = json.dumps(values).encode()
    at_once = outcome(lambda: tensor(read_json(text), dtype, shape, "row", nan=nan))
    by_pieces = outcome(lambda: array_of(read_pieces(text)[0], dtype, shape, "row", nan=nan))
    if isinstance(at_once, str):
        assert isinstance(by_pieces, str), (values, at_once)
    else:
        assert by_pieces.dtype == at_once.dtype
        assert by_pieces.shape == at_once.shape
        assert np.array_equal(by_pieces, at_once, equal_nan=at_once.dtype.kind == "f")


def long(count: int, *last: Any) -> Any:
    value, _ = read_pieces(json.dumps([*[[1, 2]] * count, *last]).encode())
    assert isinstance(value, LongList)
    return value


@pytest.mark.parametrize(
    ("last", "path"),
    [(["x"], "row[50000]"), ([[1, "x"]], "row[50000][1]"), ([[1]], "row[50000]"), ([[1, 2], [[1, 2]]], "row[50001]")],
)
def test_a_fault_far_behind_has_its_path(last: Any, path: str):
    for shape in ((None, 2), (None, None), None):
        with pytest.raises(JsonFault) as caught:
            array_of(long(50_000, *last), "float32", shape, "row")
        assert caught.value.path.startswith(path)


def test_a_list_of_another_length():
    for size, told in ((50_001, "of 50001, found one of 50000"), (7, "of 7, found one of more")):
        with pytest.raises(JsonFault) as caught:
            array_of(long(50_000), "float32", (size, 2), "row")
        assert (caught.value.path, caught.value.kind) == ("row", "size")
        assert told in caught.value.detail
    with pytest.raises(JsonFault):
        array_of(long(50_000), "float32", (), "row")


def test_elements_that_are_long_lists_themselves():
    row = list(range(40_000))
    value, _ = read_pieces(json.dumps([row, row, [*row[:-1], "x"]]).encode())
    with pytest.raises(JsonFault) as caught:
        array_of(value, "int64", (None, None), "row")
    assert caught.value.path == "row[2][39999]"
    words, _ = read_pieces(json.dumps([[str(i) for i in row]] * 2).encode())
    array = array_of(words, "string", (None, None), "row")
    assert array.shape == (2, 40_000)
    assert array[1, 39_999] == b"39999"


def test_lists_nested_too_deeply_for_a_tensor():
    for deep in (DIMENSIONS + 1, 500):
        one: Any = 1
        for _ in range(deep):
            one = [one]
        for count in (1, 5000):
            value, _ = read_pieces(json.dumps([one] * count).encode())
            with pytest.raises(JsonFault):
                array_of(value, "float32", None, "row")


def test_strings_and_bytes_that_are_long(monkeypatch: pytest.MonkeyPatch):
    data = bytes(range(256)) * 50
    text = "\u00e9\U0001f600x" * 999
    for piece in (4, 400, 1 << 20):
        monkeypatch.setattr(json_values, "PIECE", piece)
        for length in range(len(data) - 7, len(data)):
            encoded = base64.b64encode(data[:length]).decode()
            assert unb64({"b64": encoded}, "") == data[:length]
            assert unb64({"b64": encoded.rstrip("=")}, "") == data[:length]
        for wrong in (encoded[:80] + "=" + encoded[81:], encoded[:80] + "!" + encoded[81:], "A" * 4001):
            with pytest.raises(JsonFault):
                unb64({"b64": wrong}, "")
        assert tensor([text], "string", (1,), "")[0] == text.encode()


def test_all_rows_of_numbers_at_once():
    signature = Signature("s", (TensorSpec("x", "float32", (2,)),), ())
    rows = number_rows_of(signature, long(50_000, [3, 4]), nan=False)
    assert rows is not None
    assert (rows.count, rows.arrays["x"].shape) == (50_001, (50_001, 2))
    assert number_rows_of(signature, long(50_000, [3]), nan=False) is None
    assert number_rows_of(signature, [[1, 2]], nan=False) is None
    two = Signature("s", (*signature.inputs, TensorSpec("k", "int32", ())), ())
    assert number_rows_of(two, long(50_000), nan=False) is None
