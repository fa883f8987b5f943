"""The end of the server, on a stepped clock."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rowserve.server.lifecycle import Lifecycle
from tests.http_doubles import FORM, Server, form, head, logged


class Stage:
    """A server with a lifecycle around it."""

    def __init__(self) -> None:
        self.server = Server()
        self.events: list[Any] = []
        self.flushed: Deferred[None] = Deferred()
        self.lifecycle = Lifecycle(self.server.clock, [self], [self.server.site], self.flush, self.leave)

    def stopListening(self) -> None:
        self.events.append("closed port")

    def flush(self) -> Deferred[None]:
        self.events.append("flush")
        return self.flushed

    def leave(self, code: int) -> None:
        self.events.append(code)

    def running_request(self):
        self.server.pipeline.holding = True
        client = self.server.connect()
        body = form(b"abc")
        client.send(head("POST", "/images/m", len(body), **FORM) + body)
        return client


def test_it_stops_listening_finishes_what_runs_flushes_and_leaves():
    stage = Stage()
    idle = stage.server.connect()
    idle.request("GET", "/livez")
    client = stage.running_request()
    stage.lifecycle.signalled(signal.SIGTERM)
    assert stage.events == ["closed port"]
    assert idle.closed
    assert not client.closed
    stage.server.wait(5)
    stage.server.pipeline.step()
    reply = client.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert client.closed
    assert stage.events == ["closed port", "flush"]
    stage.flushed.callback(None)
    assert stage.events == ["closed port", "flush", 0]
    assert stage.server.clock.getDelayedCalls() == []


def test_a_connection_kept_open_says_draining_until_it_ends():
    stage = Stage()
    client = stage.server.connect()
    client.send(b"GET /readyz HTTP/1.1\r\n")
    stage.lifecycle.stop()
    assert not client.closed
    client.send(b"Host: a\r\n\r\n")
    reply = client.reply()
    assert (reply.status, reply.json["state"]) == (503, "draining")
    assert client.closed


def test_a_body_that_is_coming_in_is_still_taken():
    stage = Stage()
    client = stage.server.connect()
    body = form(b"abc")
    client.send(head("POST", "/images/m", len(body), **FORM) + body[:20])
    stage.lifecycle.stop()
    client.send(body[20:])
    assert client.reply().status == 200
    assert client.closed


def test_a_refused_client_that_still_sends_does_not_keep_the_server():
    stage = Stage()
    client, late = stage.server.connect(), stage.server.connect()
    client.send(head("POST", "/images/m", 1 << 30, **FORM) + b"x" * 1000)
    late.send(head("POST", "/images/m", 1 << 30, **FORM)[:-2])
    stage.lifecycle.stop()
    assert client.closed
    late.send(b"\r\n")
    assert late.reply().status == 413
    for _ in range(6):
        late.send(b"x")
        stage.server.wait(0.5)
    assert stage.events == ["closed port", "flush"]


def test_it_leaves_in_time_whatever_still_runs():
    stage = Stage()
    client = stage.running_request()
    stage.lifecycle.stop()
    stage.server.wait(29.5)
    assert stage.events == ["closed port"]
    stage.server.wait(0.5)
    assert stage.events[-1] == 1
    assert client.wire.aborted
    assert stage.server.pipeline.cancelled == 1
    stage.flushed.callback(None)
    assert stage.events.count(1) == 1
    assert 0 not in stage.events


def test_a_second_signal_leaves_at_once():
    stage = Stage()
    stage.running_request()
    stage.lifecycle.signalled(signal.SIGTERM)
    stage.lifecycle.signalled(signal.SIGINT)
    assert stage.events == ["closed port", 130]
    stage.server.wait(60)
    assert stage.events == ["closed port", 130]


def test_a_flush_that_fails_is_not_a_clean_end():
    stage = Stage()
    stage.lifecycle.stop()
    stage.flushed.errback(OSError("disk full"))
    assert stage.events == ["closed port", "flush", 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_to_the_reactor(number):
    stage = Stage()
    handlers: dict[int, Any] = {}
    queue: list[Any] = []
    stage.lifecycle.handle_signals(lambda call, *args: queue.append((call, args)), handlers.__setitem__)
    handlers[number](number, None)
    assert stage.events == []  # nothing is done inside the handler
    call, args = queue.pop()
    call(*args)
    assert stage.events == ["closed port", "flush"]


def test_a_hangup_is_a_line_in_the_log_and_nothing_else():
    stage = Stage()
    handlers: dict[int, Any] = {}
    queue: list[Any] = []
    stage.lifecycle.handle_signals(lambda call, *args: queue.append((call, args)), handlers.__setitem__)
    handlers[signal.SIGHUP](signal.SIGHUP, None)
    call, args = queue.pop()
    with logged() as events:
        call(*args)
    assert stage.events == []
    assert ["SIGHUP" in event["log_format"] for event in events] == [True]
