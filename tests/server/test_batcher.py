from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from rowserve.graphs.rows import Buffer, RowLayout
from rowserve.graphs.session import GraphSession  # noqa: F401  (the interface that the double stands for)
from rowserve.handlers.items import Priority
from rowserve.handlers.problem import Problem
from rowserve.server.batcher import Batcher
from rowserve.server.pending_rows import Ask, Batch, Source
from rowserve.server.row_queue import BatchLimits
from tests.doubles import BROKEN, ArithmeticSession, SteppedGraphThread, number_rows

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
LAYOUT = RowLayout(ArithmeticSession().signatures[0].outputs)


class Asking:
    """A request that notes what becomes of its rows."""

    def __init__(self, bench: Bench, numbers: Sequence[float], priority: Priority, **ask: Any) -> None:
        self.priority = priority
        self.batcher = bench.batcher
        self.answers: dict[int, Any] = {}
        self.firsts: list[int] = []
        rows = number_rows(*numbers)
        keyed = ask.pop("keyed", True)
        lane = ask.pop("lane", ("serving_default",))
        source = Source(self, bench.signature, rows, lane, 16, **ask)
        self.asks = [Ask(source, at, at, str(n).encode() if keyed else None) for at, n in enumerate(numbers)]
        self.left = list(self.asks)

    def ask(self) -> None:
        self.batcher.admit(self, len(self.asks), 16 * len(self.asks))
        self.batcher.feed(self)

    def enter(self) -> bool:
        entered = self.batcher.enter(self, self.asks, 16 * len(self.asks))
        if entered:
            self.left = []
        return entered

    def next_asks(self, rows: int, nbytes: float) -> Sequence[Ask]:
        most = min(rows, ceil(nbytes / 16))
        asks, self.left = self.left[:most], self.left[most:]
        return asks

    def answered(self, asks: Sequence[Ask], packed: Sequence[Buffer], batch: Batch, first: bool) -> None:
        for ask, outputs in zip(asks, packed, strict=True):
            assert ask.position not in self.answers
            self.answers[ask.position] = LAYOUT.unpack(outputs)["double"][0] / 2
            if first:
                self.firsts.append(ask.position)

    def failed(self, ask: Ask, error: BaseException) -> None:
        assert ask.position not in self.answers
        self.answers[ask.position] = error


class Bench:
    """A batcher with a stepped graph and a stepped clock."""

    def __init__(self, **limits: Any) -> None:
        self.session = ArithmeticSession()
        self.signature = self.session.signatures[0]
        self.graph = SteppedGraphThread(self.session)
        self.clock = Clock()
        self.computed: list[bytes] = []
        self.batcher = Batcher(self.graph, BatchLimits(**limits), self.clock, self._computed)  # type: ignore[arg-type]

    def _computed(self, batch: Batch, packed: Sequence[Any]) -> None:
        self.computed += [row.data.key or b"" for row in batch.rows]

    def ask(self, *numbers: float, priority: Priority = Priority.INTERACTIVE, **more: Any) -> Asking:
        asking = Asking(self, numbers, priority, **more)
        asking.ask()
        self.clock.advance(0)  # the reactor's turn ends
        return asking

    def finish(self) -> None:
        """Everything comes to its end."""
        while self.graph.inbox or self.graph.calls or self.batcher.rows or self.clock.getDelayedCalls():
            self.graph.step()
            self.clock.advance(0.1)

    def bulk(self, *numbers: float, **more: Any) -> Asking:
        return self.ask(*numbers, priority=Priority.BULK, **more)


def test_a_lone_row_runs_at_once():
    bench = Bench()
    asking = bench.ask(5)
    assert len(bench.graph.inbox) == 1
    bench.graph.step()
    assert asking.answers == {0: 5.0}
    assert bench.session.batches == [1]


def test_rows_gather_while_the_graph_runs():
    bench = Bench(max_rows=8)
    first = bench.ask(1)
    others = [bench.ask(float(n), float(n) + 0.5) for n in range(2, 7)]
    bench.graph.step_all()
    assert bench.session.batches == [1, 8, 2]
    assert first.answers == {0: 1.0}
    assert [asking.answers for asking in others] == [{0: float(n), 1: n + 0.5} for n in range(2, 7)]


