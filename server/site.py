"""The HTTP routes, by Klein: each opens a sink for its body, or answers at once. Reactor thread.

A route's function runs as soon as the headers are complete, so that what is to be refused is refused before its body
comes. What it returns is an Encoded answer, or the sink that takes the body and then answers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from klein import Klein
from twisted.internet.defer import Deferred
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from rowserve.handlers import images, tensorflow_serving, tensorflow_serving_models
from rowserve.handlers.http_headers import request_options
from rowserve.handlers.items import Answer, Encoded, Item, Options
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving_models import VersionState
from rowserve.handlers.tensorflow_serving_texts import servable_not_found, status_not_found
from rowserve.server import probes
from rowserve.server.bodies import BodySink, Collected, Discarded, Inflated, Parts, too_large
from rowserve.server.faults import NotAllowed, native_fault, tensorflow_fault
from rowserve.server.metrics import CONTENT_TYPE, Metrics
from rowserve.server.openapi import document
from rowserve.server.pieces import answer_in_pieces
from rowserve.server.request import SMALL_BODY, ApiRequest
from rowserve.server.streaming import RowStream
from rowserve.server.target import decoded_path, version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rowserve.graphs.rows import Buffer
    from rowserve.graphs.signature import Signature
    from rowserve.handlers.multipart import Part
    from rowserve.handlers.tensorflow_serving import PredictRequest
    from rowserve.server.limits import Limits
    from rowserve.server.models import Models, ModelState, ServedModel
    from rowserve.server.pipeline import RowPipeline

Opened = BodySink | Encoded
Handler = TypeVar("Handler", bound="Callable[..., Opened]")
APP = Klein()


def route(method: str, rule: str) -> Callable[[Handler], Handler]:
    """Klein's decorator, typed for our requests."""
    return cast("Callable[[Handler], Handler]", APP.route(rule, methods=[method]))


