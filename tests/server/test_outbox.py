"""What is written in one turn of the reactor goes out at its end, in order, and past nothing that waits already."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from rowserve.server.limits import Limits
from rowserve.server.outbox import Outbox
from rowserve.server.pacing import MOST_UNSENT, PacedProtocol
from rowserve.server.unsent import Unsent


class Socket:
    """Takes `room` bytes, then no more."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.sent: list[bytes] = []
        self.lost = False

    def send(self, data: bytes) -> int:
        if self.lost:
            raise ConnectionResetError
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.sent.append(taken)
        return len(taken)


class Connection:
    """A protocol over a socket that is a list."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.clock = Clock()
        self.socket = Socket(room)
        self.transport = cast("Any", StringTransport())
        self.transport.socket, self.transport.dataBuffer, self.transport._tempDataBuffer = self.socket, b"", []
        self.transport.offset = self.transport._tempDataLen = 0
        self.protocol = PacedProtocol(self.clock, Limits(), Outbox(self.clock), Unsent(self.clock))
        self.protocol.makeConnection(self.transport)
        self.protocol._tcp = self.transport

    @property
    def left(self) -> bytes:
        """What the transport was given to send."""
        written: bytes = self.transport.value()
        return written


def test_what_is_written_in_a_turn_is_sent_at_its_end_in_one_piece():
    connection = Connection()
    connection.protocol.write(b"one ")
    connection.protocol.write(b"two")
    assert connection.socket.sent == []
    connection.clock.advance(0)
    assert connection.socket.sent == [b"one two"]
    connection.clock.advance(0)
    assert connection.socket.sent == [b"one two"]
    connection.protocol.write(b"three")
    connection.clock.advance(0)
    assert connection.socket.sent == [b"one two", b"three"]
    assert connection.left == b""


def test_what_the_socket_does_not_take_is_left_to_the_transport():
    connection = Connection(room=3)
    connection.protocol.write(b"12345")
    connection.clock.advance(0)
    assert (connection.socket.sent, connection.left) == ([b"123"], b"45")
    connection.transport.dataBuffer = b"45"
    connection.protocol.write(b"67")
    assert connection.left == b"4567"


@pytest.mark.parametrize("fault", ["full", "lost"])
def test_a_socket_that_is_full_or_lost_is_the_transports_affair(fault):
    connection = Connection(room=0)
    connection.socket.lost = fault == "lost"
    connection.protocol.write(b"12345")
    connection.clock.advance(0)
    assert connection.left == b"12345"


def test_a_long_answer_in_pieces_feels_when_the_socket_is_full():
    connection = Connection(room=MOST_UNSENT)
    connection.protocol.write(b"x" * MOST_UNSENT)
    assert connection.socket.sent == []
    connection.protocol.write(b"y")
    assert connection.socket.sent == [b"x" * MOST_UNSENT]
    assert connection.left == b"y"


def test_all_is_sent_before_the_connection_is_closed():
    connection = Connection()
    connection.protocol.write(b"the last words")
    connection.protocol.loseConnection()
    assert connection.socket.sent == [b"the last words"]
    assert connection.transport.disconnecting
    connection.clock.advance(0)
    assert connection.socket.sent == [b"the last words"]


def test_all_is_sent_before_the_client_is_waited_for():
    connection = Connection()
    connection.protocol.write(b"413")
    connection.protocol.linger(10)
    assert connection.socket.sent == [b"413"]


def test_an_aborted_connection_sends_nothing_more():
    connection = Connection()
    connection.transport.abortConnection = lambda: None
    connection.protocol.write(b"late")
    connection.protocol.abort()
    connection.clock.advance(0)
    assert connection.socket.sent == []
    assert connection.left == b""


def test_every_connection_is_sent_for_once_in_order():
    clock = Clock()
    outbox = Outbox(clock)
    calls: list[str] = []

    class Sender:
        def __init__(self, name: str) -> None:
            self.name = name

        def send_now(self) -> None:
            calls.append(self.name)

    outbox.put(Sender("a"))
    outbox.put(Sender("b"))
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(0)
    assert calls == ["a", "b"]
    outbox.put(Sender("c"))
    clock.advance(0)
    assert calls == ["a", "b", "c"]
