"""Which protocol answers where several want the same path: the order of their tables, by profile. Pure values."""

from __future__ import annotations

from functools import cache

from rowserve.server import native_routes, tensorflow_serving_routes
from rowserve.server.address import NATIVE
from rowserve.server.routing import Router, RouteTable

ALWAYS = (native_routes.TABLE, native_routes.PROBES)
PROFILES: dict[str, tuple[RouteTable, ...]] = {
    NATIVE: (*ALWAYS, tensorflow_serving_routes.TABLE),
    "tensorflow-serving": (*ALWAYS, tensorflow_serving_routes.TABLE),
    "kserve": (*ALWAYS, tensorflow_serving_routes.TABLE),
    "torchserve": (*ALWAYS, tensorflow_serving_routes.TABLE),
}


@cache
def router(profile: str) -> Router:
    """The routes of a profile."""
    return Router(PROFILES[profile])
