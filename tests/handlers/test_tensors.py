"""Tensors by name to rows: what fits, and what is said of what does not."""

from __future__ import annotations

import numpy as np
import pytest

from rowserve.graphs.rows import RowLayout
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Answer, Outcome
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensors import TensorFault, rows_of, tensors_of

X = TensorSpec("x", "float32", (2,))
WORDS = TensorSpec("words", "string", (None,))
SCALE = TensorSpec("scale", "int64", (), batched=False)
OUT = (TensorSpec("a", "float32", (2,)), TensorSpec("b", "int64", ()))
SIGNATURE = Signature("serving_default", (SCALE, WORDS, X), OUT)
GOOD = {
    "x": np.zeros((3, 2), np.float32),
    "words": np.array([[b"a"], [b"b"], [b"c"]], object),
    "scale": np.array(2, np.int64),
}


def test_tensors_become_rows():
    rows = rows_of(SIGNATURE, GOOD)
    assert rows.count == 3
    assert set(rows.arrays) == {"x", "words"}
    assert rows.static["scale"] == 2
    assert rows.arrays["x"] is GOOD["x"]


def test_no_rows_are_rows():
    assert rows_of(SIGNATURE, {**GOOD, "x": GOOD["x"][:0], "words": GOOD["words"][:0]}).count == 0


def test_rows_without_an_element_are_few():
    free = Signature("serving_default", (TensorSpec("x", "float32", (None,)),), OUT)
    assert rows_of(free, {"x": np.zeros((1024, 0), np.float32)}).count == 1024
    with pytest.raises(TensorFault, match="1,000,000,000,000 rows without an element"):
        rows_of(free, {"x": np.zeros((10**12, 0), np.float32)})


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"y": np.zeros(1)}, "unknown", "there is no input 'y'; the inputs are: scale, words, x"),
        ({"x": None}, "missing", "input 'x' is missing"),
        ({"x": np.zeros((3, 2))}, "dtype", "input 'x' takes float32, not float64"),
        ({"words": np.zeros((3, 2), np.int8)}, "dtype", "input 'words' takes string, not int8"),
        ({"x": np.zeros((3, 3), np.float32)}, "shape", "input 'x' takes the shape [-1, 2], not [3, 3]"),
        ({"x": np.float32(1).reshape(())}, "shape", "not a scalar"),
        ({"scale": np.zeros(1, np.int64)}, "shape", "input 'scale' takes the shape [], not [1]"),
        ({"x": np.zeros((2, 2), np.float32)}, "rows", "different numbers of rows: words 3, x 2"),
    ],
)
def test_what_does_not_fit_is_named(change, kind, told):
    tensors = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    with pytest.raises(TensorFault) as caught:
        rows_of(SIGNATURE, tensors)
    assert caught.value.kind == kind
    assert caught.value.status == 400
    assert told in caught.value.detail


def test_rows_become_tensors_in_the_order_asked_for():
    layout = RowLayout(OUT)
    packed = layout.pack({"a": np.ones((2, 2), np.float32), "b": np.array([5, 6])}, 2)
    answer = Answer(layout, list(packed), [Outcome.HIT] * 2)
    assert list(tensors_of(answer, ["b", "a"])) == ["b", "a"]
    assert tensors_of(answer)["b"].tolist() == [5, 6]
    answer.errors[1] = Problem(422, "no")
    with pytest.raises(Problem, match="no"):
        tensors_of(answer)
