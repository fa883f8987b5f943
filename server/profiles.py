"""Which protocol answers where several want the same path: the order of their tables, by profile. Pure values."""

from __future__ import annotations

from functools import cache

from rowserve.handlers.open_inference_texts import encode_mlserver_fault
from rowserve.server import (
    graphpipe_routes,
    kserve_routes,
    native_routes,
    open_inference_routes,
    peer_routes,
    tensorflow_serving_routes,
    torchserve_routes,
)
from rowserve.server.address import NATIVE
from rowserve.server.routing import Router, RouteTable

ALWAYS = (native_routes.TABLE, open_inference_routes.TABLE)
GRAPHPIPE = graphpipe_routes.TABLE  # its GET / has KServe's keys too
KSERVE = kserve_routes.TABLE
TENSORFLOW_SERVING = tensorflow_serving_routes.TABLE
TORCHSERVE = torchserve_routes.TABLE
PROFILES: dict[str, tuple[RouteTable, ...]] = {
    NATIVE: (*ALWAYS, kserve_routes.MERGED, GRAPHPIPE, TENSORFLOW_SERVING, KSERVE, TORCHSERVE),
    # Without KServe's: what TensorFlow Serving does not know under /v1/ is malformed.
    "tensorflow-serving": (peer_routes.TENSORFLOW_SERVING, *ALWAYS, TENSORFLOW_SERVING, GRAPHPIPE, TORCHSERVE),
    "kserve": (*ALWAYS, KSERVE, TENSORFLOW_SERVING, GRAPHPIPE, TORCHSERVE),
    "torchserve": (peer_routes.TORCHSERVE, *ALWAYS, TORCHSERVE, GRAPHPIPE, KSERVE, TENSORFLOW_SERVING),
}
# As native, but for the server's name; for triton its metrics, for mlserver its words.
PROFILES["triton"] = (peer_routes.TRITON, *PROFILES[NATIVE])
MLSERVER = open_inference_routes.TABLE.with_fault(encode_mlserver_fault)
PROFILES["mlserver"] = (peer_routes.MLSERVER, MLSERVER, *PROFILES[NATIVE])


@cache
def router(profile: str) -> Router:
    """The routes of a profile."""
    return Router(PROFILES[profile])
