"""The fast way for numbers: it gives what the slow way gives, or nothing."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.handlers import json_numbers
from rowserve.handlers.json_numbers import number_lines, number_rows, skeleton
from rowserve.handlers.json_values import JsonFault, read_json, tensor
from rowserve.handlers.problem import Problem

DTYPES = ["float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint64"]


def test_the_skeleton_of_a_shape():
    assert skeleton(()) == b""
    assert skeleton((3,)) == b"[,,]"
    assert skeleton((2, 2)) == b"[[,],[,]]"
    assert skeleton((0,)) == b"[]"


@given(st.data(), st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), st.integers(1, 5))
def test_numbers_come_back(data: st.DataObject, dtype: str, shape: tuple[int, ...], count: int):
    elements = hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    array = data.draw(hnp.arrays(dtype, (count, *shape), elements=elements))
    lines = [orjson.dumps(row.tolist()) for row in array]
    for back in (
        number_lines(lines, shape, np.dtype(dtype)),
        number_rows(b"[" + b",".join(lines) + b"]", shape, np.dtype(dtype)),
    ):
        assert back is not None
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert np.array_equal(back, array)


TOKENS = st.sampled_from(
    [b"[", b"]", b",", b"1", b"2.5", b"-0", b"-", b"1e3", b"e", b".", b" ", b"NaN", b"null", b"true", b'"a"', b"{",
     b"}", b"18446744073709551615", b"1e400", b"[1,2]", b"[3,4]", b"[1,2],[3,4]", b"\t", b"\r", b"00"]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.lists(TOKENS, max_size=6).map(b"".join), min_size=1, max_size=4), st.sampled_from(DTYPES))
def test_lines_are_read_as_each_alone_or_not_at_all(lines: list[bytes], dtype: str):
    """No line may borrow its brackets from the next: what the fast way takes, the slow way takes line by line."""
    for shape in ((), (2,), (1, 2)):
        array = number_lines(lines, shape, np.dtype(dtype))
        slow = []
        try:
            slow = [tensor(read_json(line), dtype, shape, "row") for line in lines]
        except (Problem, JsonFault):
            assert array is None
        else:
            assert array is None or np.array_equal(array, np.stack(slow))


def test_lines_that_only_together_look_right():
    assert number_lines([b"[1,2", b"3],[4,5,6]"], (3,), np.dtype("float32")) is None
    assert number_lines([b"[1,2],[3,4]", b""], (2,), np.dtype("float32")) is None
    assert number_lines([b"[[1,2],[3,4]]"], (4,), np.dtype("float32")) is None  # as_buffer alone would flatten it


@pytest.mark.parametrize("row", [b"[1,null]", b"[1,true]", b'[1,"2"]', b"[1,2.5]", b"[1,300]", b"[1,-1]", b"[1,1e2]"])
def test_what_is_no_uint8_is_left_to_the_slow_way(row: bytes):
    assert number_lines([row], (2,), np.dtype("uint8")) is None


def test_an_overflow_is_left_to_the_slow_way():
    assert number_lines([b"[1e39]"], (1,), np.dtype("float32")) is None
    assert number_rows(b"[[1e39]]", (1,), np.dtype("float32")) is None


def test_a_large_text_takes_a_parser_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_numbers, "KEPT_PARSER", 8)
    monkeypatch.setattr(json_numbers, "thread_parser", None)
    assert number_rows(b"[[1,2],[3,4]]", (2,), np.dtype("int32")).tolist() == [[1, 2], [3, 4]]  # type: ignore[union-attr]


def test_blank_space_is_allowed():
    assert number_rows(b" [ [ 1 ,\n2 ] ] ", (2,), np.dtype("int32")).tolist() == [[1, 2]]  # type: ignore[union-attr]
