"""The Open Inference Protocol's gRPC service, inference.GRPCInferenceService, as Triton serves it. Lane thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers.http_headers import request_options
from rowserve.handlers.open_inference_grpc import (
    PROTOCOL,
    infer_question,
    read_infer,
    read_names,
    read_only_ready,
    stream_answer,
    stream_fault,
)
from rowserve.handlers.open_inference_messages import (
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelReadyResponse,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from rowserve.handlers.open_inference_models import index_document, model_config, model_metadata, server_metadata
from rowserve.handlers.open_inference_settings import encode_log, encode_trace, wants_change
from rowserve.handlers.open_inference_statistics import statistics_document
from rowserve.handlers.open_inference_texts import unsupported
from rowserve.handlers.problem import Problem
from rowserve.server.grpc_service import Asked, Metadata, Method, Service, Stream
from rowserve.server.open_inference_catalog import UNSUPPORTED, figures, find, index, ready_versions, serving
from rowserve.server.openapi import own_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.server.metrics import Metrics
    from rowserve.server.models import Models, ServedModel

NAME = "inference.GRPCInferenceService"
REFUSED = {
    "RepositoryModelLoad": "load",
    "RepositoryModelUnload": "load",
    **{f"{kind}SharedMemoryRegister": "memory" for kind in ("System", "Cuda")},
}
NO_REGIONS = tuple(f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Unregister"))


class OpenInference:
    """The service, for the models of one server, in the name that its profile gives it."""

    def __init__(self, models: Models, metrics: Metrics, profile: str = "") -> None:
        self._models = models
        self._metrics = metrics
        self._profile = profile

    def service(self) -> Service:
        """What the lane serves."""
        methods: dict[str, Method] = {
            "ServerLive": lambda message, metadata: ServerLiveResponse(live=True).SerializeToString(),
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.infer,
            "ModelConfig": self.config,
            "ModelStatistics": self.statistics,
            "RepositoryIndex": self.index,
            "TraceSetting": partial(settings, "trace", encode_trace),
            "LogSettings": partial(settings, "logging", encode_log),
            **{name: lambda message, metadata: b"" for name in NO_REGIONS},
            **{name: partial(refuse, what) for name, what in REFUSED.items()},
        }
        streams = {"ModelStreamInfer": Stream(self.infer, stream_answer, stream_fault)}
        return Service(NAME, methods, streams)

    def infer(self, message: bytes, metadata: Metadata) -> Asked:
        """Tensors in, tensors out."""
        request = read_infer(message)
        served = find(self._models, request.model, request.version)
        return Asked(served, infer_question(served.face, request, request_options(metadata, PROTOCOL)))

    def server_ready(self, _message: bytes, _: Metadata) -> bytes:
        """Whether every model has loaded."""
        return ServerReadyResponse(ready=self._models.ready).SerializeToString()

    def model_ready(self, message: bytes, _: Metadata) -> bytes:
        """Whether a model answers."""
        try:
            self._served("ModelReadyRequest", message)
        except Problem as problem:
            if problem.status != 503:
                raise
            return ModelReadyResponse(ready=False).SerializeToString()
        return ModelReadyResponse(ready=True).SerializeToString()

    def server_metadata(self, _message: bytes, _: Metadata) -> bytes:
        """The server and its extensions."""
        return ServerMetadataResponse(**server_metadata(own_version(), self._profile)).SerializeToString()

    def model_metadata(self, message: bytes, _: Metadata) -> bytes:
        """A model's tensors."""
        face = self._served("ModelMetadataRequest", message).face
        told = model_metadata(face, ready_versions(self._models, face.name))
        told["parameters"] = {name: {"string_param": value} for name, value in told.get("parameters", {}).items()}
        return ModelMetadataResponse(**told).SerializeToString()

    def config(self, message: bytes, _: Metadata) -> bytes:
        """A model as Triton's ModelConfig."""
        served = self._served("ModelConfigRequest", message)
        return ModelConfigResponse(config=model_config(served.face, serving(served))).SerializeToString()

    def statistics(self, message: bytes, _: Metadata) -> bytes:
        """What models have done."""
        name, version = read_names("ModelStatisticsRequest", message)
        told = statistics_document(figures(self._models, self._metrics, name, version))
        return ModelStatisticsResponse(**told).SerializeToString()

    def index(self, message: bytes, _: Metadata) -> bytes:
        """Every version of every model."""
        entries = index_document(index(self._models), read_only_ready(message))
        return RepositoryIndexResponse(models=entries).SerializeToString()

    def _served(self, kind: str, message: bytes) -> ServedModel:
        return find(self._models, *read_names(kind, message))


def settings(what: str, encode: Callable[[], bytes], message: bytes, _: Metadata) -> bytes:
    """Today's settings. Raises Problem 501 where they are to change."""
    if wants_change(message):
        raise unsupported(UNSUPPORTED[what])
    return encode()


def refuse(what: str, _message: bytes, _: Metadata) -> bytes:
    """What Triton has and rowserve has not."""
    raise unsupported(UNSUPPORTED[what])