def test_twins_run_once_and_the_first_who_waits_is_the_computed_one():
    bench = Bench()
    bench.ask(0)
    askings = [bench.ask(7) for _ in range(200)]
    bench.graph.step_all()
    assert bench.session.batches == [1, 1]
    assert all(asking.answers == {0: 7.0} for asking in askings)
    assert sum(len(asking.firsts) for asking in askings) == 1


def test_twins_join_a_running_row_too_but_not_when_they_must_be_fresh():
    bench = Bench()
    bench.ask(7)
    joined, fresh, fresh_twin = bench.ask(7), bench.ask(7, fresh=True), bench.ask(7, fresh=True)
    bench.graph.step_all()
    assert bench.session.seen == [[7.0] * 4] * 2
    assert joined.firsts == []
    assert (fresh.firsts, fresh_twin.firsts) == ([0], [])


def test_rows_without_a_key_join_nothing():
    bench = Bench()
    for _ in range(3):
        bench.ask(7, keyed=False)
    bench.graph.step_all()
    assert sum(bench.session.batches) == 3


def test_when_199_leave_the_last_still_gets_its_answer():
    bench = Bench()
    bench.ask(0)
    askings = [bench.ask(7) for _ in range(200)]
    for asking in askings[:-1]:
        bench.batcher.leave(asking, asking.asks)
    bench.graph.step_all()
    assert askings[-1].answers == {0: 7.0}
    assert askings[-1].firsts == [0]
    assert not any(asking.answers for asking in askings[:-1])


def test_when_all_leave_while_the_row_is_queued_the_graph_never_sees_it():
    bench = Bench()
    bench.ask(0)
    askings = [bench.ask(7) for _ in range(200)]
    for asking in askings:
        bench.batcher.leave(asking, asking.asks)
    assert (bench.batcher.rows, bench.batcher.bytes) == (0, 0)
    bench.graph.step_all()
    assert bench.session.seen == [[0.0] * 4]


def test_a_row_that_all_left_is_new_to_who_asks_next():
    bench = Bench()
    bench.ask(0)
    gone = bench.ask(7, 8)
    bench.batcher.leave(gone, gone.asks)
    asking = bench.ask(7)
    bench.graph.step_all()
    assert asking.answers == {0: 7.0}
    assert bench.session.seen == [[0.0] * 4, [7.0] * 4]


def test_who_leaves_makes_room_for_those_that_wait():
    bench = Bench(queue_rows=4, max_rows=2)
    bench.ask(0)
    gone = bench.ask(1, 2, 3, 4)
    waiting = bench.bulk(5, 6)
    assert not any(ask.pending for ask in waiting.asks)
    bench.batcher.leave(gone, gone.asks)
    assert all(ask.pending for ask in waiting.asks)


def test_who_leaves_while_being_fed_brings_no_more_rows():
    bench = Bench(queue_rows=4, max_rows=2)
    asking = bench.bulk(*map(float, range(10)))
    bench.graph.turn()
    bench.batcher.leave(asking, asking.asks)
    bench.graph.step_all()
    assert bench.session.seen == [[0.0] * 4, [1.0] * 4]
    assert len(asking.left) == 6


def test_the_queue_is_full_again_before_the_graph_is_free():
    bench = Bench(queue_rows=8, max_rows=2)
    bench.bulk(*map(float, range(20)))
    bench.graph.turn()
    assert (len(bench.graph.inbox), bench.batcher.rows) == (1, 4)


def test_a_row_that_all_leave_while_it_runs_is_kept_all_the_same():
    bench = Bench()
    asking = bench.ask(7)
    bench.batcher.leave(asking, asking.asks)
    bench.graph.step_all()
    assert bench.computed == [b"7"]
    assert asking.answers == {}


