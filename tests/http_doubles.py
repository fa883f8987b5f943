"""A server in memory: raw bytes in, raw bytes out, a stepped clock, and a pipeline that answers when told to."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Answer, Item, Labels, ModelFace, Options, Outcome, Picture
from rowserve.handlers.problem import Problem
from rowserve.server.limits import Limits
from rowserve.server.listener import ApiSite
from rowserve.server.metrics import Metrics, RowCounts
from rowserve.server.models import Models
from rowserve.server.site import Api
from rowserve.server.unsent import UNSENT_BYTES, Unsent
from tests.doubles import SteppedPool

SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("x", "float32", (2,)),),
    (TensorSpec("double", "float32", (2,)), TensorSpec("sum", "float32", ())),
)
OTHER = Signature("other", SIGNATURE.inputs, (TensorSpec("only", "float32", (2,)),))


class LengthDecoder:
    """Turns an upload into a row of its length; b"broken" does not decode."""

    identity = b"length"

    def peak_bytes(self, upload: Any) -> int:
        return len(upload)

    def decode(self, upload: Any) -> Rows:
        """[length, 1]"""
        if bytes(upload[:6]) == b"broken":
            raise Problem(422, "this is no picture", reason="undecodable")
        return Rows({"x": np.array([[len(upload), 1]], np.float32)}, 1)


class StandInModel:
    """What the HTTP side knows of a served model."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        self.face = ModelFace(
            name,
            version,
            {"serving_default": SIGNATURE, "other": OTHER},
            labels=Labels("double", ["first", "second"]),
            decoders={"serving_default": LengthDecoder(), "other": Problem(422, "its card has no [picture]")},
        )
        self.metrics = metrics

    def counts(self, protocol: str) -> RowCounts:
        return self.metrics.rows(self.face.name, self.face.version, protocol)


class StandInPipeline:
    """Doubles rows. Where `holding`, an answer waits in `asked` until `step`; else all rows are hits, at once."""

    def __init__(self) -> None:
        self.holding = False
        self.asked: deque[Any] = deque()
        self.seen: list[tuple[list[Any], Options]] = []
        self.cancelled = 0
        self.raises: Exception | None = None
        self.waiting_for_keep: list[Callable[[], None]] | None = None

    def answer(self, model: Any, signature: Signature, items: Sequence[Item], options: Options) -> Any:
        self.seen.append((list(items), options))
        if self.raises is not None:
            raise self.raises
        counts = model.counts(options.protocol)
        total = sum(item.count if isinstance(item, Rows) else 1 for item in items)
        counts.ask(total)

        def work(outcome: Outcome) -> Answer:
            packed: list[Any] = []
            errors: dict[int, Problem] = {}
            for item in items:
                try:
                    rows = item.decoder.decode(item.upload) if isinstance(item, Picture) else item
                    if isinstance(rows, Problem):
                        raise rows
                except Problem as problem:
                    errors[len(packed)] = problem
                    packed.append(None)
                    counts.settle(Outcome.FAILED, reason=problem.reason)
                    continue
                x = rows.arrays["x"]
                made = {"double": x * np.float32(2), "sum": x.sum(1), "only": x}
                packed += RowLayout(signature.outputs).pack(made, rows.count)
                counts.settle(outcome, rows.count)
            outcomes = [Outcome.FAILED if row is None else outcome for row in packed]
            return Answer(RowLayout(signature.outputs), packed, outcomes, errors)

        if not self.holding:
            return work(Outcome.HIT)

        def cancel(deferred: Deferred[Answer]) -> None:
            self.cancelled += total
            counts.settle(Outcome.FAILED, total, "cancelled")
            deferred.errback(CancelledError())

        done: Deferred[Answer] = Deferred(cancel)
        self.asked.append((done, work, lambda reason: counts.settle(Outcome.FAILED, total, reason)))
        return done

    def step(self) -> None:
        """Answers the oldest question, as computed."""
        done, work, _ = self.asked.popleft()
        if not done.called:
            done.callback(work(Outcome.COMPUTED))

    def step_all(self) -> None:
        while self.asked:
            self.step()

    def refuse(self, problem: Exception) -> None:
        """The oldest question fails as a whole."""
        done, _, fail = self.asked.popleft()
        fail(getattr(problem, "reason", "crashed"))
        done.errback(problem)

    def when_kept(self, call: Callable[[], None]) -> None:
        if self.waiting_for_keep is None:
            call()
        else:
            self.waiting_for_keep.append(call)


class StandInCache:
    """A cache whose sync comes back when told to."""

    stats = None

    def __init__(self) -> None:
        self.syncs: list[Callable[[Exception | None], None]] = []

    def sync(self, done: Callable[[Exception | None], None]) -> None:
        self.syncs.append(done)


class Wire(StringTransport):
    """A socket: counts what it is given, fills up at `room` unread bytes, closes when told."""

    def __init__(self, room: int | None = None) -> None:
        super().__init__(lenient=True)
        self.room = room
        self.half_closed = False
        self.aborted = False
        self.lost = False
        self.full = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        super().write(data)
        self._fill()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def _fill(self) -> None:
        if self.room is not None and not self.full and len(self.value()) > self.room and self.producer is not None:
            self.full = True
            self.producer.pauseProducing()

    def take(self) -> bytes:
        """The client reads everything there is."""
        data: bytes = self.value()
        self.clear()
        if self.full:
            self.full = False
            if self.producer is not None:
                self.producer.resumeProducing()
        return data

    @property
    def paused(self) -> bool:
        return self.producerState == "paused"

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def loseConnection(self) -> None:
        super().loseConnection()
        if not self.full:
            self.lose()

    def abortConnection(self) -> None:
        self.aborted = True
        self.lose()

    def lose(self) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


