"""The Open Inference Protocol's REST routes: KServe's V2 API as Triton serves it. Reactor thread."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers.items import Encoded
from rowserve.handlers.open_inference import read_infer
from rowserve.handlers.open_inference_models import (
    document,
    index_document,
    model_config,
    model_metadata,
    server_metadata,
    wants_only_ready,
)
from rowserve.handlers.open_inference_request import SIGNATURE_NAME
from rowserve.handlers.open_inference_settings import TRACE, log_settings
from rowserve.handlers.open_inference_statistics import statistics_document
from rowserve.handlers.open_inference_texts import encode_fault, unsupported
from rowserve.handlers.problem import Problem
from rowserve.server import probes
from rowserve.server.body_schemas import INFER, LIST, NOTHING
from rowserve.server.open_inference_catalog import UNSUPPORTED, figures, find, index, ready_versions, serving
from rowserve.server.openapi import own_version
from rowserve.server.routing import ASKING, Opened, Parameter, RouteTable
from rowserve.server.target import fixed_path

if TYPE_CHECKING:
    from rowserve.graphs.rows import Buffer
    from rowserve.server.models import ServedModel
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api

MODEL = "/v2/models/<model>[/versions/<version>]"
REFUSED = re.compile(
    r"/v2/(?:models/[^/]+(?:/versions/[^/]+)?/(?P<generate>generate|generate_stream)"
    r"|(?:models/[^/]+/)?(?P<trace>trace)/setting|(?P<logging>logging)"
    r"|repository(?:/[^/]+)?/models/[^/]+/(?P<load>load|unload)|(?P<memory>system|cuda)sharedmemory(?:/region/[^/]+)?/register)"
)


def unknown(request: ApiRequest, problem: Problem) -> Problem:
    """What is wrong with a request under /v2 that has no route."""
    path = fixed_path(request.path)
    found = REFUSED.fullmatch(path)
    if found is not None and request.method == b"POST":
        return unsupported(UNSUPPORTED[found.lastgroup or ""])
    return problem if problem.status == 405 else Problem(404, f"Not Found: {path[:200]}")


TABLE = RouteTable("open_inference", fault=encode_fault, prefixes=("/v2",), unknown=unknown)


@TABLE.route("GET", "/v2[/]", "Open Inference: the server, and the extensions of the protocol that it has.")
def get_server(api: Api, request: ApiRequest) -> Opened:
    """The server's metadata."""
    return document(server_metadata(own_version()))


@TABLE.route("GET", "/v2/health/live", "Open Inference: whether the process does its work.", states=(503,))
def get_live(api: Api, request: ApiRequest) -> Opened:
    """As /livez."""
    live = not api.health()
    return document({"live": live}, 200 if live else 503)


@TABLE.route("GET", "/v2/health/ready", "Open Inference: whether all models are loaded and warmed.", states=(503,))
def get_ready(api: Api, request: ApiRequest) -> Opened:
    """As /readyz."""
    status = probes.readyz(api.models, api.draining).status
    return document({"ready": status == 200}, status)


@TABLE.route("GET", "/v2/models", "Open Inference: the names of the models.")
def get_models(api: Api, request: ApiRequest) -> Opened:
    """All names."""
    return document({"models": sorted({entry.name for entry in index(api.models)})})


@TABLE.route(
    "GET",
    MODEL,
    "Open Inference: a model's versions, inputs and outputs.",
    query=(Parameter(SIGNATURE_NAME, "The signature, where it is not to be the default one."),),
    statuses=(400, 404, 503),
)
def get_model(api: Api, request: ApiRequest, model: str, version: str = "") -> Opened:
    """The model's metadata."""
    face = find(api.models, model, version).face
    name = request.query.get(SIGNATURE_NAME, [""])[-1]
    return document(model_metadata(face, ready_versions(api.models, model), name))


@TABLE.route("GET", f"{MODEL}/ready", "Open Inference: whether a model answers.", statuses=(404,), states=(503,))
def get_model_ready(api: Api, request: ApiRequest, model: str, version: str = "") -> Opened:
    """Whether it is loaded."""
    try:
        find(api.models, model, version)
    except Problem as problem:
        if problem.status != 503:
            raise
        return document({"name": model, "ready": False}, 503)
    return document({"name": model, "ready": True})


@TABLE.route("GET", f"{MODEL}/config", "Open Inference: a model as Triton's ModelConfig.", statuses=(400, 404, 503))
def get_config(api: Api, request: ApiRequest, model: str, version: str = "") -> Opened:
    """The model's configuration."""
    served = find(api.models, model, version)
    return document(model_config(served.face, serving(served)))


@TABLE.route("GET", "/v2/models/stats", "Open Inference: what each model has done.")
def get_all_statistics(api: Api, request: ApiRequest) -> Opened:
    """All statistics."""
    return document(statistics_document(figures(api.models, api.metrics)))


@TABLE.route("GET", f"{MODEL}/stats", "Open Inference: what a model has done, in rows.", statuses=(404, 503))
def get_statistics(api: Api, request: ApiRequest, model: str, version: str = "") -> Opened:
    """A model's statistics."""
    return document(statistics_document(figures(api.models, api.metrics, model, version)))


@TABLE.route(
    "POST",
    f"{MODEL}/infer",
    "Open Inference: tensors in, tensors out, as JSON or as bytes behind it.",
    takes=INFER,
    statuses=(*ASKING, 422, 501),
)
def post_infer(api: Api, request: ApiRequest, model: str, version: str = "") -> Opened:
    """Inference."""
    served: ServedModel = find(api.models, model, version)
    return api.ask(request, served, partial(read_infer, served.face, request.headers))


@TABLE.route(
    "POST",
    "/v2/repository[/<repository>]/index",
    "Open Inference: every version of every model, and its state.",
    gives=LIST,
    statuses=(400,),
)
def post_index(api: Api, request: ApiRequest, repository: str = "") -> Opened:
    """The index."""

    def body(asked: Buffer) -> None:
        answer: Encoded = document(index_document(index(api.models), wants_only_ready(asked)))
        request.respond(answer)

    return api.collect(body)


@TABLE.route("GET", "/v2/trace/setting", "Open Inference: how Triton's tracing stands: off.")
def get_trace(api: Api, request: ApiRequest) -> Opened:
    """What its clients may read of it."""
    return document(TRACE)


@TABLE.route("GET", "/v2/models/<model>/trace/setting", "Open Inference: the same of one model.", statuses=(404, 503))
def get_model_trace(api: Api, request: ApiRequest, model: str) -> Opened:
    """No model has its own."""
    find(api.models, model)
    return document(TRACE)


@TABLE.route("GET", "/v2/logging", "Open Inference: what goes into the log.")
def get_logging(api: Api, request: ApiRequest) -> Opened:
    """As far as Triton has words for it."""
    return document(log_settings())


def no_regions(api: Api, request: ApiRequest, region: str = "") -> Opened:
    """There are none."""
    return document([])


def unregistered(api: Api, request: ApiRequest, region: str = "") -> Opened:
    """There is none to forget."""
    return Encoded(200, [], b"")


for memory in ("system", "cuda"):
    regions = f"/v2/{memory}sharedmemory[/region/<region>]"
    told = f"Open Inference: the regions of {memory} shared memory: none."
    TABLE.route("GET", f"{regions}/status", told, gives=LIST)(no_regions)
    TABLE.route("POST", f"{regions}/unregister", "Open Inference: nothing to do.", gives=NOTHING)(unregistered)
