from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rowserve.graphs.errors import GraphError, GraphFailed, RowBroken
from rowserve.graphs.isolation import answer_batch, extra_runs
from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec

X = TensorSpec("x", "float32", ())
PLAIN = Signature("s", (X,), (TensorSpec("y", "float32", ()),))
ALONE = Signature("s", (X,), (TensorSpec("y", "float32", (None,), batched=False),), alone="its rows hang together")


class Fussy:
    """y = 2 x, but a batch that holds one of `broken` fails with `error`. Counts its runs."""

    def __init__(self, broken=(), error: Exception | None = None, shape=None) -> None:
        self.broken = set(broken)
        self.error = error
        self.runs: list[int] = []

    def run(self, signature: str, rows: Rows):
        self.runs.append(rows.count)
        found = self.broken & set(rows.arrays["x"].tolist())
        if found:
            raise self.error or RowBroken(f"{min(found)} is no good")
        return {"y": rows.arrays["x"] * 2}


def rows(count: int) -> Rows:
    return Rows({"x": np.arange(count, dtype=np.float32)}, count)


def values(packed) -> list:
    layout = RowLayout(PLAIN.outputs)
    return [each if isinstance(each, Exception) else float(layout.unpack(each)["y"]) for each in packed]


def test_one_bad_row_in_64_gets_its_error_and_63_their_answers():
    session = Fussy({41})
    result = answer_batch(session, PLAIN, rows(64))
    found = values(result.packed)
    assert isinstance(found[41], RowBroken)
    assert "41" in str(found[41])
    assert [value for at, value in enumerate(found) if at != 41] == [2.0 * at for at in range(64) if at != 41]
    assert result.calls == len(session.runs) <= 1 + 2 * math.log2(64)


@given(st.data())
@example(None)
def test_every_row_gets_its_own_answer_or_an_error_within_the_bound(data):
    count = 64 if data is None else data.draw(st.integers(1, 80))
    broken = set(range(64)) if data is None else data.draw(st.sets(st.integers(0, count - 1)))
    session = Fussy(broken)
    result = answer_batch(session, PLAIN, rows(count))
    found = values(result.packed)
    assert len(found) == count
    assert result.calls == len(session.runs) <= 1 + extra_runs(count)
    assert extra_runs(count) <= 8 * math.ceil(math.log2(count)) if count > 1 else True
    for at, value in enumerate(found):
        if isinstance(value, RowBroken):
            assert at in broken
            assert str(value) == f"{float(at)} is no good"
        elif isinstance(value, GraphFailed):
            assert "gave up" in str(value)
        else:
            assert at not in broken
            assert value == 2.0 * at
    if 2 * math.ceil(math.log2(count or 1)) * len(broken) <= extra_runs(count):
        assert not any(isinstance(value, GraphFailed) for value in found)  # few broken rows are all told apart


@pytest.mark.parametrize("error", [GraphFailed("out of memory"), GraphFailed("internal")])
def test_a_fault_of_the_graph_is_the_whole_batch_s_and_is_not_tried_again(error: GraphFailed):
    session = Fussy({3}, error)
    result = answer_batch(session, PLAIN, rows(64))
    assert result.packed == [error] * 64
    assert result.calls == len(session.runs) == 1


def test_no_rows_need_no_graph():
    session = Fussy()
    assert answer_batch(session, PLAIN, rows(0)).packed == []
    assert session.runs == []


def test_an_alone_request_is_one_run_and_one_answer():
    session = Fussy()
    result = answer_batch(session, ALONE, rows(5))
    assert result.calls == len(session.runs) == 1
    (packed,) = result.packed
    assert not isinstance(packed, GraphError)
    assert RowLayout(ALONE.outputs).unpack(packed)["y"].tolist() == [0, 2, 4, 6, 8]


def test_an_alone_request_that_breaks_is_not_cut_up():
    session = Fussy({1})
    result = answer_batch(session, ALONE, rows(5))
    assert [type(each) for each in result.packed] == [RowBroken]
    assert session.runs == [5]


def test_an_answer_that_cannot_be_packed_is_an_error_and_not_a_crash():
    text = Signature("s", (X,), (TensorSpec("y", "string", ()),))
    for signature in (text, Signature("s", (X,), (TensorSpec("y", "string", (None,), batched=False),), alone="why")):
        (first, *_) = answer_batch(Fussy(), signature, rows(2)).packed
        assert isinstance(first, GraphFailed)