def test_a_broken_row_harms_no_other_of_its_batch():
    bench = Bench(max_rows=64)
    bench.ask(1000)
    asking = bench.ask(*[float(n) for n in range(40)], BROKEN, *[float(n) for n in range(100, 123)])
    bench.graph.step_all()
    failed = {at: answer for at, answer in asking.answers.items() if isinstance(answer, BaseException)}
    assert len(asking.answers) == 64
    assert list(failed) == [40]


def test_a_failure_reaches_every_waiter_once():
    bench = Bench()
    askings = [bench.ask(BROKEN) for _ in range(5)]
    bench.graph.step_all()
    assert [type(asking.answers[0]).__name__ for asking in askings] == ["RowBroken"] * 5
    again = bench.ask(BROKEN)
    bench.graph.step_all()
    assert type(again.answers[0]).__name__ == "RowBroken"


def test_a_graph_that_cannot_run_fails_what_waits_and_goes_on():
    bench = Bench()
    bench.graph.failure = RuntimeError("no graph")
    asking = bench.ask(1)
    bench.graph.step_all()
    assert isinstance(asking.answers[0], RuntimeError)
    bench.graph.failure = None
    asking = bench.ask(1)
    bench.graph.step_all()
    assert asking.answers == {0: 1.0}


def test_a_full_queue_refuses_at_once():
    bench = Bench(queue_rows=4)
    bench.ask(0)
    bench.ask(1, 2, 3)
    with pytest.raises(Problem) as refused:
        bench.ask(4, 5)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    accepted = bench.ask(4)
    bench.graph.step_all()
    assert accepted.answers == {0: 4.0}


def test_a_queue_full_of_bytes_refuses_at_once():
    bench = Bench(queue_bytes=40)
    bench.ask(0)
    bench.ask(1, 2)
    with pytest.raises(Problem):
        bench.ask(4)


def test_room_that_was_promised_is_not_promised_again_and_comes_back():
    bench = Bench(queue_rows=4)
    slow = Asking(bench, [1, 2, 3], Priority.INTERACTIVE)
    bench.batcher.admit(slow, 3, 48)
    with pytest.raises(Problem):
        bench.ask(4, 5)
    bench.batcher.leave(slow, slow.asks)
    bench.ask(4, 5)


def test_a_promise_shrinks_as_its_rows_are_queued():
    bench = Bench(queue_bytes=64)
    bench.ask(0)
    slow = Asking(bench, [1, 2, 3], Priority.INTERACTIVE)
    bench.batcher.admit(slow, 3, 48)
    held = slow.left.pop()
    bench.batcher.feed(slow)
    with pytest.raises(Problem):
        bench.ask(4, 5)
    bench.ask(4)
    slow.left.append(held)
    bench.batcher.feed(slow)
    bench.graph.step_all()
    assert slow.answers == {0: 1, 1: 2, 2: 3}


def test_a_request_larger_than_the_queue_is_fed_in_pieces():
    bench = Bench(queue_rows=4, max_rows=2)
    asking = bench.ask(*map(float, range(50)))
    most = 0
    while bench.graph.inbox:
        most = max(most, bench.batcher.rows)
        bench.graph.step()
    assert asking.answers == {at: float(at) for at in range(50)}
    assert most == 4


def test_bulk_waits_for_room_and_leaves_half_of_the_queue_to_others():
    bench = Bench(queue_rows=8, max_rows=2)
    bulk = [bench.bulk(*[float(100 * i + n) for n in range(20)]) for i in range(3)]
    assert bench.batcher.rows == 4
    interactive = bench.ask(1.5, 2.5)
    bench.graph.step()
    bench.graph.step()
    assert interactive.answers == {0: 1.5, 1: 2.5}
    bench.graph.step_all()
    assert all(len(asking.answers) == 20 for asking in bulk)


