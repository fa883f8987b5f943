from __future__ import annotations

import queue
import threading
from functools import partial
from typing import Any

from rowserve.graphs.thread import GraphThread
from tests.doubles import ArithmeticSession

WAIT = 60.0  # seconds until a test that hangs is given up


class Reactor:
    """Takes the graph thread's calls and makes them when it is told to."""

    def __init__(self, load: Any) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()
        self.threads: list[threading.Thread] = []
        self.now = 0.0
        self.graph = GraphThread(load, start_thread=self._start, call_in_reactor=self.calls.put, clock=lambda: self.now)

    def _start(self, live: Any) -> None:
        self.threads.append(threading.Thread(target=live, daemon=True))
        self.threads[-1].start()

    def turn(self) -> None:
        self.calls.get(timeout=WAIT)()

    def end(self) -> None:
        self.graph.stop()
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive()


def test_work_runs_on_one_thread_in_order_and_is_done_in_the_reactor():
    session = ArithmeticSession()
    reactor = Reactor(lambda: session)
    ran_on: list[int] = []
    done: list[Any] = []

    def work(number: int, session: Any) -> tuple[Any, int]:
        ran_on.append(threading.get_ident())
        return session, number

    for number in range(3):
        reactor.graph.run(partial(work, number), done.append)
    for _ in range(3):
        reactor.turn()
    assert done == [(session, 0), (session, 1), (session, 2)]
    assert len(set(ran_on)) == 1
    assert ran_on[0] != threading.get_ident()
    reactor.end()
    assert session.closed


def test_nothing_is_loaded_before_anything_is_asked():
    loads: list[int] = []
    reactor = Reactor(partial(loads.append, 1))
    assert not reactor.threads
    assert not loads
    reactor.end()


def test_an_error_is_the_result_and_the_thread_lives_on():
    reactor = Reactor(ArithmeticSession)
    done: list[Any] = []
    reactor.graph.run(lambda session: 1 / 0, done.append)
    reactor.graph.run(lambda session: "fine", done.append)
    reactor.turn()
    reactor.turn()
    assert isinstance(done[0], ZeroDivisionError)
    assert done[1] == "fine"
    reactor.end()


def test_a_model_that_does_not_load_fails_all_its_work():
    reactor = Reactor(lambda: 1 / 0)
    done: list[Any] = []
    reactor.graph.run(lambda session: "never", done.append)
    reactor.graph.run(lambda session: "never", done.append)
    reactor.turn()
    reactor.turn()
    assert [type(result) for result in done] == [ZeroDivisionError] * 2
    reactor.end()


def test_how_long_the_work_has_been_running_can_be_read_meanwhile():
    reactor = Reactor(ArithmeticSession)
    begun, go_on = threading.Event(), threading.Event()
    done: list[Any] = []

    def work(_: Any) -> None:
        begun.set()
        go_on.wait(WAIT)

    reactor.graph.run(work, done.append)
    assert begun.wait(WAIT)
    reactor.now = 61.0
    assert reactor.graph.busy_seconds() == 61.0
    go_on.set()
    reactor.turn()
    assert reactor.graph.busy_seconds() == 0.0
    reactor.end()


class Numbers:
    """Batches that are numbers: each is taken once, and what became of it noted."""

    def __init__(self, *numbers: int) -> None:
        self.waiting = list(numbers)
        self.results: queue.Queue[Any] = queue.Queue()
        self.begun: queue.Queue[int] = queue.Queue()
        self.gate = threading.Semaphore(0)

    def take(self) -> int | None:
        return self.waiting.pop(0) if self.waiting else None

    def run(self, batch: int, session: Any) -> float:
        self.begun.put(batch)
        assert self.gate.acquire(timeout=WAIT)
        return 12 / batch

    def over(self, batch: int, result: Any) -> None:
        self.results.put((batch, result))


def test_batches_follow_one_another_without_the_reactor_and_sleep_until_they_are_woken():
    reactor = Reactor(ArithmeticSession)
    batches = Numbers(1, 0, 3)
    reactor.graph.pull_from(batches)
    assert not reactor.threads
    reactor.graph.wake()
    batches.gate.release(3)
    assert batches.results.get(timeout=WAIT) == (1, 12.0)
    assert isinstance(batches.results.get(timeout=WAIT)[1], ZeroDivisionError)
    assert batches.results.get(timeout=WAIT) == (3, 4.0)
    batches.waiting.append(4)
    batches.gate.release()
    reactor.graph.wake()
    assert batches.results.get(timeout=WAIT) == (4, 3.0)
    assert reactor.calls.empty()
    reactor.end()


def test_other_work_goes_before_the_next_batch():
    reactor = Reactor(ArithmeticSession)
    batches = Numbers(1, 2)
    reactor.graph.pull_from(batches)
    reactor.graph.wake()
    assert batches.begun.get(timeout=WAIT) == 1
    done: list[Any] = []
    reactor.graph.run(lambda session: list(batches.waiting), done.append)
    batches.gate.release()
    reactor.turn()
    assert done == [[2]]
    batches.gate.release()
    assert batches.begun.get(timeout=WAIT) == 2
    reactor.end()


def test_a_model_that_does_not_load_fails_its_batches():
    reactor = Reactor(lambda: 1 / 0)
    batches = Numbers(1)
    reactor.graph.pull_from(batches)
    reactor.graph.wake()
    batch, result = batches.results.get(timeout=WAIT)
    assert (batch, type(result)) == (1, ZeroDivisionError)
    reactor.end()
