"""TorchServe's routes: predictions, and what its management API tells. Reactor thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers import torchserve
from rowserve.handlers.problem import Problem
from rowserve.handlers.torchserve_models import ModelAccount, encode_list, encode_models, encode_ping
from rowserve.handlers.torchserve_texts import bad_request, by_files, encode_error, model_not_found, version_not_found
from rowserve.server.bodies import Parts
from rowserve.server.body_schemas import ANYTHING, FORM, LIST, PREDICTION
from rowserve.server.routing import ANY, ASKING, Opened, Parameter, RouteTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowserve.handlers.multipart import Part
    from rowserve.server.models import ModelState, ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api

MODEL_NAME = Parameter("model_name", "The model; may be left out where only one is served.")
LIMIT = Parameter("limit", "How many models to list, 100 at most.")
NEXT_PAGE = Parameter("next_page_token", "The nextPageToken of the page before.")
READY = {"ready": True, "loading": None, "broken": False}
PREFIXES = ("/predictions", "/explanations", "/invocations", "/ping", "/models")
TABLE = RouteTable("torchserve", fault=encode_error, prefixes=PREFIXES)


@TABLE.route("GET", "/ping", "TorchServe's health check.", states=(500,))
def get_ping(api: Api, request: ApiRequest) -> Opened:
    """Healthy once all models are loaded."""
    return encode_ping(api.models.ready and not api.draining and not api.health())


@TABLE.route(
    ANY,
    "/predictions/<model>[/<version>]",
    "TorchServe's prediction: a picture, a tensor's bytes, a text or JSON in.",
    gives=ANYTHING,
    takes=PREDICTION,
    statuses=(*ASKING, 422),
)
def predictions(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """One instance in and its answer out, or instances in and a list out."""
    served = find(api, model, version)
    read = partial(torchserve.read_prediction, served.face, request.headers)
    content_type = request.header("content-type")
    if not content_type.lower().startswith(FORM):
        return api.ask(request, served, read)

    def form(parts: Sequence[Part]) -> None:
        part = torchserve.form_part(parts)
        api.read(request, served, partial(read, content_type=part.content_type), part.data)

    return Parts(form, content_type, api.limits)


@TABLE.route(
    ANY,
    "/models/<model>/invoke",
    "TorchServe's prediction.",
    gives=ANYTHING,
    takes=PREDICTION,
    statuses=(*ASKING, 422),
)
def invoke(api: Api, request: ApiRequest, model: str) -> Opened:
    """A prediction."""
    return predictions(api, request, model)


@TABLE.route(
    ANY,
    "/invocations",
    "TorchServe's prediction, as SageMaker calls it.",
    gives=ANYTHING,
    takes=PREDICTION,
    query=(MODEL_NAME,),
    statuses=(*ASKING, 422),
)
def invocations(api: Api, request: ApiRequest) -> Opened:
    """A prediction of the model that the query names, or of the only one."""
    named = request.query.get("model_name", [""])[0]
    names = {state.name for state in api.models.states()}
    if not named and len(names) != 1:
        raise bad_request("Parameter model_name is required.")
    return predictions(api, request, named or names.pop())


@TABLE.route(
    ANY, "/explanations/<model>[/<version>]", "TorchServe's explanations: not served.", gives=None, statuses=(404, 501)
)
def explanations(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """The word for it."""
    find(api, model, version)
    raise Problem(501, f"Model {model} has no explanations.")


@TABLE.route("GET", "/models", "TorchServe's list of models.", query=(LIMIT, NEXT_PAGE))
def get_models(api: Api, request: ApiRequest) -> Opened:
    """The names, a page at a time."""
    return encode_list(list(dict.fromkeys(state.name for state in api.models.states())), request.query)


@TABLE.route("GET", "/models/<model>[/<version>]", "TorchServe's description of a model.", gives=LIST, statuses=(404,))
def get_model(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """The version that answers, or the one that is named."""
    versions(api, model)
    if version is None or whole(version) == "0":
        return encode_models([account(state) for state in api.models.asked(model, 0)])
    chosen = [state for state in api.models.asked(model) if str(state.version) == whole(version)]
    if not chosen:
        raise version_not_found(model, version)
    return encode_models([account(state) for state in chosen])


@TABLE.route(
    "GET",
    "/models/<model>/all",
    "TorchServe's description of all versions of a model.",
    gives=LIST,
    statuses=(404,),
)
def get_all(api: Api, request: ApiRequest, model: str) -> Opened:
    """Every version, the highest first."""
    return encode_models([account(state) for state in versions(api, model)])


@TABLE.route("POST", "/models", "TorchServe's registering of a model: not served.", gives=None, statuses=(405,))
def post_models(api: Api, request: ApiRequest) -> Opened:
    """The word for it."""
    raise by_files("Registering a model")


@TABLE.route("PUT", "/models/<model>[/<version>]", "TorchServe's scaling: not served.", gives=None, statuses=(405,))
def put_model(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """The word for it."""
    raise by_files("Scaling a model")


@TABLE.route(
    "PUT",
    "/models/<model>/<version>/set-default",
    "TorchServe's default version: not served.",
    gives=None,
    statuses=(405,),
)
def put_default(api: Api, request: ApiRequest, model: str, version: str) -> Opened:
    """The word for it."""
    raise by_files("Setting a default version")


@TABLE.route(
    "DELETE", "/models/<model>[/<version>]", "TorchServe's unregistering: not served.", gives=None, statuses=(405,)
)
def delete_model(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """The word for it."""
    raise by_files("Unregistering a model")


def whole(version: str) -> str:
    """A version as a whole number: TorchServe's first ones are called 1.0."""
    return version.removesuffix(".0")


def versions(api: Api, model: str) -> list[ModelState]:
    """A model's versions, the highest first. Raises Problem 404 in TorchServe's words."""
    try:
        return api.models.versions(model)
    except Problem:
        raise model_not_found(model) from None


def find(api: Api, model: str, version: str | None) -> ServedModel:
    """The model of a path. Raises Problem 404 in TorchServe's words, or 503."""
    try:
        return api.find(model, None if version is None else whole(version))
    except Problem as problem:
        if problem.status != 404:
            raise
        versions(api, model)
        raise version_not_found(model, version or "") from None


def account(state: ModelState) -> ModelAccount:
    """What is told of a version."""
    ready = READY.get(state.state, False)
    if state.model is None:
        return ModelAccount(state.name, state.version, ready)
    batcher = state.model.batcher
    limits, waiting = batcher.limits, batcher.rows
    wait_ms = round(1000 * limits.max_wait)
    return ModelAccount(
        state.name,
        state.version,
        ready,
        limits.max_rows,
        wait_ms,
        waiting,
        max(limits.queue_rows - waiting, 0),
        state.model.face.engine,
    )
