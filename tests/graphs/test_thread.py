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
    waiting = reactor.graph.idle
    assert not waiting
    for _ in range(3):
        reactor.turn()
    assert done == [(session, 0), (session, 1), (session, 2)]
    assert len(set(ran_on)) == 1
    assert ran_on[0] != threading.get_ident()
    assert reactor.graph.idle
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
