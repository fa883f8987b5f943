"""grpc.health.v1: whether the server, one of its services or a model answers. Lane thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rowserve.graphs.proto_tables import ProtoTable, message_classes
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import LENGTH, WireFault, fields, text
from rowserve.server.grpc_service import Metadata, Service

if TYPE_CHECKING:
    from rowserve.server.models import Models

NAME = "grpc.health.v1.Health"
HEALTH = ProtoTable(
    "grpc.health.v1",
    {"HealthCheckRequest": "string service = 1", "HealthCheckResponse": "ServingStatus status = 1"},
    {"HealthCheckResponse.ServingStatus": "UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3"},
)
HealthCheckResponse = message_classes(HEALTH)["grpc.health.v1.HealthCheckResponse"]
SERVING = HealthCheckResponse(status="SERVING").SerializeToString()
NOT_SERVING = HealthCheckResponse(status="NOT_SERVING").SerializeToString()


class Health:
    """The service, beside those named `services`. "" is the server: it serves once every model has loaded."""

    def __init__(self, models: Models, services: Sequence[str]) -> None:
        self._models = models
        self._services = {NAME, *services}

    def service(self) -> Service:
        """What the lane serves."""
        return Service(NAME, {"Check": self.check, "Watch": self.watch})

    def check(self, message: bytes, _: Metadata) -> bytes:
        """The health of "", a service, or a model."""
        try:
            names = [text(data) for at, kind, _, data in fields(memoryview(message)) if at == 1 and kind == LENGTH]
        except WireFault as fault:
            raise Problem(400, f"the request cannot be read as a HealthCheckRequest: {fault}") from None
        name = names[-1] if names else ""
        if not name or name in self._services:
            return SERVING if self._models.ready else NOT_SERVING
        try:
            self._models.find(name)
        except Problem as problem:
            if problem.status == 404:
                raise Problem(404, f"there is no service and no model {name!r}") from None
            return NOT_SERVING
        return SERVING

    def watch(self, _message: bytes, _: Metadata) -> bytes:
        """Always refused."""
        raise Problem(501, "Watch is not served; ask Check again")
