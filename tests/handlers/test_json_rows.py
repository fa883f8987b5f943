"""JSON rows of a signature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.json_rows import merged, row_of, same_shape_rows
from rowserve.handlers.json_values import JsonFault

ONE = Signature("one", (TensorSpec("x", "float32", (2,)),), ())
FREE = Signature("free", (TensorSpec("x", "float32", (None,)),), ())
TWO = Signature("two", (TensorSpec("a", "int64", ()), TensorSpec("b", "string", (2,))), ())
STATIC = Signature("static", (TensorSpec("k", "int32", (), batched=False), TensorSpec("x", "float32", (2,))), ())
ALL_STATIC = Signature("all", (TensorSpec("k", "int32", (2,), batched=False),), ())
TEXT = Signature("text", (TensorSpec("t", "string", ()),), ())
NAMED_B64 = Signature("named", (TensorSpec("b64", "string", ()),), ())


def fault(signature: Signature, value: Any) -> str:
    with pytest.raises(JsonFault) as caught:
        row_of(signature, value, "row")
    return caught.value.detail


def plain(rows: list[Rows]) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    def lists(arrays: Any) -> dict[str, Any]:
        return {name: array.tolist() for name, array in arrays.items()}

    return [(part.count, lists(part.arrays), lists(part.static)) for part in rows]


def test_the_value_itself_or_an_object():
    assert row_of(ONE, [1, 2], "row").arrays["x"].tolist() == [[1, 2]]
    assert row_of(ONE, {"x": [1, 2]}, "row").arrays["x"].tolist() == [[1, 2]]
    row = row_of(TWO, {"a": 5, "b": ["u", {"b64": "AP8="}]}, "row")
    assert row.arrays["a"].tolist() == [5]
    assert row.arrays["b"].tolist() == [[b"u", b"\0\xff"]]


def test_b64_is_a_value_unless_that_is_the_inputs_name():
    assert row_of(TEXT, {"b64": "YQ=="}, "row").arrays["t"].tolist() == [b"a"]
    assert row_of(TEXT, {"t": {"b64": "YQ=="}}, "row").arrays["t"].tolist() == [b"a"]
    assert row_of(NAMED_B64, {"b64": "YQ=="}, "row").arrays["b64"].tolist() == [b"YQ=="]


def test_static_inputs_stand_apart():
    row = row_of(STATIC, {"k": 3, "x": [1, 2]}, "row")
    assert row.static["k"].tolist() == 3
    assert row.static["k"].dtype == np.int32
    assert list(row.arrays) == ["x"]
    assert plain([row_of(ALL_STATIC, [1, 2], "row")]) == [(1, {}, {"k": [1, 2]})]


@pytest.mark.parametrize(
    ("signature", "value", "words"),
    [
        (TWO, [1, 2], "row: expected an object with the inputs a, b, found a list"),
        (TWO, {"a": 1}, "row: input 'b' is missing"),
        (TWO, {"a": 1, "b": ["u", "v"], "c": 1}, "row.c: no such input; there are: a, b"),
        (TWO, {"a": 1, "b": ["u", 5]}, "row.b[1]: expected a string"),
        (STATIC, {"k": 1.5, "x": [1, 2]}, "row.k: expected an integer"),
        (ONE, {"y": [1, 2]}, "row.y: no such input; there are: x"),
        (ONE, {"x": [1, "2"]}, "row.x[1]: expected a number, found a string"),
        (ONE, [1, None], "row[1]: expected a number, found null"),
    ],
)
def test_the_path_to_a_fault(signature: Signature, value: Any, words: str):
    assert fault(signature, value).startswith(words)


def rows_of(signature: Signature, *values: Any) -> list[Rows]:
    return merged(row_of(signature, value, "r") for value in values)


def test_equal_shapes_come_together():
    assert plain(rows_of(ONE, [1, 2], {"x": [3, 4]})) == [(2, {"x": [[1, 2], [3, 4]]}, {})]
    assert plain(rows_of(FREE, [1], [2], [3, 4], [5])) == [
        (2, {"x": [[1], [2]]}, {}),
        (1, {"x": [[3, 4]]}, {}),
        (1, {"x": [[5]]}, {}),
    ]


def test_equal_static_inputs_come_together():
    values = [{"k": k, "x": [k, 0]} for k in (1, 1, 2, 1)]
    assert [(part.count, part.static["k"].item()) for part in rows_of(STATIC, *values)] == [(2, 1), (1, 2), (1, 1)]
    assert len(rows_of(ALL_STATIC, [1, 2], [1, 2])) == 2  # without any array there is nothing to put together


ROW = st.fixed_dictionaries(
    {
        "a": st.integers(-(2**63), 2**63 - 1),
        "b": st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2),
    }
)


@given(st.lists(ROW, min_size=1, max_size=5))
def test_many_rows_are_what_each_is_alone(values: list[dict[str, Any]]):
    values = json.loads(json.dumps(values))
    together = same_shape_rows(TWO, values, nan=False)
    assert together is not None
    assert together.count == len(values)
    for index, value in enumerate(values):
        alone = row_of(TWO, value, "r")
        for name in ("a", "b"):
            assert together.arrays[name][index : index + 1].tolist() == alone.arrays[name].tolist()
            assert together.arrays[name].dtype == alone.arrays[name].dtype
