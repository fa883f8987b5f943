"""When requests are sent, and what their latency is counted from."""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rowserve.tools.bench_load import GRACE_SECONDS, Connection, Load
from rowserve.tools.bench_report import outcomes, summary, table

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Status: rowserve; hit\r\n\r\nok"


class Wire:
    """A transport that takes `room` bytes at once."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.sent = b""
        self.closed = False

    def setTcpNoDelay(self, on: bool) -> None:
        pass

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        if self.closed:
            return ConnectionLost()
        self.sent += data[: self.room]
        return len(data[: self.room])

    def write(self, data: bytes) -> None:
        self.sent += data

    def abortConnection(self) -> None:
        self.closed = True

    def loseConnection(self) -> None:
        self.closed = True


class Network(Clock):
    """A clock that connects at once."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Connection] = []
        self.factories: list[Any] = []

    def connectTCP(self, host, port, factory):
        self.factories.append(factory)
        self.connect()

    def connect(self, wire: Wire | None = None) -> None:
        connection = self.factories[0].buildProtocol(None)
        self.connections.append(connection)
        connection.makeConnection(wire or Wire())


def loaded(seconds: float = 10, rate: float | None = None, connections: int = 1) -> tuple[Load, Network]:
    network = Network()
    load = Load(network, repeat(b"ask"), seconds, rate, network.seconds, lambda run: None)
    load.begin("h", 1, connections)
    return load, network


def wire(connection: Connection) -> Any:
    return connection.transport


def sent(network: Network) -> list[int]:
    return [wire(connection).sent.count(b"ask") for connection in network.connections]


def test_without_a_rate_the_next_request_goes_when_the_answer_is_in():
    load, network = loaded(connections=2)
    assert sent(network) == [1, 1]
    network.advance(1)
    network.connections[0].dataReceived(ANSWER[:30])
    assert sent(network) == [1, 1]
    network.connections[0].dataReceived(ANSWER[30:])
    assert sent(network) == [2, 1]
    assert load.latency.highest == 1


def test_with_a_rate_latency_counts_from_when_a_request_was_due():
    load, network = loaded(rate=1)
    assert sent(network) == [1]
    network.advance(3.5)  # those due at 1, 2 and 3 s find no free connection
    load.due()
    assert sent(network) == [1]
    for _ in range(4):
        network.connections[0].dataReceived(ANSWER)
    assert load.latency.total == 4
    for share, seconds in ((0.25, 0.5), (0.5, 1.5), (0.75, 2.5), (1, 3.5)):
        assert abs(load.latency.quantile(share) / seconds - 1) < 0.011
    assert sent(network) == [4]
    network.advance(0.5)
    load.due()
    assert sent(network) == [5]


def test_requests_that_were_due_and_never_sent_are_told():
    load, network = loaded(seconds=10, rate=1)
    network.advance(10)
    assert load.unsent == 9
    network.connections[0].dataReceived(ANSWER)
    assert load.done.called
    assert any("unsent" in line for line in table(summary(load, 1)))


def test_the_end_waits_for_answers_but_not_for_ever():
    load, network = loaded(seconds=1)
    network.advance(1)
    assert not load.done.called
    network.connections[0].dataReceived(ANSWER)
    assert load.done.called
    assert (load.in_time, load.latency.total, sent(network)) == (1, 1, [1])

    load, network = loaded(seconds=1)
    network.advance(1)
    network.advance(GRACE_SECONDS)
    assert load.done.called
    assert load.faults == {"no answer": 1}


def test_the_last_request_ends_it():
    network = Network()
    load = Load(network, iter([b"ask", b"ask"]), 10, None, network.seconds, lambda run: None)
    load.begin("h", 1, 1)
    network.advance(2)
    for _ in range(2):
        assert not load.done.called
        network.connections[0].dataReceived(ANSWER)
    assert load.done.called
    assert (load.elapsed, load.in_time, sent(network)) == (2, 2, [2])


def test_a_lost_connection_counts_and_is_made_again():
    load, network = loaded()
    connection = network.connections[0]
    connection.connectionLost(Failure(ConnectionDone()))
    assert load.faults == {"connection lost": 1}

    class Connector:
        connect = network.connect

    network.factories[0].clientConnectionLost(Connector, Failure(ConnectionDone()))
    assert sent(network) == [1, 1]


def test_what_is_no_answer_ends_its_connection():
    load, network = loaded()
    network.connections[0].dataReceived(b"SMTP\r\n\r\n")
    assert wire(network.connections[0]).closed
    assert load.faults == {"no HTTP answer": 1}
    network.connections[0].connectionLost(Failure(ConnectionDone()))
    assert load.faults == {"no HTTP answer": 1}


def test_an_idle_connection_that_is_lost_is_not_used():
    load, network = loaded(rate=1, connections=2)
    network.connections[1].connectionLost(Failure(ConnectionDone()))
    network.connections[0].dataReceived(ANSWER)
    network.advance(2)
    load.due()
    assert sent(network) == [2, 0]


def test_the_socket_takes_what_it_can_and_the_transport_the_rest():
    _, network = loaded()
    network.connect(Wire(room=1))
    assert wire(network.connections[-1]).sent == b"ask"


def test_rows_are_counted_by_what_the_answers_say_of_them():
    caches = Counter(
        {
            b"rowserve; hit": 2,
            b'rowserve; fwd=partial; detail="hit=3 computed=1"': 3,
            b'rowserve; fwd=miss; detail="collapsed=4"': 1,
            b"": 5,
        }
    )
    assert outcomes(caches, 4) == {"hit": 17, "computed": 3, "collapsed": 4}
