"""What the graph thread is given, and why; see test_batcher.py for the whole."""

from __future__ import annotations

from rowserve.handlers.items import Priority
from rowserve.server.pending_rows import NEVER, Ask, Source
from rowserve.server.row_queue import MOST_LANES, BatchLimits, RowQueue
from tests.doubles import ArithmeticSession, number_rows

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
LANE = ("serving_default",)


class Nobody:
    priority = INTERACTIVE


def asks(count: int, deadline: float = NEVER, lane: tuple[object, ...] = LANE, alone: bool = False) -> list[Ask]:
    rows = number_rows(*range(count))
    source = Source(Nobody(), ArithmeticSession().signatures[0], rows, lane, 16, deadline=deadline)  # type: ignore[arg-type]
    return [Ask(source, at, None if alone else at) for at in range(count)]


def queue_of(count: int, now: float = 0.0, *, deadline: float = NEVER, **limits: float) -> RowQueue:
    queue = RowQueue(BatchLimits(**limits))  # type: ignore[arg-type]
    queue.put(asks(count, deadline), INTERACTIVE, now)
    return queue


def taken(queue: RowQueue, now: float) -> tuple[int, str] | None:
    batch = queue.take(now)
    return None if batch is None else (len(batch.rows), batch.reason)


def test_a_free_thread_takes_what_there_is_and_sleeps_when_there_is_nothing():
    queue = queue_of(5, max_rows=32)
    assert queue.asleep
    assert queue.must_wake(0.0) == 0.0
    assert not queue.asleep
    assert queue.must_wake(0.0) is None
    assert taken(queue, 0.0) == (5, "idle")
    assert not queue.asleep
    assert taken(queue, 0.0) is None
    assert queue.asleep
    assert queue.must_wake(0.0) is None


def test_a_full_batch_says_so():
    queue = queue_of(40, max_rows=32)
    assert taken(queue, 0.0) == (32, "full")
    assert taken(queue, 0.0) == (8, "idle")


def test_rows_are_held_for_company_as_long_as_they_may_wait():
    queue = queue_of(3, 10.0, max_rows=32, max_wait=1.0)
    assert queue.must_wake(10.25) == 0.75
    assert queue.asleep
    assert taken(queue, 10.25) is None
    assert queue.must_wake(11.0) == 0.0
    assert taken(queue, 11.0) == (3, "wait")


def test_but_not_when_the_batch_is_full_nor_past_a_deadline():
    assert taken(queue_of(4, max_rows=4, max_wait=1.0), 0.0) == (4, "full")
    queue = queue_of(3, 10.0, deadline=10.5, max_rows=32, max_wait=1.0)
    queue.costs(LANE).learn(3, 0.2)
    assert 0.2 < (queue.must_wake(10.0) or 0.0) < 0.4
    assert taken(queue, 10.4) == (3, "deadline")


def test_bulk_is_held_too():
    queue = RowQueue(BatchLimits(max_rows=32, max_wait=1.0))
    queue.put(asks(3), BULK, 10.0)
    assert taken(queue, 10.5) is None
    assert taken(queue, 11.0) == (3, "wait")


def test_a_batch_shrinks_for_a_deadline_and_says_so():
    queue = queue_of(1, deadline=1.0, max_rows=8)
    queue.put(asks(7), INTERACTIVE, 0.0)
    for size in range(1, 9):
        queue.costs(LANE).learn(size, 0.3 * size)
    assert taken(queue, 0.0) == (3, "deadline")
    assert taken(queue, 0.9) == (5, "idle")


def test_who_joins_brings_its_deadline():
    queue = RowQueue(BatchLimits(max_rows=8))
    first, second = asks(1), asks(1, deadline=1.0)
    first[0].key = second[0].key = b"key"
    queue.put([*first, *asks(7)], INTERACTIVE, 0.0)
    queue.put(second, INTERACTIVE, 0.0)
    for size in range(1, 9):
        queue.costs(LANE).learn(size, 0.3 * size)
    assert queue.rows == 8
    assert taken(queue, 0.0) == (3, "deadline")


def test_requests_that_run_alone_are_never_held():
    queue = RowQueue(BatchLimits(max_rows=8, max_wait=1.0))
    queue.put(asks(2, alone=True), INTERACTIVE, 0.0)
    assert queue.must_wake(0.0) == 0.0
    assert taken(queue, 0.0) == (1, "full")


def test_costs_are_remembered_of_so_many_lanes():
    queue = RowQueue(BatchLimits())
    first = queue.costs((0,))
    for lane in range(1, MOST_LANES):
        queue.costs((lane,))
    assert queue.costs((0,)) is first
    queue.costs((MOST_LANES,))
    assert queue.costs((0,)) is not first
