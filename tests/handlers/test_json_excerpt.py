"""What an error shows of a value: its beginning, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.handlers.json_excerpt import SHOWN, show
from rowserve.handlers.json_pieces import read_pieces

SMALL = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(SMALL)
def test_it_is_the_json_of_the_value(value: Any):
    text = json.dumps(value)
    assert show(value) == (text if len(text) <= SHOWN else text[:SHOWN] + "...")


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


LARGE: list[Any] = [["x" * 10] * 100_000, "x" * 10**6, {"b64": "x" * 10**6}, {"k" * 10**6: 1}, deep(500)]


@pytest.mark.parametrize("value", LARGE)
def test_it_is_cut(value: Any):
    assert len(show(value)) == SHOWN + 3
    assert show(value).endswith("...")


def test_a_number_of_very_many_digits_is_not_written():
    assert show(10**5000) == "a number too long to show"


def test_a_list_that_is_still_text():
    value, _ = read_pieces(b"[" + b"1, " * 50_000 + b"2]")
    assert show(value) == json.dumps([1] * 50)[:SHOWN] + "..."
