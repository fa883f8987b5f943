"""Pictures are decoded within one budget of memory, in the order in which they came."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from twisted.internet.defer import CancelledError

from rowserve.graphs.rows import Rows
from rowserve.handlers.items import Picture
from rowserve.handlers.problem import Problem
from rowserve.server.decode_memory import DecodeMemory
from tests.doubles import number_rows
from tests.server.conftest import PipelineBench


class CostlyPicture:
    """Decodes b"30 7" to the row of 7, which takes 30 bytes. Notes which it has begun."""

    identity = b"costly"

    def __init__(self) -> None:
        self.begun: list[int] = []

    def peak_bytes(self, upload: Any) -> int:
        return int(bytes(upload).split()[0])

    def decode(self, upload: Any) -> Rows:
        number = int(bytes(upload).split()[1])
        self.begun.append(number)
        if number < 0:
            raise Problem(422, "not a picture", reason="undecodable")
        return number_rows(float(number))


class Uploads(PipelineBench):
    """A pipeline that has 100 bytes for pictures; `hold` takes some of them, as another picture would."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = self.pipeline.decode_memory = DecodeMemory(100)
        self.decoder = CostlyPicture()

    def upload(self, *pictures: tuple[int, int], **options: Any) -> Any:
        items = [Picture(b"%d %d" % picture, self.decoder) for picture in pictures]
        return self.ask(*items, **options)

    def hold(self, size: int) -> None:
        assert self.memory.take(size)

    def let_go(self, size: int) -> None:
        self.memory.give_back(size)
        self.memory.admit()

    @property
    def told(self) -> dict[str, float]:
        return told(self.memory)


def told(memory: DecodeMemory) -> dict[str, float]:
    """Its metrics."""
    metrics: list[Metric] = list(memory.collect())
    return {metric.name.removeprefix("rowserve_decoding_"): metric.samples[0].value for metric in metrics}


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


def test_a_picture_without_room_waits_and_holds_no_thread_up(uploads):
    uploads.hold(60)
    large, small = uploads.upload((50, 1)), uploads.upload((5, 2))
    uploads.run()
    assert uploads.decoder.begun == []
    assert not uploads.pool.calls  # nobody stands on a thread
    assert uploads.told == {"bytes": 60, "waiting": 2}  # the small one would have room, but came later
    uploads.let_go(60)
    uploads.run()
    assert uploads.decoder.begun == [1, 2]
    assert (large.doubles, small.doubles) == ([2.0], [4.0])
    assert uploads.told == {"bytes": 0, "waiting": 0}


def test_what_a_picture_took_is_there_for_the_next_in_line(uploads):
    asked = uploads.upload(*((60, number) for number in range(5)))
    uploads.run()
    assert asked.doubles == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert uploads.decoder.begun == [0, 1, 2, 3, 4]


def test_so_is_what_a_broken_picture_took(uploads):
    asked = uploads.upload((100, -1), (100, -2), (100, 3))
    uploads.run()
    assert asked.outcomes == ["failed", "failed", "computed"]
    assert uploads.told == {"bytes": 0, "waiting": 0}


def test_a_picture_that_needs_more_than_there_is_is_refused_before_it_is_decoded(uploads):
    uploads.hold(60)
    asked = uploads.upload((101, 1), (40, 2))
    uploads.run()
    assert asked.outcomes == ["failed", "computed"]
    problem = asked.answer.errors[0]
    assert (problem.status, problem.reason) == (413, "picture_too_large")
    assert problem.detail == (
        "decoding this picture takes 101 B of memory; at most 100 B are taken for all together (limits.decoding)"
    )
    assert uploads.decoder.begun == [2]


def test_a_deadline_holds_in_the_line_and_its_place_goes_to_the_next(uploads):
    uploads.hold(60)
    late, next_in_line = uploads.upload((50, 1), timeout=5), uploads.upload((40, 2))
    uploads.run()
    assert uploads.told["waiting"] == 2
    uploads.clock.advance(5)
    assert late.answer.errors[0].status == 504
    uploads.run()
    assert next_in_line.doubles == [4.0]
    assert uploads.decoder.begun == [2]
    assert uploads.told == {"bytes": 60, "waiting": 0}


def test_who_hangs_up_leaves_the_line(uploads):
    uploads.hold(60)
    gone, next_in_line = uploads.upload((50, 1), (50, 3)), uploads.upload((40, 2))
    uploads.run()
    gone.hang_up()
    assert isinstance(gone.failure, CancelledError)
    uploads.run()
    assert next_in_line.doubles == [4.0]
    assert uploads.told == {"bytes": 60, "waiting": 0}


def test_who_hangs_up_once_it_has_its_memory_gives_it_back_undecoded(uploads):
    uploads.hold(60)
    gone = uploads.upload((50, 1))
    uploads.pool.step_all()
    uploads.let_go(60)
    assert uploads.told == {"bytes": 50, "waiting": 0}
    gone.hang_up()
    uploads.run()
    assert uploads.decoder.begun == []
    assert uploads.told["bytes"] == 0


def test_who_hangs_up_before_its_size_is_known_takes_no_memory(uploads):
    gone = uploads.upload((50, 1))
    gone.hang_up()
    uploads.run()
    assert uploads.decoder.begun == []
    assert uploads.told == {"bytes": 0, "waiting": 0}


@given(st.lists(st.tuples(st.sampled_from(["ask", "end", "leave"]), st.integers(1, 100)), max_size=60))
def test_never_more_than_the_limit_and_everybody_has_a_turn_in_order(steps):
    memory = DecodeMemory(100)
    running: list[int] = []
    order: list[int] = []  # who stands in line
    turns: dict[int, Any] = {}

    def begin(number: int, size: int) -> None:
        assert number == order.pop(0)
        running.append(size)
        del turns[number]

    for number, (step, size) in enumerate(steps):
        if step == "ask":
            if memory.take(size):
                assert not order
                running.append(size)
            else:
                order.append(number)
                turns[number] = memory.wait(size, partial(begin, number, size))
        elif step == "end" and running:
            memory.give_back(running.pop(size % len(running)))
        elif step == "leave" and order:
            memory.leave(turns.pop(order.pop(size % len(order))))
        memory.admit()
        assert sum(running) <= 100
        assert told(memory) == {"bytes": sum(running), "waiting": len(order)}
    while running:
        memory.give_back(running.pop())
        memory.admit()
    assert not order
    assert told(memory) == {"bytes": 0, "waiting": 0}


def test_threads_never_take_more_than_there_is():
    memory = DecodeMemory(100)
    lock = threading.Lock()
    taken, most = 0, 0

    def picture(number: int) -> None:
        nonlocal taken, most
        for turn in range(200):
            size = 1 + (number * 31 + turn * 17) % 60
            if memory.take(size):
                with lock:
                    taken += size
                    most = max(most, taken)
                with lock:
                    taken -= size
                memory.give_back(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(picture, range(8)))
    assert 0 < most <= 100
    assert told(memory) == {"bytes": 0, "waiting": 0}
