"""What the Open Inference Protocol tells of a server and its models: metadata, configuration, index, readiness.

Pure values, safe on any thread. The REST answers are these documents as JSON, the gRPC answers messages of the same
fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rowserve.graphs.rows import Buffer
from rowserve.graphs.signature import STRING, Signature, TensorSpec
from rowserve.handlers.items import Encoded, ModelFace
from rowserve.handlers.open_inference_datatypes import NAMES, datatype_of
from rowserve.handlers.open_inference_request import SIGNATURE_NAME, asked_signature
from rowserve.handlers.open_inference_texts import CONTENT_TYPE, invalid

PLATFORMS = {"tensorflow": "tensorflow_savedmodel"}  # any other engine goes by its name, as Triton's backends do
PEERS = ("triton", "mlserver")
EXTENSIONS = (
    "classification",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)
STATES = {"ready": "READY", "loading": "LOADING", "broken": "UNAVAILABLE"}
COLOURS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Serving:
    """How rows of a model are batched, and whether they are cached: `rows` is the most that wait, `batch` the most
    that run together, `delay` the longest that a row waits for others (seconds)."""

    rows: int
    batch: int
    delay: float
    cached: bool


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A version of a model; `state` is ready, loading or broken, `reason` why it is broken."""

    name: str
    version: int
    state: str
    reason: str = ""


def document(value: Any, status: int = 200) -> Encoded:
    """A JSON answer."""
    return Encoded(status, [("Content-Type", CONTENT_TYPE)], orjson.dumps(value))


def server_metadata(version: str, profile: str = "") -> dict[str, Any]:
    """The server: its name (in the profile of another one that one's, which its clients look for), version, and the
    extensions that it has."""
    return {"name": profile if profile in PEERS else "rowserve", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(face: ModelFace, versions: Iterable[int], name: str = "") -> dict[str, Any]:
    """The tensors of the signature of that name, or of the default one; the leading dimension of rows is -1. Where
    there are other signatures, `parameters` lists them. Raises Problem 400."""
    signature = asked_signature(face, {SIGNATURE_NAME: name})
    others = sorted(face.signatures.keys() - {signature.name})
    told = {SIGNATURE_NAME: signature.name, "other_signatures": ",".join(others)}
    return {
        "name": face.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORMS.get(face.engine, face.engine),
        "inputs": [tensor_metadata(spec) for spec in signature.inputs],
        "outputs": [tensor_metadata(spec) for spec in signature.outputs],
        **({"parameters": told} if others else {}),
    }


def tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's name, datatype and whole shape."""
    lead = [-1] if spec.batched else []
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": [*lead, *dims(spec)]}


def dims(spec: TensorSpec) -> list[int]:
    """The shape of a row, or of a tensor without rows: -1 where a size is free, and for a rank that is."""
    return [-1] if spec.shape is None else [-1 if size is None else size for size in spec.shape]


def model_config(face: ModelFace, serving: Serving) -> dict[str, Any]:
    """The model as Triton's ModelConfig has it. Raises Problem 400 without a default signature.

    `max_batch_size` is what a request may hold at once, since rows of all requests are batched here anyway.
    """
    signature = asked_signature(face, {})
    in_rows = batches(signature)
    config: dict[str, Any] = {
        "name": face.name,
        "platform": PLATFORMS.get(face.engine, face.engine),
        "backend": face.engine,
        "max_batch_size": serving.rows if in_rows else 0,
        "input": [{**tensor_config(spec, in_rows), "format": picture_format(spec)} for spec in signature.inputs],
        "output": [tensor_config(spec, in_rows) for spec in signature.outputs],
        "response_cache": {"enable": serving.cached},
    }
    if face.engine == "tensorflow":
        config["default_model_filename"] = "model.savedmodel"
    if face.labels is not None:
        for output in config["output"]:
            if output["name"] == face.labels.output:
                output["label_filename"] = "labels.txt"
    if in_rows:
        delay = round(serving.delay * 1e6)
        config["dynamic_batching"] = {
            "preferred_batch_size": [serving.batch],
            "max_queue_delay_microseconds": delay,
        }
    return config


def batches(signature: Signature) -> bool:
    """Whether all its tensors hold rows, so that their shapes can be given without the leading dimension."""
    return not signature.alone and all(spec.batched for spec in (*signature.inputs, *signature.outputs))


def tensor_config(spec: TensorSpec, in_rows: bool) -> dict[str, Any]:
    """A ModelInput, or a ModelOutput."""
    kind = "STRING" if spec.dtype == STRING else NAMES.get(spec.dtype, "INVALID")
    lead = [-1] if spec.batched and not in_rows else []
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": [*lead, *dims(spec)]}


def picture_format(spec: TensorSpec) -> str:
    """How a picture lies in an input; clients that send pictures ask for it."""
    shape = spec.shape or ()
    return "FORMAT_NHWC" if spec.batched and len(shape) == 3 and shape[2] in COLOURS else "FORMAT_NONE"


def index_document(entries: Sequence[IndexEntry], only_ready: bool) -> list[dict[str, str]]:
    """Every version there is, or those that are ready."""
    return [
        {
            "name": entry.name,
            "version": str(entry.version),
            "state": STATES[entry.state],
            "reason": entry.reason,
        }
        for entry in entries
        if entry.state == "ready" or not only_ready
    ]


def wants_only_ready(body: Buffer) -> bool:
    """What the request for the index says. Raises Problem 400."""
    try:
        asked = json.loads(bytes(body)) if len(body) else {}
    except (ValueError, RecursionError):
        raise invalid("failed to parse the request JSON buffer") from None
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        raise invalid("Invalid value for 'ready': expected a boolean")
    return ready