@dataclass
class Reply:
    """A parsed answer; `rest` is what follows it."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


def parse(data: bytes, *, head: bool = False) -> Reply:
    """The first answer in `data`; an unfinished body is given as far as it goes."""
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.split(b"\r\n")
    assert status.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), data[:200]
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().partition(": ")
        assert name.lower() not in headers, f"two {name} headers"
        headers[name.lower()] = value
    code = int(status.split()[1])
    if head or code in (100, 204, 304):
        return Reply(code, headers, b"", body)
    if "content-length" in headers:
        size = int(headers["content-length"])
        return Reply(code, headers, body[:size], body[size:])
    if headers.get("transfer-encoding") == "chunked":
        plain, rest = dechunk(body)
        return Reply(code, headers, plain, rest)
    return Reply(code, headers, body)


def dechunk(body: bytes) -> tuple[bytes, bytes]:
    """A chunked body, as far as it goes, and what follows it."""
    plain = b""
    while b"\r\n" in body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return plain, rest[2:]
        plain, body = plain + rest[:length], rest[length + 2 :]
    return plain, body


class Client:
    """One connection to a Server."""

    def __init__(self, server: Server, room: int | None = None) -> None:
        self.wire = Wire(room)
        self.server = server
        protocol = server.site.buildProtocol(None)
        assert protocol is not None
        self.protocol: Any = protocol
        self.wire.protocol = protocol
        protocol.makeConnection(self.wire)

    def send(self, data: bytes, step: int = 65536) -> None:
        """Gives the server `data` as it would read it, waiting while it does not read."""
        for start in range(0, len(data), step):
            turns = 0
            while self.wire.paused and not self.wire.lost and turns < 10_000:
                self.server.clock.advance(0)
                turns += 1
            if self.wire.lost:
                return
            self.protocol.dataReceived(data[start : start + step])
        self.server.turns()

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Sends a whole request and gives its answer (which must be there)."""
        self.send(head(method, path, None if body is None else len(body), **headers) + (body or b""))
        return self.reply(head=method == "HEAD")

    def reply(self, *, head: bool = False) -> Reply:
        """The answer that is there."""
        return parse(self.wire.take(), head=head)

    @property
    def closed(self) -> bool:
        return self.wire.lost or self.wire.disconnecting

    def hang_up(self) -> None:
        self.wire.lose()


def head(method: str, path: str, length: int | None = None, **headers: Any) -> bytes:
    """The head of a request; underscores in header names stand for dashes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


def form(*files: bytes, boundary: str = "B") -> bytes:
    """A multipart body of files."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="{index}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode() + data + b"\r\n"
        for index, data in enumerate(files)
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


FORM: dict[str, Any] = {"Content_Type": "multipart/form-data; boundary=B"}


class Server:
    """The HTTP side with a stand-in pipeline, two versions of model m, and one that is broken."""

    def __init__(self, limits: Limits | None = None, unsent: int = UNSENT_BYTES) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.models = Models()
        for version in (1, 2):
            state = self.models.expect("m", version)
            state.state = "ready"
            state.model = StandInModel(self.metrics, "m", version)  # type: ignore[assignment]
        pipeline: Any = StandInPipeline()
        self.pipeline: StandInPipeline = pipeline
        pipeline.clock = self.clock
        pipeline.unsent = Unsent(self.clock, unsent)
        self.cache = StandInCache()
        self.pool = SteppedPool()
        self.fault = ""
        self.api = Api(
            self.models,
            pipeline,
            self.cache,
            self.metrics,
            limits or Limits(),
            self.clock,
            self.pool.defer,
            lambda: self.fault,
        )
        self.site = ApiSite(self.api)

    def connect(self, room: int | None = None) -> Client:
        return Client(self, room)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        return self.connect().request(method, path, body, **headers)

    def turns(self, count: int = 2000) -> None:
        """Lets the reactor turn, while there is something to do at once."""
        for _ in range(count):
            calls: Any = self.clock.getDelayedCalls()
            if not any(call.getTime() <= self.clock.seconds() for call in calls):
                return
            self.clock.advance(0)

    def wait(self, seconds: float, step: float = 0.5) -> None:
        """Time passes, in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def figures(self) -> dict[str, float]:
        """The metrics, by name and labels."""
        lines = self.metrics.exposition().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    def adds_up(self) -> bool:
        """Whether asked = the sum of outcomes + pending, in the text of a scrape."""
        figures = self.figures()

        def total(name: str) -> float:
            return sum(value for key, value in figures.items() if key.startswith(name + "{"))

        return total("rowserve_rows_asked_total") == total("rowserve_rows_total") + total("rowserve_rows_pending")


class logged:  # noqa: N801
    """Twisted's log events while it lasts."""

    def __enter__(self) -> list[Any]:
        self.events: list[Any] = []
        self.observer = cast(Any, self.events.append)
        globalLogPublisher.addObserver(self.observer)
        return self.events

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self.observer)
