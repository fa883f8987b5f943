"""TensorFlow Serving's REST routes. Reactor thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers import tensorflow_serving, tensorflow_serving_examples, tensorflow_serving_models
from rowserve.handlers.http_headers import request_options
from rowserve.handlers.items import Encoded, Question
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving_models import Route, VersionState
from rowserve.handlers.tensorflow_serving_texts import encode_error, servable_not_found, status_not_found
from rowserve.server.body_schemas import EXAMPLES, PLAIN, PREDICT
from rowserve.server.metrics import CONTENT_TYPE as METRICS_TYPE
from rowserve.server.routing import ASKING, Opened, RouteTable
from rowserve.server.target import fixed_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.graphs.rows import Buffer
    from rowserve.server.models import ModelState, ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api


USED = (b"GET", b"HEAD", b"POST")


def preflight(request: ApiRequest) -> Encoded | None:
    """OPTIONS of a page, whatever the path."""
    return tensorflow_serving_models.preflight(request.header("origin"))


def unknown(request: ApiRequest, problem: Problem) -> Opened:
    """A path under /v1/ in a spelling that only TensorFlow Serving takes (case means nothing there, and a name may hold
    %2F), or what is wrong with it. Raises Problem 400 or 404, and 405 for a method that TensorFlow Serving has no
    use for."""
    if problem.status == 405 and request.method not in USED:
        raise problem
    request.route, answer = BY_VERB[servable(request).verb]
    return answer(request.api, request)


TABLE = RouteTable("tensorflow_serving", fault=encode_error, prefixes=("/v1/",), unknown=unknown, preflight=preflight)


@TABLE.route(
    "POST",
    "/v1/models/<model>[/versions/<version>]:predict",
    "TensorFlow Serving's predict, in row form (instances) or column form (inputs).",
    takes=PREDICT,
    statuses=(*ASKING, 501),
)
def post_predict(api: Api, request: ApiRequest, **_: str) -> Opened:
    """Predict, in row or column form."""
    served = find_servable(api, request)
    options = request_options(request.headers, tensorflow_serving.PROTOCOL)

    def read(body: Buffer) -> Question[Encoded]:
        asked = tensorflow_serving.read_predict(served.face, body)
        return Question(asked.signature, asked.items, options, partial(tensorflow_serving.encode_predict, asked))

    return api.ask(request, served, read)


@TABLE.route(
    "POST",
    "/v1/models/<model>[/versions/<version>]:classify",
    "TensorFlow Serving's classify: examples in, [label, score] of each class out.",
    takes=EXAMPLES,
    statuses=ASKING,
)
def post_classify(api: Api, request: ApiRequest, **_: str) -> Opened:
    """Classify."""
    return ask_examples(api, request, "classify")


@TABLE.route(
    "POST",
    "/v1/models/<model>[/versions/<version>]:regress",
    "TensorFlow Serving's regress: examples in, a number for each out.",
    takes=EXAMPLES,
    statuses=ASKING,
)
def post_regress(api: Api, request: ApiRequest, **_: str) -> Opened:
    """Regress."""
    return ask_examples(api, request, "regress")


def ask_examples(api: Api, request: ApiRequest, verb: str) -> Opened:
    """Classify or regress."""
    served = find_servable(api, request)
    options = request_options(request.headers, tensorflow_serving.PROTOCOL)

    def read(body: Buffer) -> Question[Encoded]:
        asked = tensorflow_serving_examples.read_examples(served.face, verb, body, api.limits.body_bytes)
        return Question(
            asked.signature, asked.items, options, partial(tensorflow_serving_examples.encode_results, asked)
        )

    return api.ask(request, served, read)


@TABLE.route(
    "GET", "/v1/models/<model>[/versions/<version>]", "TensorFlow Serving's model status.", statuses=(400, 404)
)
def get_status(api: Api, request: ApiRequest, **_: str) -> Encoded:
    """The states of a model's versions."""
    asked = servable(request)
    states = api.models.asked(asked.model, asked.version)
    if not states:
        raise status_not_found(asked.model, asked.version)
    return tensorflow_serving_models.encode_status(version_state(state) for state in states)


@TABLE.route(
    "GET",
    "/v1/models/<model>[/versions/<version>]/metadata",
    "TensorFlow Serving's model metadata.",
    statuses=(400, 404),
)
def get_metadata(api: Api, request: ApiRequest, **_: str) -> Opened:
    """Signatures, as TensorFlow Serving tells them."""
    return tensorflow_serving_models.encode_metadata(find_servable(api, request).face)


@TABLE.route(
    "GET",
    "/monitoring/prometheus/metrics",
    "The figures of /metrics, where TensorFlow Serving has its own.",
    gives=PLAIN,
)
def get_metrics(api: Api, request: ApiRequest) -> Opened:
    """Prometheus' text form."""
    return Encoded(200, [("Content-Type", METRICS_TYPE)], api.metrics.exposition())


BY_VERB: dict[str, tuple[str, Callable[[Api, ApiRequest], Opened]]] = {
    "predict": ("/v1/models/{model}:predict", post_predict),
    "classify": ("/v1/models/{model}:classify", post_classify),
    "regress": ("/v1/models/{model}:regress", post_regress),
    "status": ("/v1/models/{model}", get_status),
    "metadata": ("/v1/models/{model}/metadata", get_metadata),
}


def find_servable(api: Api, request: ApiRequest) -> ServedModel:
    """The model of a path. Raises Problem 400, 404 or 503."""
    asked = servable(request)
    try:
        return api.models.find(asked.model, asked.version)
    except Problem as problem:
        if problem.status != 404:
            raise
        raise servable_not_found(asked.model, asked.version) from None


def servable(request: ApiRequest) -> Route:
    """What a request under /v1/ is about. Raises Problem 400."""
    method = "GET" if request.method == b"HEAD" else request.method.decode("ascii")
    return tensorflow_serving_models.route(method, fixed_path(request.path))


def version_state(state: ModelState) -> VersionState:
    """A version's state in TensorFlow Serving's words."""
    if state.state == "broken":
        return VersionState(state.version, "END", "UNKNOWN", state.fault)
    return VersionState(state.version, "AVAILABLE" if state.state == "ready" else "LOADING")
