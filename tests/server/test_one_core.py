from __future__ import annotations

import os
import sys
import threading

import pytest
from twisted.internet.task import Clock

from rowserve.server.one_core import LIGHT, MANY, REST_TICKS, TICK, LinuxCores, OneCore, Work

ALL = frozenset({0, 1, 2})


class Machine:
    """Three cores; `others` is the share of each that somebody else takes."""

    def __init__(self, cores: frozenset[int] = ALL) -> None:
        self.cores = cores
        self.places: dict[int, frozenset[int]] = {}
        self.now_at = 1
        self.others = dict.fromkeys(cores, 0.0)
        self.ours = 0.0
        self.gone: set[int] = set()
        self.seconds = dict.fromkeys(cores, 0.0)

    def may_use(self) -> frozenset[int]:
        return self.cores

    def keep_on(self, thread: int, cores: frozenset[int]) -> None:
        self._check(thread)
        self.places[thread] = cores

    def at(self, thread: int) -> int:
        self._check(thread)
        return self.now_at

    def ran(self, thread: int) -> float:
        self._check(thread)
        return self.ours if thread == threading.get_native_id() else 0.0

    def busy(self, core: int) -> float:
        return self.seconds[core]

    def _check(self, thread: int) -> None:
        if thread in self.gone:
            raise ProcessLookupError(thread)


class Bench:
    def __init__(self, cores: frozenset[int] = ALL) -> None:
        self.clock = Clock()
        self.machine = Machine(cores)
        self.batches, self.seconds = 0, 0.0
        self.one_core = OneCore(self.clock, self.machine)
        self.one_core.watch(lambda: Work(self.batches, self.seconds))
        self.one_core.start()
        self.me = threading.get_native_id()

    def tick(self, batches: int = MANY, each: float = LIGHT / 2, ours: float = 0.8) -> frozenset[int]:
        """A tick in which so many batches run, for a part of it; where the reactor thread may run then."""
        self.batches += batches
        self.seconds += batches * each
        self.machine.ours += ours * TICK
        for core, share in self.machine.others.items():
            on_it = self.machine.places.get(self.me) == {core}
            self.machine.seconds[core] += (share + (ours if on_it else 0.0)) * TICK
        self.clock.advance(TICK)
        return self.machine.places.get(self.me, self.machine.cores)


def test_many_light_batches_bring_the_threads_together_where_the_reactor_is() -> None:
    bench = Bench()
    with bench.one_core.joined():
        assert bench.tick(MANY - 1) == ALL
        assert bench.tick() == {1}
        bench.machine.now_at = 2
        assert bench.tick() == {1}
        assert bench.tick(0) == ALL
        assert bench.tick() == {2}


def test_a_large_model_needs_all_cores() -> None:
    bench = Bench()
    assert bench.tick(each=LIGHT * 2) == ALL
    bench.tick()
    assert bench.tick(each=LIGHT * 2) == ALL


def test_one_large_model_among_small_ones_is_enough() -> None:
    bench = Bench()
    large = [Work(0), Work(3, 0.3), Work(3, 0.3)]
    bench.one_core.watch(lambda: large.pop(0))
    assert [bench.tick() for _ in range(3)] == [{1}, ALL, {1}]


def test_calls_count_as_batches_do() -> None:
    bench = Bench()
    bench.one_core.watch(lambda: Work(MANY))
    assert bench.tick(0) == {1}
    assert bench.tick(0) == ALL


def test_others_on_that_core_send_them_away_for_a_while() -> None:
    bench = Bench()
    assert bench.tick() == {1}
    bench.machine.others[0] = 1.0
    assert bench.tick() == {1}
    bench.machine.others[1] = 0.6
    assert bench.tick(ours=0.2) == {1}
    assert bench.tick() == ALL
    bench.machine.now_at = 2
    assert [bench.tick() for _ in range(REST_TICKS)] == [ALL] * (REST_TICKS - 1) + [frozenset({2})]


def test_a_thread_that_comes_later_is_taken_along_and_begins_on_all_cores() -> None:
    bench = Bench()
    bench.tick()
    seen = []
    begun, ticked, left = threading.Event(), threading.Event(), threading.Event()

    def live() -> None:
        with bench.one_core.joined():
            me = threading.get_native_id()
            seen.append(bench.machine.places[me])
            begun.set()
            assert ticked.wait(60)
            seen.append(bench.machine.places[me])
        bench.machine.gone.add(me)
        left.set()

    thread = threading.Thread(target=live)
    thread.start()
    assert begun.wait(60)
    bench.tick()
    ticked.set()
    assert left.wait(60)
    thread.join()
    assert seen == [ALL, {1}]
    assert bench.tick() == {1}  # one that has ended is no trouble


def test_a_system_that_does_not_tell_leaves_them_free() -> None:
    bench = Bench()
    assert bench.tick() == {1}
    bench.machine.gone.add(-1)
    bench.one_core._threads.add(-1)  # one that ends while it is looked at
    assert bench.tick() == ALL
    assert bench.tick() == ALL


def test_a_sandbox_that_forbids_it_leaves_all_as_it_is() -> None:
    bench = Bench()
    bench.machine.gone.add(bench.me)
    with bench.one_core.joined():
        assert bench.tick() == ALL
        assert bench.tick() == ALL


def test_who_goes_apart_begins_on_all_cores_and_stays_there() -> None:
    bench = Bench()
    bench.tick()
    assert bench.machine.places[bench.me] == {1}
    seen = []

    def live() -> None:
        bench.one_core.apart()
        bench.tick()
        seen.append(bench.machine.places[threading.get_native_id()])

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    assert seen == [ALL]


def test_stopped_it_frees_them() -> None:
    bench = Bench()
    bench.tick()
    bench.one_core.stop()
    assert bench.machine.places[bench.me] == ALL
    assert not bench.clock.getDelayedCalls()


def test_where_there_is_one_core_there_is_nothing_to_do() -> None:
    bench = Bench(frozenset({0}))
    assert not bench.clock.getDelayedCalls()
    with bench.one_core.joined():
        assert bench.machine.places == {}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_linux_tells() -> None:
    cores, me = LinuxCores(), threading.get_native_id()
    mine = cores.may_use()
    assert cores.at(me) in mine
    assert 0 <= cores.ran(me) <= sum(os.times()[:2]) + 0.1
    before = cores.busy(min(mine))
    assert before >= 0
    try:
        cores.keep_on(me, frozenset([min(mine)]))
        assert cores.may_use() == {min(mine)}
        assert cores.at(me) == min(mine)
    finally:
        cores.keep_on(me, mine)
    assert cores.busy(min(mine)) >= before
    with pytest.raises(OSError, match="core 1000000"):
        cores.busy(1_000_000)
    with pytest.raises(OSError):
        cores.ran(1 << 22)
