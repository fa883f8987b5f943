from __future__ import annotations

import os
import sys
import threading

import pytest

from rowserve.server.engine_threads import PATIENCE, load_patiently

LEAST_PRESSING = 19
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a whole process is patient, or nobody")


def nice_of(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def started_now() -> int:
    """The niceness of a thread that the one that calls this has started."""
    found = []
    thread = threading.Thread(target=lambda: found.append(nice_of(threading.get_native_id())))
    thread.start()
    thread.join()
    return found[0]


@linux_only
def test_threads_that_a_model_starts_give_way_and_who_loads_it_does_not():
    before = nice_of(0)
    assert load_patiently(started_now, lambda: None) == min(before + PATIENCE, LEAST_PRESSING)
    assert nice_of(0) == before


@linux_only
def test_where_that_is_not_allowed_the_model_loads_all_the_same(monkeypatch):
    def refuse(_):
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "nice", refuse)
    assert load_patiently(lambda: 1, lambda: None) == 1


def test_it_is_prepared_on_the_thread_that_loads():
    places = []
    load_patiently(lambda: places.append(threading.get_ident()), lambda: places.append(threading.get_ident()))
    assert places[0] == places[1] != threading.get_ident()


def test_a_fault_of_the_load_is_raised_where_it_is_waited_for():
    def refuse():
        raise PermissionError("not here")

    with pytest.raises(ZeroDivisionError):
        load_patiently(lambda: 1 // 0, lambda: None)
    with pytest.raises(PermissionError):
        load_patiently(lambda: 1, refuse)
