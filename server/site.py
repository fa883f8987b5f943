"""From the head of a request to its route, and from what was read to its answer. Reactor thread.

A route's function runs as soon as the headers are complete, so that what is to be refused is refused before its body
comes. What it returns is an Encoded answer, or the sink that takes the body and then answers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred

from rowserve.handlers.items import Answer, Encoded, Question
from rowserve.handlers.problem import Problem
from rowserve.server.admission import Admission
from rowserve.server.bodies import CODINGS, Asked, BodySink, Collected, Discarded, Inflated, too_large
from rowserve.server.metrics import Metrics
from rowserve.server.pieces import answer_in_pieces
from rowserve.server.request import SMALL_BODY, ApiRequest
from rowserve.server.target import version_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.graphs.rows import Buffer
    from rowserve.server.limits import Limits
    from rowserve.server.models import Models, ServedModel
    from rowserve.server.pipeline import RowPipeline


class Api:
    """What the routes share. `defer_to_pool` runs a call on a thread; `health` names what makes the process not live,
    or ""."""

    def __init__(
        self,
        models: Models,
        pipeline: RowPipeline,
        cache: Any,
        metrics: Metrics,
        limits: Limits,
        clock: Any,
        defer_to_pool: Callable[..., Deferred[Any]],
        health: Callable[[], str] = lambda: "",
        admission: Admission | None = None,
    ) -> None:
        self.models = models
        self.pipeline = pipeline
        self.cache = cache
        self.metrics = metrics
        self.limits = limits
        self.clock = clock
        self.defer_to_pool = defer_to_pool
        self.health = health
        self.admission = admission or Admission()
        self.draining = False

    def admit(self, request: ApiRequest) -> BodySink:
        """Where the body goes. Raises Problem."""
        opened = request.router.open(request)
        if isinstance(opened, Encoded):
            return Discarded(partial(request.respond, opened), SMALL_BODY)
        if opened.endless:
            request.channel.expect_endless_body()
        elif request.length is not None and request.length > self.limits.body_bytes:
            raise too_large(self.limits.body_bytes)
        coding = request.header("content-encoding").lower()
        if coding in ("", "identity"):
            return opened
        if coding in CODINGS:
            return Inflated(opened, coding)
        told = f"Content-Encoding {coding[:40]!r} is not taken; send gzip, deflate, or none"
        raise Problem(415, told, reason="coding")

    def find(self, name: str, version: str | None) -> ServedModel:
        """The model of a path. Raises Problem 404 naming what there is."""
        return self.models.find(name, None if version is None else version_number(version))

    def collect(self, then: Callable[[Buffer], None]) -> BodySink:
        """Takes the body whole, within the limit, and hands it over."""
        return Collected(then, self.limits.body_bytes)

    def ask(
        self, request: ApiRequest, served: ServedModel, read: Callable[[Buffer], Question[Encoded] | Encoded]
    ) -> BodySink:
        """Takes the body, reads it (on the pool, where it is large), and answers what it asks: of the model, or at
        once.

        `served` and `read` must follow from the head of the request and the models alone: they are kept, and used for
        the next request with the same head.
        """
        return Asked(partial(self.read, request, served, read), self.limits.body_bytes, served, read)

    def read(
        self,
        request: ApiRequest,
        served: ServedModel,
        read: Callable[[Buffer], Question[Encoded] | Encoded],
        body: Buffer,
    ) -> None:
        """The same for a body that is here: the part of a form that counts."""
        if len(body) > self.limits.pool_parse_bytes:
            request.wait_for(self.defer_to_pool(partial(read, body)), partial(self.answer, request, served))
        else:
            self.answer(request, served, read(body))

    def answer(self, request: ApiRequest, served: ServedModel, question: Question[Encoded] | Encoded) -> None:
        """Answers what was asked."""
        if isinstance(question, Encoded):
            request.respond(question)
            return
        answer = answer_in_pieces(self.pipeline, served, question.signature, question.items, question.options)
        if type(answer) is Answer:  # to ask whether it is a Deferred costs more, as that is an abstract class
            self._respond(request, question, answer)
        else:
            request.wait_for(cast("Deferred[Answer]", answer), partial(self._respond, request, question))

    def _respond(self, request: ApiRequest, question: Question[Encoded], answer: Answer) -> None:
        """Encodes the answer; a large one on the pool."""
        if answer.nbytes > self.limits.pool_encode_bytes:
            claim = self.pipeline.unsent.claim(answer.nbytes)
            claim.hold()
            encoded = self.defer_to_pool(partial(question.encode, answer))
            request.wait_for(encoded.addBoth(claim.pass_on), request.respond)
        else:
            request.respond(question.encode(answer))
