"""What TensorFlow Serving tells over gRPC about models: GetModelMetadata and GetModelStatus.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any as Plain

from rowserve.graphs.proto_tables import Message
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import ModelFace
from rowserve.handlers.proto_wire import LENGTH, WireFault, fields, text
from rowserve.handlers.tensor_protos import NUMBERS
from rowserve.handlers.tensorflow_messages import (
    Any,
    GetModelMetadataResponse,
    GetModelStatusResponse,
    SignatureDef,
    SignatureDefMap,
    TensorInfo,
)
from rowserve.handlers.tensorflow_serving_grpc import ModelSpec, given_spec, unreadable
from rowserve.handlers.tensorflow_serving_models import VersionState
from rowserve.handlers.tensorflow_serving_texts import invalid

SIGNATURE_DEF = "signature_def"
TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def read_metadata_request(message: bytes) -> ModelSpec:
    """Whose signatures are wanted. Raises Problem 400."""
    spec, wanted = spec_and_names("GetModelMetadataRequest", message)
    if not wanted:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in wanted:
        if name != SIGNATURE_DEF:
            raise invalid(f"Metadata field {name} is not supported")
    return spec


def read_status_request(message: bytes) -> ModelSpec:
    """Whose state is wanted. Raises Problem 400."""
    spec, _ = spec_and_names("GetModelStatusRequest", message)
    return spec


def spec_and_names(kind: str, message: bytes) -> tuple[ModelSpec, list[str]]:
    """A message of a ModelSpec and strings."""
    try:
        found = [(at, data) for at, wire, _, data in fields(memoryview(message)) if wire == LENGTH]
        return given_spec([data for at, data in found if at == 1]), [text(data) for at, data in found if at == 2]
    except WireFault as fault:
        raise unreadable(kind, fault) from None


def encode_metadata(face: ModelFace) -> bytes:
    """A GetModelMetadataResponse with the signatures of a version."""
    signatures = {name: signature_def(signature) for name, signature in face.signatures.items()}
    packed = SignatureDefMap(signature_def=signatures).SerializeToString(deterministic=True)
    return GetModelMetadataResponse(
        model_spec={"name": face.name, "version": {"value": face.version}},
        metadata={SIGNATURE_DEF: Any(type_url=TYPE_URL, value=packed)},
    ).SerializeToString()


def signature_def(signature: Signature) -> Message:
    """A SignatureDef. A tensor goes by its name in the signature: the graph's own names are not kept."""
    return SignatureDef(
        inputs={spec.name: tensor_info(spec, signature.batch) for spec in signature.inputs},
        outputs={spec.name: tensor_info(spec, signature.batch) for spec in signature.outputs},
        method_name=signature.method,
    )


def tensor_info(spec: TensorSpec, batch: int | None) -> Message:
    """A TensorInfo; -1 where a dimension is free."""
    sizes: list[int | None] = [*((batch,) if spec.batched else ()), *(spec.shape or ())]
    shape: dict[str, Plain] = {"unknown_rank": True}
    if spec.shape is not None:
        shape = {"dim": [{"size": -1 if size is None else size} for size in sizes]}
    return TensorInfo(name=f"{spec.name}:0", dtype=NUMBERS[spec.dtype][0], tensor_shape=shape)


def encode_status(states: Iterable[VersionState]) -> bytes:
    """A GetModelStatusResponse, the highest version first."""
    told = [
        {
            "version": state.version,
            "state": state.state,
            "status": {"error_code": state.error_code, "error_message": state.error_message},
        }
        for state in sorted(states, key=lambda state: -state.version)
    ]
    return GetModelStatusResponse(model_version_status=told).SerializeToString()
