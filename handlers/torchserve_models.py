"""What TorchServe's ping and its management API tell of the models.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rowserve.handlers.items import Encoded
from rowserve.handlers.native_rows import Query
from rowserve.handlers.torchserve_texts import encode_json

MOST = 100
WORKER = {None: "LOADING", True: "READY", False: "STOPPED"}


@dataclass(frozen=True, slots=True)
class ModelAccount:
    """A version of a model. `ready` is None while it loads, False where it is broken; `waiting` counts queued rows."""

    name: str
    version: int
    ready: bool | None
    max_rows: int = 0
    max_wait_ms: int = 0
    waiting: int = 0
    room: int = 0
    engine: str = "tensorflow"


def encode_ping(ready: bool) -> Encoded:
    """Whether requests are answered."""
    return encode_json({"status": "Healthy" if ready else "Unhealthy"}, 200 if ready else 500)


def encode_list(names: Sequence[str], query: Query) -> Encoded:
    """A page of the models' names: at most `limit` from `next_page_token` on."""
    limit, first = number(query, "limit", MOST), max(number(query, "next_page_token", 0), 0)
    last = first + (limit if 0 <= limit <= MOST else MOST)
    told: dict[str, Any] = {} if last >= len(names) else {"nextPageToken": str(last)}
    return encode_json({**told, "models": [{"modelName": name, "modelUrl": name} for name in names[first:last]]})


def number(query: Query, name: str, default: int) -> int:
    """A number of the query; what is none counts as not given."""
    value = (query.get(name) or [""])[0]
    return int(value) if value.removeprefix("-").isdecimal() and value.isascii() and len(value) < 10 else default


def encode_models(models: Sequence[ModelAccount]) -> Encoded:
    """The description of one version, or of all."""
    return encode_json([described(model) for model in models])


def described(model: ModelAccount) -> dict[str, Any]:
    """A version: its graph thread is the one worker it has."""
    worker = {"id": "graph", "status": WORKER[model.ready], "gpu": False, "gpuUsage": "N/A"}
    return {
        "modelName": model.name,
        "modelVersion": str(model.version),
        "modelUrl": model.name,
        "runtime": model.engine,
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": model.max_rows,
        "maxBatchDelay": model.max_wait_ms,
        "loadedAtStartup": True,
        "workers": [worker],
        "jobQueueStatus": {"remainingCapacity": model.room, "pendingRequests": model.waiting},
    }