class Api:
    """All routes. `defer_to_pool` runs a call on a thread; `health` names what makes the process not live, or ""."""

    app = APP

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
    ) -> None:
        self.models = models
        self.pipeline = pipeline
        self.cache = cache
        self.metrics = metrics
        self.limits = limits
        self.clock = clock
        self.defer_to_pool = defer_to_pool
        self.health = health
        self.draining = False
        self.problem_form = native_fault
        self._bound = self.app
        self._map = self.app.url_map.bind("localhost")

    # From the head of a request to its route

    def admit(self, request: ApiRequest) -> BodySink:
        """Where the body goes. Raises Problem."""
        if request.path.startswith(b"/v1/"):
            request.problem_form = tensorflow_fault
        opened = self._route(request)
        if isinstance(opened, Encoded):
            return Discarded(partial(request.respond, opened), SMALL_BODY)
        if not opened.endless and request.length is not None and request.length > self.limits.body_bytes:
            raise too_large(self.limits.body_bytes)
        coding = request.header("content-encoding").lower()
        if coding in ("", "identity"):
            return opened
        if coding in ("gzip", "x-gzip"):
            return Inflated(opened)
        raise Problem(415, f"Content-Encoding {coding[:40]!r} is not taken; send gzip, or none", reason="coding")

    def _route(self, request: ApiRequest) -> Opened:
        method, path = request.method.decode("ascii"), decoded_path(request.path)
        if method == "OPTIONS":
            return self._options(path)
        try:
            rule, arguments = self._map.match(path, method, return_rule=True)
        except MethodNotAllowed as error:
            allowed = error.valid_methods or ()
            raise self._unknown(request, NotAllowed(method, path, {*allowed, "OPTIONS"})) from None
        except (HTTPException, RequestRedirect):
            told = f"there is nothing at {path[:200]}; /openapi.json describes what there is"
            raise self._unknown(request, Problem(404, told)) from None
        request.route = rule.rule.replace("<", "{").replace(">", "}")
        return cast("Opened", self._bound.execute_endpoint(rule.endpoint, cast("Any", request), **arguments))

    def _unknown(self, request: ApiRequest, problem: Problem) -> Problem:
        if request.problem_form is not tensorflow_fault:
            return problem
        return tensorflow_serving_models.not_served_yet(servable(request).verb)

    def _options(self, path: str) -> Encoded:
        allowed = set(self._map.allowed_methods(path))
        if not allowed and path != "*":
            raise Problem(404, f"there is nothing at {path[:200]}; /openapi.json describes what there is")
        return Encoded(204, [("Allow", ", ".join(sorted({*allowed, "OPTIONS"})))], b"")

    def find(self, name: str, version: str | None) -> ServedModel:
        """The model of a path. Raises Problem 404 naming what there is."""
        return self.models.find(name, None if version is None else version_number(version))

    # Native routes

    @route("POST", "/images/<model>")
    @route("POST", "/images/<model>/versions/<version>")
    def post_images(self, request: ApiRequest, model: str, version: str | None = None) -> Opened:
        """Pictures in, one row each."""
        served = self.find(model, version)
        options = request_options(request.headers, images.PROTOCOL)
        images.read_query(served.face, request.query)
        content_type = request.header("content-type")

        def form(parts: Sequence[Part]) -> None:
            self._answer_images(request, served, images.read_form(served.face, request.query, parts), options)

        def body(picture: Buffer) -> None:
            self._answer_images(request, served, images.read_body(served.face, request.query, picture), options)

        if images.is_form(content_type):
            return Parts(form, content_type, self.limits)
        return Collected(body, self.limits.body_bytes)

    def _answer_images(
        self, request: ApiRequest, served: ServedModel, asked: images.ImagesRequest, options: Options
    ) -> None:
        def encode(answer: Answer) -> Encoded:
            return images.encode(served.face, asked.names, answer, asked.wants)

        self._answer(request, served, asked.signature, asked.items, options, encode)

    @route("POST", "/rows/<model>")
    @route("POST", "/rows/<model>/versions/<version>")
    def post_rows(self, request: ApiRequest, model: str, version: str | None = None) -> Opened:
        """Lines in, lines out, streamed."""
        return RowStream(self, request, self.find(model, version))

    # TensorFlow Serving's routes

    @route("POST", "/v1/models/<model>:predict")
    @route("POST", "/v1/models/<model>/versions/<version>:predict")
    def post_predict(self, request: ApiRequest, **_: str) -> Opened:
        """Predict, in row or column form."""
        served = self._servable(request)
        options = request_options(request.headers, tensorflow_serving.PROTOCOL)

        def parsed(asked: PredictRequest) -> None:
            encode = partial(tensorflow_serving.encode_predict, asked)
            self._answer(request, served, asked.signature, asked.items, options, encode)

        def body(document: Buffer) -> None:
            read = partial(tensorflow_serving.read_predict, served.face, document)
            if len(document) > self.limits.pool_parse_bytes:
                request.wait_for(self.defer_to_pool(read), parsed)
            else:
                parsed(read())

        return Collected(body, self.limits.body_bytes)

    @route("GET", "/v1/models/<model>")
    @route("GET", "/v1/models/<model>/versions/<version>")
    def get_status(self, request: ApiRequest, **_: str) -> Opened:
        """The states of a model's versions."""
        asked = servable(request)
        states = [state for state in self.models.states() if state.name == asked.model]
        if asked.version is not None:
            states = [state for state in states if state.version == asked.version]
        if not states:
            raise status_not_found(asked.model, asked.version)
        return tensorflow_serving_models.encode_status(version_state(state) for state in states)

    @route("GET", "/v1/models/<model>/metadata")
    @route("GET", "/v1/models/<model>/versions/<version>/metadata")
    def get_metadata(self, request: ApiRequest, **_: str) -> Opened:
        """Signatures, as TensorFlow Serving tells them."""
        return tensorflow_serving_models.encode_metadata(self._servable(request).face)

    def _servable(self, request: ApiRequest) -> ServedModel:
        asked = servable(request)
        try:
            return self.models.find(asked.model, asked.version)
        except Problem as problem:
            if problem.status != 404:
                raise
            raise servable_not_found(asked.model, asked.version) from None

    # The server itself

    @route("GET", "/livez")
    def get_livez(self, request: ApiRequest) -> Opened:
        """Whether the process does its work."""
        return probes.livez(self.health())

    @route("GET", "/readyz")
    def get_readyz(self, request: ApiRequest) -> Opened:
        """Whether requests should be sent here, and the state of each model."""
        return probes.readyz(self.models, self.draining)

    @route("GET", "/metrics")
    def get_metrics(self, request: ApiRequest) -> Opened:
        """Prometheus' text form."""
        return Encoded(200, [("Content-Type", CONTENT_TYPE)], self.metrics.exposition())

    @route("GET", "/openapi.json")
    def get_openapi(self, request: ApiRequest) -> Opened:
        """The API described."""
        return Encoded(200, [("Content-Type", "application/json")], document())

    # From items to the answer

    def _answer(
        self,
        request: ApiRequest,
        served: ServedModel,
        signature: Signature,
        items: Sequence[Item],
        options: Options,
        encode: Callable[[Answer], Encoded],
    ) -> None:
        def respond(answer: Answer) -> None:
            if sum(len(row) for row in answer.packed if row is not None) > self.limits.pool_encode_bytes:
                request.wait_for(self.defer_to_pool(partial(encode, answer)), request.respond)
            else:
                request.respond(encode(answer))

        answer = answer_in_pieces(self.pipeline, served, signature, items, options)
        if isinstance(answer, Deferred):
            request.wait_for(answer, respond)
        else:
            respond(answer)


def servable(request: ApiRequest) -> tensorflow_serving_models.Route:
    """What a request under /v1/ is about. Raises Problem 400."""
    method = "GET" if request.method == b"HEAD" else request.method.decode("ascii")
    return tensorflow_serving_models.route(method, request.path.decode("latin-1"))


def version_state(state: ModelState) -> VersionState:
    """A version's state in TensorFlow Serving's words."""
    if state.state == "broken":
        return VersionState(state.version, "END", "UNKNOWN", state.fault)
    return VersionState(state.version, "AVAILABLE" if state.state == "ready" else "LOADING")
