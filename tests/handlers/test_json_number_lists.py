"""Long lists of numbers by pieces: what the slow way gives, or nothing."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.handlers import json_number_lists
from rowserve.handlers.json_number_lists import DIMENSIONS, nested_numbers, shape_of
from rowserve.handlers.json_numbers import skeleton
from rowserve.handlers.json_values import JsonFault, read_json, tensor
from rowserve.handlers.problem import Problem
from tests.mutations import MUTATIONS

DTYPES = ["float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint64"]
PLAIN = orjson.OPT_SERIALIZE_NUMPY
small_pieces = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[7, 30, 65536])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So few bytes are a piece that most lists have many."""
    monkeypatch.setattr(json_number_lists, "PIECE", request.param)
    return int(request.param)


def test_a_number_longer_than_a_piece_is_left_to_the_slow_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_number_lists, "PIECE", 30)
    assert nested_numbers(memoryview(b"[[[[1.3407807929942597e+154]]]]"), np.dtype("float64"), nan=True) is None


@small_pieces
@given(st.data(), st.sampled_from(DTYPES), hnp.array_shapes(max_dims=4, max_side=4))
def test_numbers_come_back(piece: int, data: st.DataObject, dtype: str, shape: tuple[int, ...]):
    elements = (
        st.integers(0, 99) if np.dtype(dtype).kind in "iu" else hnp.from_dtype(np.dtype(dtype), allow_infinity=False)
    )
    array = data.draw(hnp.arrays(dtype, shape, elements=elements))
    indent = data.draw(st.sampled_from([None, 1]))
    text = json.dumps(array.tolist(), indent=indent).encode()
    back = nested_numbers(memoryview(text), np.dtype(dtype), nan=True)
    # What is longer than a piece and without a comma is left to the slow way.
    longest = max(map(len, text.split(b",")))
    assert back is not None or piece == 7 or longest >= piece - 1 or (piece == 30 and indent)
    if back is not None:
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")


TOKENS = [b"[", b"]", b",", b"1", b"2.5", b"-0", b"-", b"1e3", b".", b" ", b"NaN", b"-Infinity", b"null", b"true"]
TOKENS += [b"{", b"[1,2]", b"[3,4]", b"[1,2],[3,4]", b"[]", b"18446744073709551615", b"1e400", b"00", b"N", b"\xff"]


@pytest.mark.parametrize("nan", [True, False])
def test_what_it_takes_the_slow_way_takes(piece: int, nan: bool):
    chance = random.Random(piece)
    taken = 0
    for _ in range(MUTATIONS):
        parts = [
            b"".join(chance.choices(TOKENS, k=chance.choice([1, 1, 1, 1, 2]))) for _ in range(chance.randint(1, 4))
        ]
        text = b"[" + b",".join(parts) + b"]"
        dtype = chance.choice(DTYPES)
        fast = nested_numbers(text, np.dtype(dtype), nan=nan)
        if fast is None:
            continue
        taken += 1
        slow = tensor(read_json(text), dtype, None, "row", nan=nan)
        assert fast.shape == slow.shape, text
        assert np.array_equal(fast, slow, equal_nan=True), text
    assert taken > 50


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[", b"]", b"[]", b"[[],[]]", b"[1,]", b"[,1]", b"[1,,2]", b"[[1],[]]", b"[[1],2]", b"[1],[2]", b"[1],2",
        b"1", b" 1", b"[[1]", b"[1]]", b"[[1,2],3[,4]]", b"[[1,2],[3]4]", b"[1 2]", b"[[1],[2],[3,4]]", b'["1"]',
        b"[null]", b"[NaN,true]", b"[NaN,{}]", b'{"a": NaN}', b"NaN", b"[[NaN],[true]]",
        b"[1" + b" " * 99 + b"1]", b"[1]" + b" " * 99 + b",2",
    ],
)  # fmt: skip
def test_what_is_no_regular_list_of_numbers_is_left_to_the_slow_way(piece: int, text: bytes):
    assert nested_numbers(text, np.dtype("float32"), nan=True) is None


@pytest.mark.parametrize(
    ("text", "dtype"),
    [("[1.5]", "int32"), ("[256]", "uint8"), ("[-1]", "uint64"), ("[1e39]", "float32"), ("[NaN]", "int32")],
)
def test_numbers_of_another_dtype_are_left_to_the_slow_way(text: str, dtype: str):
    for longer in (text, f"[{'1,' * 50_000}{text[1:]}"):
        assert nested_numbers(longer.encode(), np.dtype(dtype), nan=True) is None


def test_a_number_is_never_cut_in_two(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_number_lists, "PIECE", 7)
    assert nested_numbers(b"[1844674407370955161]", np.dtype("uint64")) is None
    assert nested_numbers(b"[1,1844674407370955161,2]", np.dtype("float64")) is None


def test_nan_only_where_it_is_allowed():
    text = b"[" + b"0.5," * 50_000 + b"NaN,-Infinity,1]"
    array = nested_numbers(text, np.dtype("float32"), nan=True)
    assert array is not None
    assert np.isnan(array[-3])
    assert array[-2:].tolist() == [-np.inf, 1]
    assert nested_numbers(text, np.dtype("float32")) is None


def test_lists_deeper_than_any_array():
    one: Any = 1
    for _ in range(DIMENSIONS):
        one = [one]
    array = nested_numbers(json.dumps(one).encode(), np.dtype("float32"))
    assert array is not None
    assert array.shape == (1,) * DIMENSIONS
    assert nested_numbers(json.dumps([one]).encode(), np.dtype("float32")) is None
    assert nested_numbers(b"[" * 100_000 + b"1" + b"]" * 100_000, np.dtype("float32")) is None


def test_the_shape_is_that_of_the_structure():
    sizes = range(1, 10)
    shapes = {
        skeleton(shape): shape
        for rank in (1, 2, 3, 4)
        for shape in itertools.product(sizes, repeat=rank)
        if sum(shape) < 12
    }
    for length in range(9):
        for marks in itertools.product(b"[],", repeat=length):
            assert shape_of(bytes(marks)) == shapes.get(bytes(marks))


def test_large_lists_come_back():
    pictures = np.random.default_rng(1).random((3, 64, 64, 3)).astype(np.float32)
    for array in (pictures, pictures.reshape(-1), pictures.reshape(1, -1), pictures.reshape(-1, 1)):
        back = nested_numbers(orjson.dumps(array, option=PLAIN), np.dtype("float32"))
        assert back is not None
        assert np.array_equal(back, array)


def test_the_slow_way_refuses_what_is_ragged():
    """Or else the fast way would have to be believed."""
    for text in (b"[[1],[1,2]]", b"[[[1]],[[1],[2]]]"):
        assert nested_numbers(text, np.dtype("float32")) is None
        with pytest.raises((JsonFault, Problem)):
            tensor(read_json(text), "float32", None, "row")
