"""Rows that bench makes up or reads, and which of them come again."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.tools.bench_input import read_pieces
from rowserve.tools.bench_rows import NEW, Input, MadeUpRows, inputs_of, repeats, zipf
from rowserve.tools.options import Refused

DTYPES = ["bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.sampled_from(DTYPES), st.lists(st.integers(1, 5), max_size=3), st.integers(0, 9))
def test_made_up_rows_are_whole_rows_of_finite_numbers(dtype, shape, seed):
    taken = Input("x", dtype, tuple(shape))
    made_up = MadeUpRows([taken, Input("y", "float32", (2,))], random(seed))
    for piece in [*made_up.some(3), *islice(made_up.new(), 3)]:
        row = np.frombuffer(piece[0], taken.numpy_dtype)
        assert row.size == int(np.prod(shape))
        assert np.isfinite(row.astype(np.float64)).all()
        assert len(piece[1]) == 8
        if taken.numpy_dtype.kind == "i":
            assert ((row >= 0) & (row < 128)).all()


@given(st.sampled_from(DTYPES))
def test_new_rows_are_all_different(dtype):
    rows = list(islice(MadeUpRows([Input("x", dtype, (70,))], random()).new(), 3000))
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    "bad", [Input("s", "string", (2,)), Input("s", "float32", (None,)), Input("s", "complex64", ())]
)
def test_rows_that_cannot_be_made_up_are_refused_by_name(bad):
    with pytest.raises(Refused, match="'s'"):
        MadeUpRows([bad], random())


@given(st.integers(1, 50), st.floats(0, 3), st.integers(0, 9))
def test_zipf_draws_known_rows_the_first_most(known, exponent, seed):
    drawn = Counter(islice(zipf(exponent, known, random(seed)), 3000))
    assert set(drawn) <= set(range(known))
    weights = np.arange(1, known + 1, dtype=float) ** -exponent
    wanted = 3000 * weights[0] / weights.sum()
    assert abs(drawn[0] - wanted) < 6 * wanted**0.5 + 6


@given(st.floats(0, 1), st.integers(1, 50), st.integers(0, 9))
def test_a_share_of_the_rows_is_repeated(share, known, seed):
    drawn = list(islice(repeats(share, known, random(seed)), 4000))
    old = [place for place in drawn if place != NEW]
    assert set(old) <= set(range(known))
    assert abs(len(old) - 4000 * share) < 6 * 32 + 1


def test_the_metadata_tell_the_inputs():
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4, -1]}]}
    assert inputs_of(document) == [Input("x", "float32", (4, None))]


X = Input("x", "float32", (2,))
TWO = np.array([[1, 2], [3, 4]], np.float32)


@pytest.mark.parametrize("kind", ["npy", "npz", "jsonl", "named.jsonl"])
def test_rows_are_read_from_all_kinds_of_files(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "npy":
        np.save(path, TWO)
    elif kind == "npz":
        np.savez(path, x=TWO)
    else:
        path.write_text("[1, 2]\n\n[3, 4]\n" if kind == "jsonl" else '{"x": [1, 2]}\n{"x": [3, 4]}\n')
    assert read_pieces(str(path), "open-inference", [X]) == [(row.tobytes(),) for row in TWO]
    lines = read_pieces(str(path), "rows", [])
    assert len(lines) == 2
    assert lines[0][0].strip()[:1] in b"[{"


def test_pictures_are_read_as_they_are(tmp_path):
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "b.jpg").write_bytes(b"two")
    assert read_pieces(str(tmp_path), "images", []) == [(b"one",), (b"two",)]


@pytest.mark.parametrize(
    ("name", "text", "protocol", "inputs", "word"),
    [
        ("rows.jsonl", "", "rows", [], "no row"),
        ("rows.jsonl", "[1]", "open-inference", [X], "shape"),
        ("rows.jsonl", "oh", "open-inference", [X], "input"),
        ("rows.jsonl", '{"y": 1}', "open-inference", [X], "'x'"),
        ("rows.jsonl", '["a", "b"]', "open-inference", [Input("x", "string", (2,))], "--protocol rows"),
        ("rows.jsonl", "[1, 2]", "images", [], "--protocol open-inference or rows"),
        ("a.png", "?", "rows", [], "--protocol images"),
        ("missing", None, "rows", [], "no such file"),
    ],
)
def test_what_cannot_be_sent_is_refused(tmp_path, name, text, protocol, inputs, word):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=word):
        read_pieces(str(tmp_path / name), protocol, inputs)
