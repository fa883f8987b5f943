"""TensorFlow Serving's routes, and its answers about models: status and metadata.

Pure values, safe on any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Encoded, ModelFace
from rowserve.handlers.tensorflow_serving_texts import CONTENT_TYPE, invalid

WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
POSTED = re.compile(rf"/v1/models/(?P<name>[^/:]+){WHICH}:(?P<verb>classify|regress|predict)", re.IGNORECASE)
ASKED = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{WHICH}(?:/(?P<verb>metadata))?", re.IGNORECASE)
ORIGIN = re.compile("https?://.*")
LARGEST_VERSION = 2**63 - 1
DT = {"float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE"}


@dataclass(frozen=True, slots=True)
class Route:
    """What a request asks for: `verb` is predict, classify, regress, metadata or status; no `version`, or
    0, is the latest."""

    verb: str
    model: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version of a model: START, LOADING, AVAILABLE, UNLOADING or END, and why where something failed."""

    version: int
    state: str = "AVAILABLE"
    error_code: str = "OK"
    error_message: str = ""


def route(method: str, path: str) -> Route:
    """The route of a request under /v1/ (`path` as it stands in the request, without the query). Raises Problem 400."""
    found = (POSTED if method == "POST" else ASKED).fullmatch(path) if method in ("GET", "POST") else None
    if found is None:
        raise invalid(f"Malformed request: {method} {path}")
    name, version, label = found["name"], found["version"], found["label"]
    if name is None:
        raise invalid("Missing model name in request.")
    if label is not None:
        raise invalid(f"Unrecognized servable version label: {unquote(label)}")
    if version is not None and (len(version) > 40 or int(version) > LARGEST_VERSION):
        raise invalid(f"Failed to convert version: {version[:80]} to numeric.")
    verb = (found["verb"] or "status").lower()
    return Route(verb, unquote(name), None if version is None else int(version))


def preflight(origin: str) -> Encoded | None:
    """The answer to OPTIONS, if a page asks."""
    if not ORIGIN.fullmatch(origin):
        return None
    return Encoded(200, [("Content-Type", CONTENT_TYPE)], b"")


def encode_status(states: Iterable[VersionState]) -> Encoded:
    """The state of the versions asked for, highest first."""
    told = [
        {
            "version": str(state.version),
            "state": state.state,
            "status": {"error_code": state.error_code, "error_message": state.error_message},
        }
        for state in sorted(states, key=lambda state: -state.version)
    ]
    return document({"model_version_status": told})


def encode_metadata(face: ModelFace) -> Encoded:
    """The signatures of a version. A tensor goes by its name in the signature: the graph's own names are not kept."""
    signatures = {name: signature_def(signature) for name, signature in sorted(face.signatures.items())}
    return document(
        {
            "model_spec": {"name": face.name, "signature_name": "", "version": str(face.version)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
    )


def document(value: Any) -> Encoded:
    """A JSON document as protobuf prints it."""
    return Encoded(200, [("Content-Type", CONTENT_TYPE)], (json.dumps(value, indent=1) + "\n").encode())


def signature_def(signature: Signature) -> dict[str, Any]:
    """A SignatureDef with all its fields."""
    return {
        "inputs": {spec.name: tensor_info(spec, signature.batch) for spec in signature.inputs},
        "outputs": {spec.name: tensor_info(spec, signature.batch) for spec in signature.outputs},
        "method_name": signature.method,
        "defaults": {},
    }


def tensor_info(spec: TensorSpec, batch: int | None) -> dict[str, Any]:
    """A TensorInfo: dimensions as strings, -1 where they are free."""
    dims: list[int | None] = [*((batch,) if spec.batched else ()), *(spec.shape or ())]
    known = spec.shape is not None
    return {
        "dtype": DT.get(spec.dtype, f"DT_{spec.dtype.upper()}"),
        "tensor_shape": {
            "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in dims] if known else [],
            "unknown_rank": not known,
        },
        "name": f"{spec.name}:0",
    }
