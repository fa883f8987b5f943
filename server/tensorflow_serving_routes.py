"""TensorFlow Serving's REST routes. Reactor thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers import tensorflow_serving, tensorflow_serving_models
from rowserve.handlers.http_headers import request_options
from rowserve.handlers.items import Encoded, Question
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving_models import Route, VersionState
from rowserve.handlers.tensorflow_serving_texts import encode_error, servable_not_found, status_not_found
from rowserve.server.routing import ASKING, JSON, Opened, RouteTable

if TYPE_CHECKING:
    from rowserve.graphs.rows import Buffer
    from rowserve.server.models import ModelState, ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api


def unknown(request: ApiRequest) -> Problem:
    """What is wrong with a path under /v1/."""
    return tensorflow_serving_models.not_served_yet(servable(request).verb)


TABLE = RouteTable("tensorflow_serving", fault=encode_error, prefixes=("/v1/",), unknown=unknown)


@TABLE.route(
    "POST",
    "/v1/models/<model>[/versions/<version>]:predict",
    "TensorFlow Serving's predict, in row form (instances) or column form (inputs).",
    takes=(JSON,),
    statuses=ASKING,
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
    "GET", "/v1/models/<model>[/versions/<version>]", "TensorFlow Serving's model status.", statuses=(400, 404)
)
def get_status(api: Api, request: ApiRequest, **_: str) -> Encoded:
    """The states of a model's versions."""
    asked = servable(request)
    states = [state for state in api.models.states() if state.name == asked.model]
    if asked.version is not None:
        states = [state for state in states if state.version == asked.version]
    if not states:
        raise status_not_found(asked.model, asked.version)
    return tensorflow_serving_models.encode_status(version_state(state) for state in states)


@TABLE.route(
    "GET", "/v1/models/<model>[/versions/<version>]/metadata", "TensorFlow Serving's model metadata.",
    statuses=(400, 404),
)
def get_metadata(api: Api, request: ApiRequest, **_: str) -> Opened:
    """Signatures, as TensorFlow Serving tells them."""
    return tensorflow_serving_models.encode_metadata(find_servable(api, request).face)


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
    return tensorflow_serving_models.route(method, request.path.decode("latin-1"))


def version_state(state: ModelState) -> VersionState:
    """A version's state in TensorFlow Serving's words."""
    if state.state == "broken":
        return VersionState(state.version, "END", "UNKNOWN", state.fault)
    return VersionState(state.version, "AVAILABLE" if state.state == "ready" else "LOADING")
