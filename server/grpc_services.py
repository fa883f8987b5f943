"""All gRPC services of one server, and the lane they are served on. Reactor thread.

Needs the extra `grpc`: whoever imports this hears so by ImportError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowserve.server.grpc_health import Health
from rowserve.server.grpc_lane import GrpcLane
from rowserve.server.open_inference_grpc import OpenInference
from rowserve.server.tensorflow_serving_grpc import TensorFlowServing

if TYPE_CHECKING:
    from rowserve.server.one_core import OneCore
    from rowserve.server.site import Api


def grpc_lane(api: Api, one_core: OneCore, profile: str) -> GrpcLane:
    """The lane, not started yet; it shares pipeline, models, metrics and limits with the HTTP routes."""
    room = api.limits.body_bytes
    open_inference = OpenInference(api.models, api.metrics, profile).service()
    services = [*TensorFlowServing(api.models, room).services(), open_inference]
    services.append(Health(api.models, [service.name for service in services]).service())
    return GrpcLane(services, api.pipeline, api.metrics, room, api.clock, one_core)
