"""What bodies look like whatever the model: JSON Schemas by content type, as OpenAPI writes them. Pure values.

What a row looks like only the model's signature says; the schemas leave that open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
Content = Mapping[str, Schema]

PROBLEM = "application/problem+json"
JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "multipart/form-data"
BINARY = "application/octet-stream"
TEXT = "text/plain"
PICTURE = "image/*"
CLOUD_EVENT = "application/cloudevents+json"

BYTES: Schema = {"type": "string", "format": "binary"}
FILES: Schema = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": BYTES,
    "description": "Files, under any names of fields.",
}
ROW: Schema = {"description": "A JSON value a line, each of them a row."}
LINES: Schema = {"type": "string", "description": "A JSON object a line, each of them a row's answer."}
TENSOR: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string"},
        "parameters": {"type": "object"},
        "data": {"type": "array", "description": "Flat or nested; left out where the bytes follow the document."},
    },
}
WANTED: Schema = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
}

NOTHING: Content = {}
OBJECT: Content = {JSON: {"type": "object"}}
LIST: Content = {JSON: {"type": "array"}}
ANYTHING: Content = {JSON: {}}
PLAIN: Content = {TEXT: {"type": "string"}}
TENSORS: Content = {BINARY: BYTES}
TENSORS_OR_LIST: Content = {**TENSORS, **LIST}
TENSORS_OR_FILES: Content = {**TENSORS, FORM: FILES}
PICTURES: Content = {FORM: FILES, PICTURE: BYTES}
ROWS: Content = {NDJSON: ROW}
ANSWERS: Content = {NDJSON: LINES}
PREDICT: Content = {
    JSON: {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string"},
            "instances": {"type": "array", "minItems": 1},
            "inputs": {"description": "The value of the only input, or an object of input name to value."},
        },
        "anyOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    }
}
EXAMPLES: Content = {
    JSON: {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {"type": "object"},
            "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        },
    }
}
OBJECT_OR_EVENT: Content = {**OBJECT, CLOUD_EVENT: {"type": "object"}}
INSTANCES: Content = {JSON: PREDICT[JSON], CLOUD_EVENT: {"type": "object"}}
INFER: Content = {
    JSON: {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": 1, "items": TENSOR},
            "outputs": {"type": "array", "items": WANTED},
        },
    },
    BINARY: BYTES,
}
PREDICTION: Content = {BINARY: BYTES, PICTURE: BYTES, JSON: {}, FORM: FILES}
