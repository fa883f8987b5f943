"""GraphPipe's routes, and what `/` is to GraphPipe, to KServe and to the tutorials' upload. Reactor thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers import tutorial_upload
from rowserve.handlers.graphpipe import encode_fault, read_request
from rowserve.handlers.graphpipe_metadata import encode_json, json_object, metadata_json
from rowserve.handlers.items import Encoded, plain_names
from rowserve.handlers.problem import Problem
from rowserve.server.bodies import Parts
from rowserve.server.body_schemas import PLAIN, TENSORS, TENSORS_OR_FILES, TENSORS_OR_LIST
from rowserve.server.faults import hinted
from rowserve.server.routing import ANY, ASKING, Opened, RouteTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rowserve.handlers.multipart import Part
    from rowserve.server.models import ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api

TABLE = RouteTable("graphpipe", fault=encode_fault, prefixes=("/graphpipe/", "/control/"))


@TABLE.route(
    "POST",
    "/graphpipe/<model>[/versions/<version>]",
    "GraphPipe: tensors in, tensors out; or the model's metadata, as the request asks.",
    gives=TENSORS,
    takes=TENSORS,
    statuses=ASKING,
)
def post_graphpipe(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """An inference, or the metadata."""
    return ask(api, request, api.find(model, version))


@TABLE.route(
    "GET", "/graphpipe/<model>[/versions/<version>]", "GraphPipe's metadata as JSON.", statuses=(400, 404, 503)
)
def get_graphpipe(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """The metadata."""
    return encode_json(metadata_json(api.find(model, version).face))


@TABLE.route(
    "POST",
    "/",
    "GraphPipe with the only model; as a form, pictures in and a list of [label, score] out.",
    gives=TENSORS_OR_LIST,
    takes=TENSORS_OR_FILES,
    statuses=(*ASKING, 422),
    other_fault=tutorial_upload.encode_fault,
)
def post_root(api: Api, request: ApiRequest) -> Opened:
    """GraphPipe names no Content-Type; the tutorials' upload is a form."""
    content_type = request.header("content-type")
    if not content_type.lower().startswith("multipart/"):
        return ask(api, request, only_model(api, "/graphpipe/NAME"))
    request.problem_form = hinted(tutorial_upload.encode_fault)
    served = only_model(api, "/images/NAME")
    tutorial_upload.upload_terms(served.face)

    def form(parts: Sequence[Part]) -> None:
        api.answer(request, served, tutorial_upload.read_upload(served.face, request.headers, parts))

    return Parts(form, content_type, api.limits)


@TABLE.route("GET", "/", "Whether the server is alive, and GraphPipe's metadata of the only model.")
def get_root(api: Api, request: ApiRequest) -> Opened:
    """KServe's clients read `status`, GraphPipe's the rest."""
    return encode_json({**told_of_root(api), "status": "alive"})


@TABLE.route(ANY, "/control/is_ready", "Whether all models are loaded: ok.", gives=PLAIN, statuses=(503,))
def is_ready(api: Api, request: ApiRequest) -> Opened:
    """As /readyz."""
    if api.draining or not api.models.ready:
        raise Problem(503, "not ready; /readyz says why")
    return plain("ok")


@TABLE.route(ANY, "/control/is_alive", "Whether the process does its work: ok.", gives=PLAIN, statuses=(503,))
def is_alive(api: Api, request: ApiRequest) -> Opened:
    """As /livez."""
    fault = api.health()
    if fault:
        raise Problem(503, fault)
    return plain("ok")


@TABLE.route(ANY, "/control/client_count", "How many connections this address has open.", gives=PLAIN)
def client_count(api: Api, request: ApiRequest) -> Opened:
    """The one that asks is among them."""
    return plain(str(len(request.channel.site.channels)))


@TABLE.route(ANY, "/control/shutdown", "Refused.", gives=None, statuses=(403,))
def shutdown(api: Api, request: ApiRequest) -> Opened:
    """Whoever reaches the port may ask, and none of them may stop it."""
    raise Problem(403, "a client cannot stop this server; send its process SIGTERM")


def ask(api: Api, request: ApiRequest, served: ServedModel) -> Opened:
    """The body says what is asked of the model."""
    return api.ask(request, served, partial(read_request, served.face, request.headers))


def names(api: Api) -> list[str]:
    """Of all models, whatever their states."""
    return list(dict.fromkeys(state.name for state in api.models.states()))


def only_model(api: Api, elsewhere: str) -> ServedModel:
    """The model, where all versions that are served are one model's. Raises Problem 400 naming where else to go."""
    served = names(api)
    if len(served) != 1:
        raise Problem(400, f"/ is for a server of one model; here, POST {elsewhere}, for: {plain_names(served)}")
    return api.models.find(served[0])


def told_of_root(api: Api) -> dict[str, Any]:
    """GraphPipe's metadata, as far as there is one model that answers."""
    served = names(api)
    if len(served) != 1:
        return json_object("", "", f"models at /graphpipe/NAME: {plain_names(served)}")
    try:
        return metadata_json(api.models.find(served[0]).face)
    except Problem as problem:  # it loads, say: the server is alive all the same
        return json_object(served[0], "", problem.detail)


def plain(text: str) -> Encoded:
    """A line of text."""
    return Encoded(200, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode())
