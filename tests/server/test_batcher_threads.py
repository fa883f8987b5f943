"""The batcher with a graph thread that is one: rows come, leave and run at the same time."""

from __future__ import annotations

import queue
import random
import sys
import threading
from typing import Any

import pytest
from twisted.internet.task import Clock

from rowserve.graphs.thread import GraphThread
from rowserve.handlers.items import Priority
from rowserve.server.batcher import Batcher
from rowserve.server.row_queue import BatchLimits
from tests.doubles import BROKEN, ArithmeticSession
from tests.server.test_batcher import Asking

WAIT = 60.0  # seconds until a test that hangs is given up


class Threaded:
    """As test_batcher.Bench, but the reactor's turns are this thread's, and the graph runs on one of its own."""

    def __init__(self, **limits: Any) -> None:
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.session = ArithmeticSession()
        self.signature = self.session.signatures[0]
        self.clock = Clock()
        self.threads: list[threading.Thread] = []
        self.graph = GraphThread(
            lambda: self.session, start_thread=self._start, call_in_reactor=self.calls.put, clock=lambda: 0.0
        )
        self.batcher = Batcher(self.graph, BatchLimits(**limits), self.clock, self._computed)

    def _start(self, live: Any) -> None:
        self.threads.append(threading.Thread(target=live, daemon=True))
        self.threads[0].start()

    def _computed(self, batch: Any, packed: Any) -> None: ...

    def turn(self) -> None:
        self.clock.advance(0.001)
        while not self.calls.empty():
            self.calls.get()()

    def until_quiet(self) -> None:
        """Until everything has run and been handed out."""
        while self.batcher.rows or self.batcher._queue._twins or self.clock.getDelayedCalls():
            self.clock.advance(0.001)
            try:
                self.calls.get(timeout=0.01)()
            except queue.Empty:
                assert self.threads[0].is_alive()


@pytest.fixture
def _hasty_threads() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
@pytest.mark.parametrize("max_wait", [0.0, 0.005])
def test_every_row_that_stays_is_answered_once_whatever_the_threads_do(max_wait):
    bench = Threaded(max_rows=8, queue_rows=64, max_wait=max_wait)
    dice = random.Random(7)
    askings: list[tuple[Asking, list[float]]] = []
    gone: set[int] = set()
    for turn in range(400):
        for _ in range(dice.randrange(4)):
            numbers = [float(dice.choice([BROKEN, *range(40)])) for _ in range(dice.randrange(1, 12))]
            asking = Asking(bench, numbers, Priority.BULK, fresh=dice.random() < 0.2)  # type: ignore[arg-type]
            if not asking.enter():
                asking.ask()
            askings.append((asking, numbers))
        if askings and turn % 3 == 0:
            at = dice.randrange(max(0, len(askings) - 12), len(askings))
            asking = askings[at][0]
            bench.batcher.leave(asking, asking.asks)
            asking.left.clear()
            gone.add(at)
        bench.turn()
    bench.until_quiet()
    for at, (asking, numbers) in enumerate(askings):
        for place, answer in asking.answers.items():
            assert isinstance(answer, BaseException) if numbers[place] == BROKEN else answer == numbers[place]
        assert at in gone or len(asking.answers) == len(numbers)
    assert (bench.batcher.rows, bench.batcher.bytes, bench.batcher._queue._twins) == (0, 0, {})
    assert bench.batcher._queue.asleep
    bench.graph.stop()
    bench.threads[0].join(WAIT)
