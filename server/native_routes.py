"""rowserve's own routes: pictures, lines of rows, probes, metrics, the description. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowserve.handlers import images
from rowserve.handlers.http_headers import request_options
from rowserve.handlers.items import Answer, Encoded, Question
from rowserve.handlers.problem_json import encode_problem
from rowserve.server import probes
from rowserve.server.bodies import Parts
from rowserve.server.body_schemas import ANSWERS, PICTURES, PLAIN, ROWS
from rowserve.server.metrics import CONTENT_TYPE
from rowserve.server.openapi import described
from rowserve.server.routing import ASKING, Opened, Parameter, RouteTable
from rowserve.server.streaming import RowStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowserve.graphs.rows import Buffer
    from rowserve.handlers.multipart import Part
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api

WHOLE = {"type": "integer", "minimum": 0, "maximum": 100_000}
TOP = Parameter("top", "How many of the best classes a row gets, where the model has labels.", WHOLE)
OUTPUTS = Parameter("outputs", "Names of outputs, separated by commas, to be given as raw arrays.")
SIGNATURE = Parameter("signature", "The signature; serving_default, or the only one, where it is not given.")
PRIORITY = Parameter("priority", "bulk fills what interactive requests leave.", {"enum": ["interactive", "bulk", ""]})
SYNC = Parameter("sync", "1: the last line comes after all rows are on disk.", {"enum": ["0", "1", ""]})
STRICT = Parameter("strict", "1: a model that did not load makes the server unready.")

TABLE = RouteTable("native", fault=encode_problem)


@TABLE.route(
    "POST",
    "/images/<model>[/versions/<version>]",
    "Pictures in, one row each: any number of file parts, or one picture as the body.",
    takes=PICTURES,
    query=(TOP, OUTPUTS, SIGNATURE),
    statuses=(*ASKING, 422),
    states=(413, 422, 500, 503, 504),  # the first row's, where no row was answered
)
def post_images(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """Pictures in, one row each."""
    served = api.find(model, version)
    options = request_options(request.headers, images.PROTOCOL)
    images.read_query(served.face, request.query)
    content_type = request.header("content-type")

    def answer(asked: images.ImagesRequest) -> None:
        def encode(answer: Answer) -> Encoded:
            return images.encode(served.face, asked.names, answer, asked.wants)

        api.answer(request, served, Question(asked.signature, asked.items, options, encode))

    def form(parts: Sequence[Part]) -> None:
        answer(images.read_form(served.face, request.query, parts))

    def body(picture: Buffer) -> None:
        answer(images.read_body(served.face, request.query, picture))

    if images.is_form(content_type):
        return Parts(form, content_type, api.limits)
    return api.collect(body)


@TABLE.route(
    "POST",
    "/rows/<model>[/versions/<version>]",
    "One JSON row a line in, one JSON answer a line out, streamed both ways: read while you send.",
    gives=ANSWERS,
    takes=ROWS,
    query=(TOP, OUTPUTS, SIGNATURE, PRIORITY, SYNC),
    statuses=ASKING,
)
def post_rows(api: Api, request: ApiRequest, model: str, version: str | None = None) -> Opened:
    """Lines in, lines out, streamed."""
    return RowStream(api, request, api.find(model, version))


@TABLE.route("GET", "/livez", "Whether the process does its work.", states=(503,))
def get_livez(api: Api, request: ApiRequest) -> Opened:
    """Whether the process does its work."""
    return probes.livez(api.health())


@TABLE.route("GET", "/readyz", "Whether all models are loaded and warmed.", query=(STRICT,), states=(503,))
def get_readyz(api: Api, request: ApiRequest) -> Opened:
    """Whether requests should be sent here, and the state of each model."""
    strict = request.query.get("strict", ["0"]) != ["0"]  # a probe that writes it otherwise is not to be calmed
    return probes.readyz(api.models, api.draining, strict)


@TABLE.route("GET", "/metrics", "Prometheus' figures.", gives=PLAIN)
def get_metrics(api: Api, request: ApiRequest) -> Opened:
    """Prometheus' text form."""
    return Encoded(200, [("Content-Type", CONTENT_TYPE)], api.metrics.exposition())


@TABLE.route("GET", "/openapi.json", "This description.", statuses=(304,))
def get_openapi(api: Api, request: ApiRequest) -> Opened:
    """The API described."""
    return described(request.router.routes, request.headers)
