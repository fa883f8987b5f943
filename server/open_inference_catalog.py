"""What the Open Inference Protocol asks of the server's models, for REST and gRPC alike.

Only reads: reactor thread, or the gRPC lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowserve.handlers.open_inference_models import IndexEntry, Serving
from rowserve.handlers.open_inference_statistics import Figure, ModelFigures
from rowserve.handlers.open_inference_texts import unknown_model
from rowserve.handlers.problem import Problem
from rowserve.server.metrics import RowCounts
from rowserve.server.target import version_number

if TYPE_CHECKING:
    from rowserve.server.metrics import Metrics
    from rowserve.server.models import Models, ServedModel

# What Triton has and rowserve has not; its clients may ask.
UNSUPPORTED = {
    "generate": "generate",
    "trace": "a change of the tracing",
    "logging": "a change of the logging",
    "load": "loading and unloading by request (models are folders of the server)",
    "memory": "shared memory",
}


def find(models: Models, name: str, version: str = "") -> ServedModel:
    """The model that answers; of no version, or 0, the latest. Raises Problem 404 in Triton's words, or 503."""
    try:
        return models.find(name, version_number(version) if version else None)
    except Problem as problem:
        if problem.status != 404:
            raise
        raise unknown_model(name, version) from None


def ready_versions(models: Models, name: str) -> list[int]:
    """The versions of that name that answer, the lowest first."""
    return sorted(state.version for state in models.states() if state.name == name and state.state == "ready")


def index(models: Models) -> list[IndexEntry]:
    """Every version there is."""
    return [IndexEntry(state.name, state.version, state.state, state.fault) for state in models.states()]


def serving(served: ServedModel) -> Serving:
    """How the model's default signature is served."""
    limits, signature = served.batcher.limits, served.face.signature()
    return Serving(limits.queue_rows, limits.max_rows, limits.max_wait, served.served(signature).cached)


def figures(models: Models, metrics: Metrics, name: str = "", version: str = "") -> list[ModelFigures]:
    """The statistics of one version, of all of a name, or of all there are. Raises Problem 404 or 503."""
    if version:
        version = str(find(models, name, version).face.version)
    elif name and not any(state.name == name for state in models.states()):
        raise unknown_model(name)
    return [
        version_figures(metrics, state.name, state.version)
        for state in models.states()
        if state.state == "ready" and name in ("", state.name) and version in ("", str(state.version))
    ]


def version_figures(metrics: Metrics, name: str, version: int) -> ModelFigures:
    """One version's statistics, over all protocols."""
    total = RowCounts()
    for (model, number, _), counts in metrics.all_rows():
        if (model, number) == (name, str(version)):
            total.add(counts)
    ran = metrics.batches(name, version)
    misses = total.collapsed + total.computed
    return ModelFigures(
        name,
        version,
        success=Figure(total.hit + misses + total.bypassed, total.answered_seconds),
        fail=Figure(total.failed, total.failed_seconds),
        hits=Figure(total.hit, total.hit_seconds),
        misses=Figure(misses, total.miss_seconds),
        queue=Figure(ran.rows, ran.waited),
        graph=Figure(ran.rows, ran.ran),
        sizes={size: Figure(batches, seconds) for size, (batches, seconds) in ran.sizes.items()},
        last=ran.last,
    )
