from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from rowserve.graphs.rows import Rows
from rowserve.handlers.items import CachePolicy, Options
from rowserve.handlers.problem import Problem
from rowserve.server import pieces
from rowserve.server.pieces import answer_in_pieces, cut
from tests.doubles import BROKEN, arithmetic_signature, number_rows
from tests.server.conftest import Asked, PipelineBench


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 4)


def ask(bench: PipelineBench, *items: Any, timeout: float | None = None, **policy: Any) -> Asked:
    options = Options("test", timeout=timeout, cache=CachePolicy(**policy))
    return Asked(answer_in_pieces(bench.pipeline, bench.model, bench.signature, items, options))


def run(bench: PipelineBench) -> None:
    for _ in range(100):
        bench.run()
        bench.clock.advance(0)


@given(st.lists(st.one_of(st.integers(0, 11), st.none()), max_size=8))
def test_cut_keeps_every_row_in_its_order(counts):
    numbers = iter(range(1000))
    items = [
        Problem(422, str(next(numbers))) if count is None else number_rows(*[next(numbers) for _ in range(count)])
        for count in counts
    ]
    seen: list[int] = []
    for piece in cut(items):
        rows = [[float(item.detail)] if isinstance(item, Problem) else rows_of(item) for item in piece]
        assert sum(map(len, rows)) <= 4
        seen += [int(number) for part in rows for number in part]
    assert seen == list(range(len(seen)))
    assert len(seen) == next(numbers)


def rows_of(item: Any) -> list[float]:
    assert isinstance(item, Rows)
    return [float(row[0]) for row in item.arrays["x"]]


def test_a_large_request_is_answered_as_one_and_leaves_turns_to_others():
    bench = PipelineBench()
    asked = ask(bench, number_rows(*range(10)), Problem(422, "no row"), number_rows(*range(10, 15), BROKEN))
    run(bench)
    assert asked.answer is not None
    assert sorted(asked.answer.errors) == [10, 16]
    assert asked.doubles_but(10, 16) == [2.0 * n for n in range(15)]
    again = ask(bench, number_rows(*range(10)))
    assert not again.at_once
    run(bench)
    assert again.outcomes == ["hit"] * 10
    assert bench.counts == {"asked": 27, "hit": 10, "computed": 15, "failed": 2}


def test_a_small_request_is_no_different():
    bench = PipelineBench()
    ask(bench, number_rows(1, 2))
    run(bench)
    assert ask(bench, number_rows(2, 1)).at_once


def test_only_the_first_piece_is_refused_by_a_full_queue():
    bench = PipelineBench(queue_rows=4, max_rows=2)
    asked = ask(bench, number_rows(*range(20)))
    refused = ask(bench, number_rows(*range(100, 120)))
    assert isinstance(refused.failure, Problem)
    run(bench)
    assert asked.doubles == [2.0 * n for n in range(20)]


def test_the_deadline_is_that_of_the_request():
    bench = PipelineBench()
    asked = ask(bench, number_rows(*range(8)), timeout=2.0)
    bench.clock.advance(1.5)
    bench.run()
    bench.clock.advance(0)
    bench.clock.advance(0.5)
    bench.clock.advance(0)
    assert asked.answer is not None
    assert asked.outcomes == ["computed"] * 4 + ["failed"] * 4
    assert bench.reasons() == {"deadline": 4}


def test_who_hangs_up_has_no_more_pieces_asked():
    bench = PipelineBench()
    asked = ask(bench, number_rows(*range(8)))
    asked.hang_up()
    run(bench)
    assert isinstance(asked.failure, CancelledError)
    assert bench.counts == {"asked": 4, "failed": 4}


def test_a_piece_that_fails_whole_fails_the_request():
    bench = PipelineBench()
    ask(bench, number_rows(*range(4)))
    run(bench)
    asked = ask(bench, number_rows(*range(8)), only_if_cached=True)
    run(bench)
    assert isinstance(asked.failure, Problem)
    assert asked.failure.status == 504


def test_a_fault_of_the_server_fails_the_request(monkeypatch):
    bench = PipelineBench()
    asked = ask(bench, number_rows(*range(8)))
    monkeypatch.setattr(bench.pipeline, "answer", lambda *_: 1 / 0)
    run(bench)
    assert isinstance(asked.failure, ZeroDivisionError)


def test_a_signature_that_runs_alone_is_never_cut():
    bench = PipelineBench(arithmetic_signature(alone="its answers change"))
    ask(bench, number_rows(*range(9)))
    run(bench)
    assert bench.session.batches == [9]
