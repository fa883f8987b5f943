"""What a gRPC service is to the lane: a name, and for each method a function of a message's bytes. Lane thread.

A service is a plain object that knows neither grpc nor threads; the lane (`grpc_lane`) calls its methods and does the
rest: deadline, cancellation, the way to the pipeline and back, errors, metadata, metrics. One that echoes rows:

    class Echo:
        def __init__(self, models: Models) -> None:
            self._models = models

        def service(self) -> Service:
            return Service("example.Echo", {"Ping": lambda message, metadata: b"", "Rows": self.rows})

        def rows(self, message: bytes, metadata: Metadata) -> Asked:
            served = self._models.find(...)                   # raises Problem 404, 503
            options = request_options(metadata, PROTOCOL)     # cache-control and request-timeout, as in HTTP
            return Asked(served, Question(signature, items, options, encode))

`message` is the request as it came (the lane has held it to the body limit), `metadata` the call's, names in lower
case. A method returns the response's bytes, or what must be asked for them; it raises Problem, which `fault` turns into
a code and a message. It must not block. `encode` runs on the lane as well. `grpc_services` lists what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rowserve.handlers.grpc_status import grpc_fault

if TYPE_CHECKING:
    from rowserve.handlers.items import Question
    from rowserve.handlers.problem import Problem
    from rowserve.server.models import ServedModel

Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows of one model; `question.encode` writes the response's bytes."""

    served: ServedModel
    question: Question[bytes]


@dataclass(frozen=True, slots=True)
class Several:
    """Rows asked one after the other; `join` makes one response of what each was encoded to."""

    asked: Sequence[Asked]
    join: Callable[[list[bytes]], bytes]


Reply = bytes | Asked | Several
Method = Callable[[bytes, Metadata], Reply]


@dataclass(frozen=True)
class Stream:
    """A method whose requests and answers come in streams: each request is answered in its turn, as `method` answers
    one. `answer` and `fault` write what goes out for it, of a response and of a message for a Problem."""

    method: Method
    answer: Callable[[bytes], bytes]
    fault: Callable[[str], bytes]


@dataclass(frozen=True)
class Service:
    """A service by its full name, such as grpc.health.v1.Health; `methods` take and give one message.

    `fault` gives the name of the status code, and the message, of a Problem.
    """

    name: str
    methods: Mapping[str, Method]
    streams: Mapping[str, Stream] = field(default_factory=dict)
    fault: Callable[[Problem], tuple[str, str]] = grpc_fault
