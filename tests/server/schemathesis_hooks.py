"""What schemathesis is told beside the description: how lines are sent, which models are served, and, where ONLY names
the one that tests/model_recipes.py calls two_signatures, what that takes."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

MODELS, ONLY = "ROWSERVE_TEST_MODELS", "ROWSERVE_TEST_ONLY"

NUMBERS = {"type": "array", "items": {"type": "number", "minimum": -1e6, "maximum": 1e6}, "minItems": 4, "maxItems": 4}
SIGNATURE = {"enum": ["serving_default", "half"]}


def closed(**properties: Any) -> dict[str, Any]:
    """An object of these members and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def some(items: Any, most: int = 5) -> dict[str, Any]:
    """A list that is not empty."""
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


TENSOR = closed(name={"const": "x"}, datatype={"const": "FP32"}, shape={"const": [1, 4]}, data=NUMBERS)
TAKEN = {
    "/v1/models/{model}:predict": {
        "anyOf": [
            closed(instances=some({"anyOf": [NUMBERS, closed(x=NUMBERS)]}, 1)),
            closed(instances=some(NUMBERS), signature_name=SIGNATURE),
            closed(inputs=closed(x=some(NUMBERS))),
            closed(inputs=some(NUMBERS)),
        ]
    },
    "/v2/models/{model}/infer": {
        "anyOf": [
            closed(inputs=some(TENSOR, 1)),
            closed(inputs=some(TENSOR, 1), parameters=closed(signature_name=SIGNATURE)),
            closed(id={"type": "string"}, inputs=some(TENSOR, 1), outputs=some(closed(name={"const": "y"}), 1)),
        ]
    },
    "/predictions/{model}": {"anyOf": [NUMBERS, closed(instances=some(NUMBERS))]},
    "/rows/{model}": {"anyOf": [NUMBERS, closed(x=NUMBERS)]},
}
QUERY = {"outputs": {"enum": ["y", ""]}, "signature": SIGNATURE}


@schemathesis.serializer("application/x-ndjson")
def line(context: Any, value: Any) -> Any:
    """One row; what is bytes already was made by a mutation."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.deserializer("application/x-ndjson", "application/octet-stream")
def text(context: Any, response: Any) -> str:
    """A body that is no JSON is a string to a schema."""
    return str(response.content.decode("latin-1"))


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Most requests go to a model that is there."""
    schemas: dict[str, Any] = {"model": {"enum": os.environ[MODELS].split()}, "version": {"enum": ["1", "0"]}}
    if ONLY in os.environ:
        raw_schema["paths"] = {path: raw_schema["paths"][path] for path in TAKEN}
        schemas = {"model": {"const": os.environ[ONLY]}, **QUERY}
    for path, operations in raw_schema["paths"].items():
        for operation in operations.values():
            if ONLY in os.environ:  # it has no labels
                operation["parameters"] = [each for each in operation["parameters"] if each["name"] != "top"]
            for parameter in operation["parameters"]:
                parameter["schema"] = schemas.get(parameter["name"], parameter["schema"])
            if ONLY in os.environ:
                kinds = operation["requestBody"]["content"]
                kind = next(kind for kind in kinds if kind.endswith("json"))
                operation["requestBody"]["content"] = {kind: {"schema": TAKEN[path]}}
