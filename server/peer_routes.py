"""What only a profile answers: another server's name at /v2, its metrics where its dashboards look. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowserve.handlers.items import Encoded
from rowserve.handlers.open_inference_models import document, server_metadata
from rowserve.handlers.open_inference_texts import encode_fault
from rowserve.server.body_schemas import PLAIN
from rowserve.server.metrics import CONTENT_TYPE
from rowserve.server.openapi import own_version
from rowserve.server.peer_metrics import exposition
from rowserve.server.routing import Opened, RouteTable

if TYPE_CHECKING:
    from rowserve.server.request import ApiRequest
    from rowserve.server.site import Api


def named(table: RouteTable, name: str) -> None:
    """/v2 tells that name, which the server's own clients and health checks look for."""

    @table.route("GET", "/v2[/]", f"Open Inference: the server, by {name}'s name.")
    def get_server(api: Api, request: ApiRequest) -> Opened:
        return document(server_metadata(own_version(), name))


def measured(table: RouteTable, path: str) -> None:
    """The figures at that path, under the names of the table's profile and under ours."""

    @table.route("GET", path, f"Prometheus' figures, under {table.name}'s names too.", gives=PLAIN)
    def get_metrics(api: Api, request: ApiRequest) -> Opened:
        body = exposition(table.name, api.models, api.metrics)
        return Encoded(200, [("Content-Type", CONTENT_TYPE)], body)


TRITON = RouteTable("triton", fault=encode_fault)
named(TRITON, "triton")
measured(TRITON, "/metrics")
MLSERVER = RouteTable("mlserver", fault=encode_fault)
named(MLSERVER, "mlserver")
TENSORFLOW_SERVING = RouteTable("tensorflow-serving", fault=encode_fault)
measured(TENSORFLOW_SERVING, "/monitoring/prometheus/metrics")
TORCHSERVE = RouteTable("torchserve", fault=encode_fault)
measured(TORCHSERVE, "/metrics")
