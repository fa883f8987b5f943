from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rowserve.server.grpc_asking import Way


def test_calls_that_wait_go_over_together_in_their_order() -> None:
    woken: list[Callable[[], None]] = []
    made: list[int] = []
    way = Way(woken.append)
    for number in range(3):
        way.put(lambda number=number: made.append(number))  # type: ignore[misc]
    assert len(woken) == 1
    assert made == []
    woken.pop()()
    assert made == [0, 1, 2]
    way.put(lambda: made.append(3))
    woken.pop()()
    assert made == [0, 1, 2, 3]


def test_a_call_may_put_another() -> None:
    woken: list[Callable[[], None]] = []
    made: list[str] = []
    way = Way(woken.append)
    way.put(lambda: way.put(lambda: made.append("inner")))
    while woken:
        woken.pop()()
    assert made == ["inner"]


def test_a_call_that_breaks_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    woken: list[Callable[[], None]] = []
    made: list[int] = []
    way = Way(woken.append)
    way.put(lambda: made.append(1 // 0))
    way.put(lambda: made.append(2))
    woken.pop()()
    assert made == [2]
    assert "ZeroDivisionError" in caplog.text


def test_between_two_threads_none_is_lost() -> None:
    wakes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made: list[int] = []
    way = Way(wakes.put)

    def live() -> None:
        while (make_all := wakes.get()) is not None:
            make_all()

    other = threading.Thread(target=live)
    other.start()
    for number in range(20_000):
        way.put(lambda number=number: made.append(number))  # type: ignore[misc]
    wakes.put(None)
    other.join(60)
    assert made == list(range(20_000))
