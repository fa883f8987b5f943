from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

import grpc
from grpc import StatusCode
from grpc._cython import cygrpc

from rowserve.handlers.http_headers import request_options
from rowserve.handlers.items import Answer, Question
from rowserve.handlers.problem import Problem
from rowserve.server.grpc_log import LIBRARY
from rowserve.server.grpc_service import Asked, Metadata, Service, Several, Stream
from rowserve.server.one_core import Work
from tests.doubles import number_rows
from tests.grpc_doubles import Client, SteppedReactor, serving
from tests.server.conftest import PipelineBench

PROTOCOL = "test"
DOUBLE = "/test.Numbers/Double"
TALK = "/test.Numbers/Talk"


class Numbers:
    """Doubles the numbers in a message; what it does wrong, it does on purpose."""

    def __init__(self, bench: PipelineBench) -> None:
        self.bench = bench
        self.threads: set[str] = set()

    def service(self) -> Service:
        return Service(
            "test.Numbers",
            {
                "Echo": lambda message, _: message,
                "Double": self.double,
                "Twice": lambda message, metadata: Several([self.double(message, metadata)] * 2, b"+".join),
                "Refuse": self.refuse,
                "Break": lambda message, metadata: message * (1 // len(message)),
                "BreakInEncode": lambda message, metadata: self.asked(message, metadata, lambda answer: 1 // 0 * b""),
            },
            {"Talk": Stream(self.talk, lambda response: b"+" + response, lambda told: b"-" + told.encode())},
        )

    def talk(self, message: bytes, metadata: Metadata) -> Any:
        return self.refuse(message, metadata) if message[:1] == b"4" else self.double(message, metadata)

    def double(self, message: bytes, metadata: Metadata) -> Asked:
        return self.asked(message, metadata, self.encode)

    def asked(self, message: bytes, metadata: Metadata, encode: Any) -> Asked:
        self.threads.add(threading.current_thread().name)
        rows = number_rows(*np.frombuffer(message, np.float32).tolist())
        options = request_options(metadata, PROTOCOL)
        return Asked(self.bench.model, Question(self.bench.signature, [rows], options, encode))

    def encode(self, answer: Answer) -> bytes:
        self.threads.add(threading.current_thread().name)
        return answer.stacked()["double"][:, 0].tobytes()

    def refuse(self, message: bytes, _: Metadata) -> bytes:
        raise Problem(int(message[:3]), message[3:].decode())


@pytest.fixture
def bench() -> PipelineBench:
    return PipelineBench()


@pytest.fixture
def numbers(bench: PipelineBench) -> Numbers:
    return Numbers(bench)


@pytest.fixture
def lane(bench: PipelineBench, numbers: Numbers) -> Iterator[Any]:
    with serving([numbers.service()], bench.pipeline, bench.metrics) as (lane, client):
        yield lane, client


@pytest.fixture
def client(lane: Any) -> Client:
    found: Client = lane[1]
    return found


class Talk:
    """A stream of requests that is open until it is ended, and what has come back."""

    def __init__(self, client: Client, **more: Any) -> None:
        self.reactor = client.reactor
        self.sent: queue.Queue[bytes | None] = queue.Queue()
        self.call = client.channel.stream_stream(TALK)(iter(self.sent.get, None), **more)
        self.came: list[bytes] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            self.came.extend(iter(self.call))

    def say(self, message: bytes) -> None:
        self.sent.put(message)

    def heard(self, count: int) -> list[bytes]:
        """So many answers, when they have come."""
        self.reactor.until(lambda: len(self.came) == count)
        return self.came

    def end(self) -> None:
        self.sent.put(None)
        self.reactor.until(lambda: not self.thread.is_alive())


def floats(*numbers: float) -> bytes:
    return np.array(numbers, np.float32).tobytes()


def answered(client: Client, bench: PipelineBench, message: bytes, **more: Any) -> Any:
    """A call whose rows the graph has run, if it had to."""
    call = client.begin(DOUBLE, message, **more)
    while not call.done():
        client.reactor.until(lambda: call.done() or bench.begun())
        bench.run()
    return call


def counted(bench: PipelineBench) -> dict[str, float]:
    """Requests by code."""
    text = bench.metrics.exposition().decode().splitlines()
    found = [line for line in text if line.startswith("rowserve_request_seconds_count")]
    return {line.split('code="')[1].split('"')[0]: float(line.rpartition(" ")[2]) for line in found}


def refused(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as plug:
        return bool(plug.connect_ex(("127.0.0.1", port)))


def test_what_needs_no_rows_is_answered_at_once(client: Client) -> None:
    assert client.call("/test.Numbers/Echo", b"a\0b").result() == b"a\0b"


def test_rows_are_computed_then_hits_and_the_trailers_say_so(client: Client, bench: PipelineBench) -> None:
    first = answered(client, bench, floats(1, 2))
    again = client.call(DOUBLE, floats(2, 1))
    partial = answered(client, bench, floats(2, 3))
    assert [call.result() for call in (first, again, partial)] == [floats(2, 4), floats(4, 2), floats(4, 6)]
    told = [dict(call.trailing_metadata()) for call in (first, again, partial)]
    assert [each["cache-status"].partition(";")[2].strip() for each in told] == [
        'fwd=miss; detail="computed=2"',
        "hit",
        'fwd=partial; detail="hit=1 computed=1"',
    ]
    assert all(each["server-timing"].startswith("decode;dur=") for each in told)
    assert bench.counts == {"asked": 6, "hit": 3, "computed": 3}


def test_messages_are_read_and_written_on_the_lane_and_rows_asked_on_the_reactor(
    client: Client, bench: PipelineBench, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    answer = bench.pipeline.answer

    def seen(*arguments: Any) -> Any:
        asked.add(threading.current_thread().name)
        return answer(*arguments)

    monkeypatch.setattr(bench.pipeline, "answer", seen)
    answered(client, bench, floats(1))
    assert numbers.threads == {"grpc"}
    assert asked == {threading.current_thread().name}


def test_several_questions_make_one_answer(client: Client, bench: PipelineBench) -> None:
    answered(client, bench, floats(1, 2))
    call = client.call("/test.Numbers/Twice", floats(1, 2))
    assert call.result() == floats(2, 4) + b"+" + floats(2, 4)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (404, "NOT_FOUND"),
        (413, "RESOURCE_EXHAUSTED"),
        (422, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (501, "UNIMPLEMENTED"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_problem_is_a_code_and_a_message(client: Client, bench: PipelineBench, status: int, code: str) -> None:
    call = client.call("/test.Numbers/Refuse", str(status).encode() + "für dich".encode())
    assert call.code() is StatusCode[code]
    assert call.details() == "für dich"
    assert counted(bench) == {code: 1}


def test_a_message_is_cut(client: Client) -> None:
    call = client.call("/test.Numbers/Refuse", b"400" + "ä".encode() * 2000)
    assert call.details() == "ä" * 512 + "...TRUNCATED"


@pytest.mark.parametrize("method", ["Break", "BreakInEncode"])
def test_a_fault_of_ours_has_one_log_line_and_tells_nothing(
    client: Client, bench: PipelineBench, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        call = client.call(f"/test.Numbers/{method}", b"")
    assert call.code() is StatusCode.INTERNAL
    assert call.details() == "the server failed; its log says why"
    assert [record.getMessage() for record in caplog.records] == [f"/test.Numbers/{method} failed"]


def test_a_crash_of_the_pipeline_is_an_answer(
    client: Client, bench: PipelineBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench.pipeline, "answer", lambda *_: 1 / 0)
    assert client.call(DOUBLE, floats(1)).code() is StatusCode.INTERNAL
    assert "ZeroDivisionError" in caplog.text


def test_an_unknown_method_is_unimplemented(client: Client) -> None:
    assert client.call("/test.Numbers/Nothing").code() is StatusCode.UNIMPLEMENTED
    assert client.call("/test.Nothing/Echo").code() is StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused(client: Client) -> None:
    assert client.call("/test.Numbers/Echo", b"x" * (1 << 20)).result() == b"x" * (1 << 20)
    call = client.call("/test.Numbers/Echo", b"x" * ((1 << 20) + 1))
    assert call.code() is StatusCode.RESOURCE_EXHAUSTED


def test_cache_control_is_metadata(client: Client, bench: PipelineBench) -> None:
    call = client.call(DOUBLE, floats(1), metadata=[("cache-control", "only-if-cached")])
    assert call.code() is StatusCode.DEADLINE_EXCEEDED
    assert "not in the cache" in call.details()
    call = answered(client, bench, floats(1), metadata=[("cache-control", "no-store")])
    assert "fwd=bypass" in dict(call.trailing_metadata())["cache-status"]
    assert client.call(DOUBLE, floats(1), metadata=[("cache-control", "max-age=x")]).code() is (
        StatusCode.INVALID_ARGUMENT
    )


def test_the_calls_deadline_is_the_rows(client: Client, bench: PipelineBench) -> None:
    call = client.begin(DOUBLE, floats(1), timeout=50)
    client.reactor.until(bench.begun)
    bench.clock.advance(49)
    assert bench.counts == {"asked": 1, "pending": 1}
    bench.clock.advance(2)  # gRPC rounds what is left of a deadline up
    client.reactor.until(call.done)
    assert call.code() is StatusCode.DEADLINE_EXCEEDED
    assert call.details().startswith("no answer within ")
    assert bench.counts == {"asked": 1, "failed": 1}
    assert bench.reasons() == {"deadline": 1}
    assert bench.model.batcher.rows == 0
    assert counted(bench) == {"DEADLINE_EXCEEDED": 1}


def test_the_earlier_of_two_deadlines_counts(client: Client, bench: PipelineBench) -> None:
    call = client.begin(DOUBLE, floats(1), timeout=50, metadata=[("request-timeout", "3")])
    client.reactor.until(bench.begun)
    bench.clock.advance(3)
    client.reactor.until(call.done)
    assert call.details() == "no answer within 3 s"


def test_a_cancelled_calls_row_leaves_the_queue(client: Client, bench: PipelineBench) -> None:
    running = client.begin(DOUBLE, floats(1))
    client.reactor.until(bench.begun)
    waiting = client.begin(DOUBLE, floats(2))
    client.reactor.until(lambda: bench.counts["pending"] == 2)
    waiting.cancel()
    client.reactor.until(lambda: bench.reasons() == {"cancelled": 1})
    assert bench.counts == {"asked": 2, "pending": 1, "failed": 1}
    bench.run()
    client.reactor.until(running.done)
    assert running.result() == floats(2)
    assert bench.session.seen == [[1, 1, 1, 1]]
    assert counted(bench) == {"CANCELLED": 1, "OK": 1}


def test_a_client_that_goes_while_its_answer_is_sent_is_no_error(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    try:  # what the library does when sending fails: no client can be made to go in just that moment
        raise cygrpc.ExecuteBatchError("Failed")
    except cygrpc.ExecuteBatchError:
        logging.getLogger(LIBRARY).exception("raised in core by servicer method")
    assert not caplog.records


def test_a_client_that_goes_before_the_reactor_has_heard_of_it_asks_nothing(
    client: Client, bench: PipelineBench
) -> None:
    call = client.begin(DOUBLE, floats(1))
    wake, *arguments = client.reactor.calls.get(timeout=60)
    call.cancel()
    while not counted(bench):  # the lane has heard of it
        pass
    wake(*arguments)
    assert bench.counts == {}


def test_drained_it_takes_no_new_calls_and_finishes_those_that_run(lane: Any, bench: PipelineBench) -> None:
    server, client = lane
    idle: list[bool] = []
    running = client.begin(DOUBLE, floats(1))
    client.reactor.until(bench.begun)
    server.when_idle(lambda: idle.append(True))
    server.drain()
    client.reactor.until(lambda: refused(client.port))
    late = Client(client.reactor, client.port)
    assert late.call("/test.Numbers/Echo").code() is StatusCode.UNAVAILABLE
    late.channel.close()
    assert not running.done()
    assert not idle
    bench.run()
    client.reactor.until(lambda: bool(idle))
    assert running.result() == floats(2)
    server.drain()
    server.abort()  # a lane that has ended takes no notice


def test_aborted_it_ends_what_runs(lane: Any, bench: PipelineBench) -> None:
    server, client = lane
    running = client.begin(DOUBLE, floats(1))
    client.reactor.until(bench.begun)
    server.abort()
    client.reactor.until(running.done)
    assert running.code() is StatusCode.UNAVAILABLE
    client.reactor.until(lambda: bench.counts.get("pending") is None)
    assert bench.reasons() == {"cancelled": 1}


def test_two_do_not_share_a_port(client: Client, bench: PipelineBench, numbers: Numbers) -> None:
    from rowserve.server.grpc_lane import GrpcLane

    taken = GrpcLane([numbers.service()], bench.pipeline, bench.metrics, 1 << 20, client.reactor)
    with serving([numbers.service()], bench.pipeline, bench.metrics) as (_, other):
        port = other.port
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            taken.start(f"127.0.0.1:{port}")


def test_the_lane_shares_the_core_and_tells_its_calls(bench: PipelineBench, numbers: Numbers) -> None:
    from rowserve.server.grpc_lane import GrpcLane

    class Core:
        def __init__(self) -> None:
            self.watched: list[Any] = []
            self.names: list[str] = []

        def watch(self, work: Any) -> None:
            self.watched.append(work)

        @contextmanager
        def joined(self) -> Iterator[None]:
            self.names.append(threading.current_thread().name)
            yield
            self.names.append("left")

    core: Any = Core()
    reactor = SteppedReactor()
    lane = GrpcLane([numbers.service()], bench.pipeline, bench.metrics, 1 << 20, reactor, core)
    client = Client(reactor, lane.start("127.0.0.1:0"))
    for _ in range(3):
        client.call("/test.Numbers/Echo")
    assert [work() for work in core.watched] == [Work(3)]
    client.channel.close()
    idle: list[bool] = []
    lane.when_idle(lambda: idle.append(True))
    lane.abort()
    reactor.until(lambda: bool(idle))
    assert core.names == ["grpc", "left"]


def test_a_stream_answers_each_request_in_its_turn_and_outlives_faults(client: Client, bench: PipelineBench) -> None:
    talk = Talk(client)
    talk.say(floats(1))
    client.reactor.until(bench.begun)
    talk.say(b"404no such thing")
    talk.say(floats(1, 2))
    assert talk.came == []
    bench.run()
    assert talk.heard(2) == [b"+" + floats(2), b"-no such thing"]
    client.reactor.until(bench.begun)
    bench.run()
    assert talk.heard(3)[2] == b"+" + floats(2, 4)
    talk.end()
    assert talk.call.code() is StatusCode.OK
    assert bench.counts == {"asked": 3, "hit": 1, "computed": 2}
    assert counted(bench) == {"OK": 2, "NOT_FOUND": 1}


def test_a_cancelled_streams_row_leaves_the_queue(client: Client, bench: PipelineBench) -> None:
    running = client.begin(DOUBLE, floats(1))
    client.reactor.until(bench.begun)
    talk = Talk(client)
    talk.say(floats(2))
    client.reactor.until(lambda: bench.counts["pending"] == 2)
    talk.call.cancel()
    client.reactor.until(lambda: bench.reasons() == {"cancelled": 1})
    bench.run()
    client.reactor.until(running.done)
    assert bench.session.seen == [[1, 1, 1, 1]]
    talk.end()


def test_a_deadline_of_a_request_is_kept_in_a_stream(client: Client, bench: PipelineBench) -> None:
    talk = Talk(client, metadata=[("request-timeout", "3")])
    talk.say(floats(1))
    client.reactor.until(bench.begun)
    bench.clock.advance(3)
    assert talk.heard(1) == [b"-no answer within 3 s"]
    talk.end()


def test_an_open_stream_that_asks_nothing_does_not_hold_up_the_end(lane: Any, bench: PipelineBench) -> None:
    server, client = lane
    talk = Talk(client)
    talk.say(b"404first")
    talk.heard(1)
    idle: list[bool] = []
    server.when_idle(lambda: idle.append(True))
    server.drain()
    client.reactor.until(lambda: bool(idle))
    talk.end()
