"""KServe's V1 routes, and the answers that serve KServe's and TensorFlow Serving's clients at once. Reactor thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import orjson

from rowserve.handlers import kserve
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_serving_models import document
from rowserve.handlers.tensorflow_serving_texts import encode_error
from rowserve.server import tensorflow_serving_routes
from rowserve.server.body_schemas import INSTANCES, OBJECT_OR_EVENT
from rowserve.server.routing import ASKING, Opened, RouteTable

if TYPE_CHECKING:
    from rowserve.server.models import ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api

TABLE = RouteTable("kserve", fault=kserve.encode_error, prefixes=("/v1/",))
MERGED = RouteTable("merged", fault=encode_error)


@TABLE.route(
    "POST",
    "/v1/models/<model>:predict",
    "KServe's V1 predict: a list of instances (or inputs) in, their predictions out; CloudEvents in, CloudEvents out.",
    gives=OBJECT_OR_EVENT,
    takes=INSTANCES,
    statuses=ASKING,
)
def post_predict(api: Api, request: ApiRequest, model: str) -> Opened:
    """Instances in, predictions out."""
    served = find(api, model)
    return api.ask(request, served, partial(kserve.read_predict, served.face, request.headers))


@TABLE.route(
    "POST", "/v1/models/<model>:explain", "KServe's V1 explain: not served.", gives=None, statuses=(404, 501, 503)
)
def post_explain(api: Api, request: ApiRequest, model: str) -> Opened:
    """The word for it."""
    find(api, model)
    raise Problem(501, f"Model with name {model} has no explainer.")


@TABLE.route("GET", "/v1/models", "The names of the models.")
def get_models(api: Api, request: ApiRequest) -> Opened:
    """All names, whatever their states."""
    return kserve.encode_json({"models": list(dict.fromkeys(state.name for state in api.models.states()))})


@TABLE.route("GET", "/v1/models/<model>", "Whether KServe's clients may ask a model.", statuses=(404, 503))
def get_model(api: Api, request: ApiRequest, model: str) -> Opened:
    """Ready, or 503."""
    find(api, model)
    return kserve.encode_json({"name": model, "ready": True})


@TABLE.route("GET", "/", "Whether the server is alive.")
def get_alive(api: Api, request: ApiRequest) -> Opened:
    """It is, since it answers."""
    return kserve.encode_json({"status": "alive"})


def find(api: Api, model: str) -> ServedModel:
    """The model of a path. Raises Problem 404 or 503 in KServe's words."""
    try:
        return api.models.find(model)
    except Problem as problem:
        raise kserve.model_fault(model, problem) from None


MERGED.route("GET", "/v1/models", "The names of the models.")(get_models)


@MERGED.route(
    "GET",
    "/v1/models/<model>",
    "A model's state: TensorFlow Serving's keys, and KServe's (name, ready).",
    statuses=(400, 404),
)
def get_merged_model(api: Api, request: ApiRequest, model: str) -> Opened:
    """TensorFlow Serving's status with KServe's keys; of a model that loads, `ready` is false."""
    status = tensorflow_serving_routes.get_status(api, request)
    ready = any(state.state == "ready" for state in api.models.versions(model))
    return document({**orjson.loads(status.body), "name": model, "ready": ready})