def test_bulk_gets_at_least_one_row_in_eight_of_contended_batches():
    for max_rows in (1, 3, 8, 32):
        bench = Bench(max_rows=max_rows, queue_rows=100_000)
        bench.ask(0)
        bench.bulk(*[5000.0 + n for n in range(200)])
        bench.ask(*[float(n) for n in range(1, 1600)])
        for _ in range(800 // max_rows):
            bench.graph.step()
        done = [row[0] >= 5000 for row in bench.session.seen]
        assert sum(done) >= len(done) // 8 - max_rows, max_rows
        assert sum(done) <= len(done) // 8 + 2 * max_rows, max_rows


def test_bulk_that_ran_alone_has_not_used_up_its_share():
    bench = Bench(max_rows=1, queue_rows=100_000)
    bench.bulk(*[5000.0 + n for n in range(100)])
    for _ in range(50):
        bench.graph.step()
    bench.ask(*[float(n) for n in range(100)])
    bench.session.seen.clear()
    for _ in range(10):
        bench.graph.step()
    assert sum(row[0] >= 5000 for row in bench.session.seen[1:]) == 1


def test_bulk_in_another_lane_does_not_starve():
    bench = Bench(max_rows=2, queue_rows=100_000)
    bench.ask(0)
    bulk = bench.bulk(1000.0, 1001.0, lane=("other",))
    bench.ask(*[float(n) for n in range(1, 100)])
    for _ in range(12):
        bench.graph.step()
    assert bulk.answers == {0: 1000.0, 1: 1001.0}


def test_an_interactive_twin_pulls_a_bulk_row_forward_and_pushes_it_back_when_it_leaves():
    for leaves in (False, True):
        bench = Bench(max_rows=1)
        bench.ask(0)
        bulk = bench.bulk(1, 2, 3)
        bench.ask(10)
        twin = bench.ask(3)
        bench.ask(11)
        if leaves:
            bench.batcher.leave(twin, twin.asks)
        bench.graph.step_all()
        order = [row[0] for row in bench.session.seen]
        assert order == ([0, 10, 11, 1, 2, 3] if leaves else [0, 3, 10, 11, 1, 2])
        assert bulk.answers == {0: 1, 1: 2, 2: 3}


def test_lanes_do_not_mix_and_the_oldest_row_goes_first():
    bench = Bench(max_rows=8)
    bench.ask(0)
    bench.ask(1, lane=("a",))
    bench.ask(2, lane=("b",))
    bench.ask(3, lane=("a",))
    bench.graph.step_all()
    assert bench.session.batches == [1, 2, 1]


def test_max_wait_holds_an_idle_graph_from_the_first_row_on_and_never_restarts():
    bench = Bench(max_rows=4, max_wait=1.0)
    bench.ask(1)
    bench.clock.advance(0.6)
    bench.ask(2)
    assert not bench.graph.inbox
    bench.clock.advance(0.4)
    assert len(bench.graph.inbox) == 1
    bench.graph.step()
    assert bench.session.batches == [2]


def test_max_wait_does_not_hold_a_full_batch():
    bench = Bench(max_rows=2, max_wait=1.0)
    bench.ask(1, 2)
    assert len(bench.graph.inbox) == 1


def test_max_wait_with_everybody_gone_runs_nothing():
    bench = Bench(max_rows=2, max_wait=1.0)
    asking = bench.ask(1)
    bench.batcher.leave(asking, asking.asks)
    bench.clock.advance(5)
    assert not bench.graph.inbox


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.lists(st.integers(0, 12), min_size=1, max_size=6), st.booleans(), st.booleans()),
        st.tuples(st.just("enter"), st.lists(st.integers(0, 12), min_size=1, max_size=6), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 40)),
        st.tuples(st.sampled_from(["finish", "turn", "step", "tick"])),
    ),
    max_size=60,
)


