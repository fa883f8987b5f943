"""The reactor of the tools: what it reads and writes, and what a connection's fault does to the others."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.main import CONNECTION_DONE

from tests.http_doubles import logged

epoll = pytest.importorskip("twisted.internet.epollreactor")
from rowserve.tools.lean_reactor import LeanReactor  # noqa: E402


class End:
    """One end of a socket pair."""

    def __init__(self, reads: Callable[[], None] = lambda: None) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.reads = reads
        self.read = self.written = 0
        self.lost: list[Any] = []

    def fileno(self) -> int:
        return self.ours.fileno()

    def doRead(self) -> Exception | None:
        data = self.ours.recv(100)
        self.read += len(data)
        self.reads()
        return None if data else CONNECTION_DONE

    def doWrite(self) -> None:
        self.written += 1

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason)

    def logPrefix(self) -> str:
        raise AssertionError("nobody asks")


@pytest.fixture
def reactor() -> Iterator[LeanReactor]:
    made = LeanReactor()
    yield made
    for each in made.removeAll():
        each.connectionLost(None)
    made._poller.close()


def test_it_reads_and_writes(reactor: LeanReactor) -> None:
    end = End()
    reactor.addReader(end)
    reactor.doIteration(0)
    assert end.read == 0
    end.theirs.send(b"abc")
    reactor.doIteration(1)
    assert (end.read, end.written) == (3, 0)
    reactor.addWriter(end)
    reactor.doIteration(1)
    assert end.written == 1


def test_a_fault_is_logged_and_ends_its_own_connection_alone(reactor: LeanReactor) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    bad, good = End(broken), End()
    for end in (bad, good):
        reactor.addReader(end)
        end.theirs.send(b"abc")
    with logged() as events:
        reactor.doIteration(1)
    assert (len(bad.lost), good.lost, good.read) == (1, [], 3)
    assert [str(event["failure"].value) for event in events] == ["broken"]


def test_one_that_has_just_left_is_passed_over(reactor: LeanReactor) -> None:
    first, second = End(), End()
    for end, other in ((first, second), (second, first)):
        end.reads = partial(reactor.removeReader, other)
        reactor.addReader(end)
        end.theirs.send(b"a")
    reactor.doIteration(1)
    assert first.read + second.read == 1


def test_an_end_is_told_to_who_was_reading(reactor: LeanReactor) -> None:
    half, whole = End(), End()
    for end in (half, whole):
        reactor.addReader(end)
        end.theirs.send(b"abc")
    half.theirs.shutdown(socket.SHUT_WR)
    whole.theirs.close()
    for _ in range(3):
        reactor.doIteration(0)
    assert (half.read, whole.read) == (3, 3)
    assert [len(end.lost) for end in (half, whole)] == [1, 1]
    assert not {half, whole} & set(reactor.getReaders())


SERVED = """
import sys, types
served = types.ModuleType("served")
def serve_http(**flags):
    import rowserve.server.listener  # which brings Klein, which brings a reactor
    from twisted.internet import reactor
    print(type(reactor).__name__)
served.serve_http = serve_http
sys.modules["rowserve.tools.serving"] = served
from rowserve.tools.serve import serve
serve([])
"""


@pytest.mark.parametrize(("first", "name"), [("", "LeanReactor"), ("import twisted.internet.reactor", "EPollReactor")])
def test_the_server_runs_on_it_where_none_is_there(first: str, name: str) -> None:
    ran = subprocess.run([sys.executable, "-c", first + SERVED], capture_output=True, text=True, check=False)
    assert ran.stdout == f"{name}\n", ran.stderr
