"""At the limit of connections: who makes room, and what is still answered."""

from __future__ import annotations

import pytest

from rowserve.server.admission import MOST, PROBES, ROOM, Admission, default_connections
from tests.http_doubles import Client, Server, head


@pytest.fixture
def server() -> Server:
    found = Server()
    found.site.admission = Admission(3)
    return found


def busy(server: Server) -> Client:
    """A connection in the middle of a request."""
    client = server.connect()
    client.send(head("POST", "/rows/m", 100) + b"[1")
    return client


def test_the_one_that_has_been_idle_longest_makes_room(server: Server) -> None:
    clients = []
    for _ in range(3):
        clients.append(server.connect())
        clients[-1].request("GET", "/livez")
        server.wait(2)
    clients[0].request("GET", "/livez")
    assert server.connect().request("GET", "/v1/models/m").status == 200
    assert [client.closed for client in clients] == [False, True, False]
    assert server.site.admission.closed == {"idle": 1, "full": 0}


def test_one_that_never_asked_makes_room_but_not_one_that_has_just_come(server: Server) -> None:
    silent = server.connect()
    server.wait(2)
    others = [busy(server), server.connect()]
    assert server.connect().request("GET", "/v1/models/m").status == 200
    assert silent.closed
    assert not any(client.closed for client in others)


def test_where_none_is_idle_only_probes_are_answered(server: Server) -> None:
    clients = [busy(server) for _ in range(3)]
    for path in ("/livez", "/readyz", "/metrics"):
        probe = server.connect()
        assert probe.request("GET", path).status == 200
        assert probe.closed
    refused = server.connect()
    reply = refused.request("GET", "/v1/models/m")
    assert (reply.status, reply.headers["connection"]) == (503, "close")
    assert "limits.connections" in reply.json["detail"]
    assert not any(client.closed for client in clients)
    clients[0].hang_up()
    assert server.connect().request("GET", "/v1/models/m").status == 200


def test_silent_newcomers_do_not_keep_probes_out(server: Server) -> None:
    for _ in range(3):
        busy(server)
    silent = [server.connect() for _ in range(PROBES + 5)]
    assert sum(client.closed for client in silent) == 5
    assert server.connect().request("GET", "/livez").status == 200


@pytest.mark.parametrize(("files", "most"), [(1024, 1024 - ROOM), (300, 150), (1 << 20, MOST)])
def test_the_default_leaves_room_for_other_files(files: int, most: int) -> None:
    assert default_connections(files) == most