@example([("enter", [0, 0], False), ("finish",), ("turn",)], 1, 1, 0.0, 1)
@given(steps, st.integers(1, 5), st.integers(1, 12), st.sampled_from([0.0, 1.0]), st.integers(1, 8))
def test_any_schedule_settles_every_row_once(schedule, max_rows, queue_rows, max_wait, a_turn):
    bench = Bench(max_rows=max_rows, queue_rows=queue_rows, max_wait=max_wait)
    askings: list[tuple[Asking, list[int]]] = []
    gone: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rowserve.server.batcher.A_TURN", a_turn)
        for step in schedule:
            if step[0] in {"ask", "enter"}:
                asking = Asking(bench, list(map(float, step[1])), BULK if step[2] else INTERACTIVE, fresh=step[-1])
                try:
                    if step[0] == "ask" or not asking.enter():
                        asking.ask()
                    bench.clock.advance(0)
                    askings.append((asking, step[1]))
                except Problem:
                    assert bench.batcher.rows or bench.batcher._promises
            elif step[0] == "leave" and step[1] < len(askings):
                asking = askings[step[1]][0]
                bench.batcher.leave(asking, asking.asks)
                asking.left.clear()
                gone.add(step[1])
                bench.clock.advance(0)
            elif step[0] == "tick":
                bench.clock.advance(0.4)
            elif step[0] in {"finish", "turn", "step"}:
                getattr(bench.graph, step[0])()
                bench.clock.advance(0)  # a sleeping model is woken when the reactor's turn ends
            assert 0 <= bench.batcher.rows <= queue_rows
            assert bench.graph.inbox or not bench.batcher.rows or max_wait
        bench.finish()
    for at, (asking, numbers) in enumerate(askings):
        assert all(asking.answers[place] == numbers[place] for place in asking.answers)
        if at not in gone:
            assert len(asking.answers) == len(numbers)
    batcher = bench.batcher
    assert (batcher.rows, batcher.bytes, batcher._promises, batcher._queue._twins) == (0, 0, {}, {})
    assert (batcher._promised_rows, batcher._promised_bytes, any(batcher._feeding)) == (0, 0, False)
    assert not batcher._queue._lanes._lanes
    assert all(size <= max_rows for size in bench.session.batches)
    assert len(bench.computed) == sum(bench.session.batches)


def test_batches_have_few_sizes_and_hold_most_of_what_waits():
    bench = Bench(max_rows=256)
    bench.ask(0)
    bench.ask(*range(1, 101))
    bench.graph.step_all()
    assert bench.session.batches == [1, 96, 4]


def test_the_graph_goes_on_without_the_reactor_which_is_called_once_for_all():
    bench = Bench(max_rows=2)
    asking = bench.ask(1, 2, 3, 4, 5)
    for _ in range(3):
        bench.graph.finish()
    assert bench.session.batches == [2, 2, 1]
    assert (len(bench.graph.calls), asking.answers) == (1, {})
    bench.graph.turn()
    assert asking.answers == {at: at + 1.0 for at in range(5)}


def test_the_thread_is_woken_once_for_all_that_comes_in_one_turn():
    bench = Bench()
    askings = [Asking(bench, [float(n)], INTERACTIVE) for n in range(5)]
    assert all(asking.enter() for asking in askings)
    assert not bench.graph.inbox
    bench.clock.advance(0)
    bench.graph.step_all()
    assert bench.session.batches == [5]


def test_many_answers_are_handed_out_over_several_turns_of_the_reactor(monkeypatch):
    monkeypatch.setattr("rowserve.server.batcher.A_TURN", 20)
    bench = Bench(max_rows=32)
    asking = bench.ask(*map(float, range(32)))
    bench.graph.step()
    assert len(asking.answers) == 10
    late = bench.ask(31.0)  # joins a row that has run, but is not handed out
    bench.clock.advance(0)
    assert len(asking.answers) >= 20
    while bench.clock.getDelayedCalls():
        bench.clock.advance(0)
    assert asking.answers == {at: float(at) for at in range(32)}
    assert late.answers == {0: 31.0}
    assert sum(bench.session.batches) == len(bench.computed) == 32


def test_a_request_enters_only_where_there_is_room_and_nobody_before_it():
    bench = Bench(queue_rows=4, max_rows=2)
    bench.ask(0)
    assert Asking(bench, [1, 2], INTERACTIVE).enter()
    assert not Asking(bench, [3, 4, 5], INTERACTIVE).enter()
    assert not Asking(bench, [3], BULK).enter()  # has half of the queue, and half is taken
    assert Asking(bench, [3, 4], INTERACTIVE).enter()
    bench.graph.step_all()
    bench.ask(0)
    bench.bulk(*map(float, range(10, 20)))
    assert not Asking(bench, [1], INTERACTIVE).enter()
