"""KServe's V1 predict: instances in, predictions out; CloudEvents in, CloudEvents out.

Pure values; large documents belong on the pool. The request's Content-Type means nothing but for CloudEvents.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from rowserve.graphs.rows import Buffer
from rowserve.graphs.signature import Signature
from rowserve.handlers.http_headers import answer_headers, request_options
from rowserve.handlers.instances import predictions, read_document, read_instances, write_list
from rowserve.handlers.items import Answer, Encoded, Item, ModelFace, Question
from rowserve.handlers.json_pieces import LongList, NotJson
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import retry_after
from rowserve.handlers.tensorflow_serving import numbers_only

PROTOCOL = "kserve"
CONTENT_TYPE = "application/json"
EVENT_TYPE = "application/cloudevents+json"
EVENT_HEADERS = ("ce-specversion", "ce-source", "ce-type", "ce-id")
EVENT_KEYS = ("time", "type", "source", "id", "specversion", "data")
MODEL_NOT_FOUND = "Model not found"


def read_predict(face: ModelFace, headers: Mapping[str, str], body: Buffer) -> Question[Encoded]:
    """A predict request. Raises Problem 400."""
    options = request_options(headers, PROTOCOL)
    event = event_form(headers)
    asked = None if event == "structured" else numbers_only(face, body)
    try:
        found = by_document(face, document(body, event)) if asked is None else (asked.signature, asked.items)
    except NotJson as fault:
        raise Problem(400, f"Unrecognized request format: {fault.message} at offset {fault.offset}") from None
    signature, items = found
    return Question(signature, items, options, partial(encode_predict, face, signature, items, event))


def event_form(headers: Mapping[str, str]) -> str:
    """How the request is a CloudEvent: "binary" (its attributes are headers), "structured" (all is JSON), or ""."""
    if all(name in headers for name in EVENT_HEADERS):
        return "binary"
    return "structured" if headers.get("content-type", "").partition(";")[0].strip().lower() == EVENT_TYPE else ""


def document(body: Buffer, event: str) -> dict[str, Any]:
    """The request's JSON object, out of its event where it came in one. Raises Problem 400, or NotJson."""
    value = read_document(body)
    if event == "structured" or (isinstance(value, dict) and all(key in value for key in EVENT_KEYS)):
        value = value.get("data") if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise Problem(400, 'Expected a JSON object with "instances"')
    return value


def by_document(face: ModelFace, asked: Mapping[str, Any]) -> tuple[Signature, Sequence[Item]]:
    """Any request, and every fault. `inputs` counts where there are both. Raises Problem 400, or NotJson."""
    for key in ("instances", "inputs"):
        if key in asked and not isinstance(asked[key], list | LongList):
            raise Problem(400, f'Expected "{key}" to be a list')
    key = "inputs" if "inputs" in asked else "instances"
    if key not in asked:
        raise Problem(400, 'Expected "instances" or "inputs" in the request')
    name = asked.get("signature_name", "")
    if not isinstance(name, str):
        raise Problem(400, 'Expected "signature_name" to be a string')
    signature = face.signature(name)
    return signature, read_instances(face, signature, asked[key], key, beside=True)


def encode_predict(face: ModelFace, signature: Signature, items: Sequence[Item], event: str, answer: Answer) -> Encoded:
    """`{"predictions": [...]}`, in an event where the request came in one. Raises the first bad row's Problem."""
    told = b'{"predictions":%b}' % write_list(predictions(face, signature, items, answer))
    headers = [*answer_headers(answer, CONTENT_TYPE)]
    if event:
        attributes = event_attributes(face)
        if event == "structured":
            told = orjson.dumps({**attributes, "data": orjson.Fragment(told)})
            headers[0] = ("Content-Type", EVENT_TYPE)
        else:
            headers += [(f"ce-{name}", value) for name, value in attributes.items()]
    return Encoded(200, headers, told)


def event_attributes(face: ModelFace) -> dict[str, str]:
    """The attributes of an answer's event."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"io.kserve.inference.{face.name}",
        "type": "io.kserve.inference.response",
        "time": datetime.now(UTC).isoformat(),
    }


def encode_error(problem: Problem) -> Encoded:
    """{"error": "..."}; of a path or a method that there is not, {"detail": "..."}."""
    named = problem.title in ("Not Found", "Method Not Allowed")
    key, told = ("detail", problem.title) if named else ("error", problem.detail)
    return Encoded(problem.status, [("Content-Type", CONTENT_TYPE), *retry_after(problem)], orjson.dumps({key: told}))


def model_fault(name: str, problem: Problem) -> Problem:
    """KServe's words for a model that is not there (404) or not ready (503); any other Problem as it is."""
    if problem.status == 404:
        return Problem(404, f"Model with name {name} does not exist.", title=MODEL_NOT_FOUND)
    if problem.status == 503:
        told = f"Model with name {name} is not ready."
        return Problem(503, told, retry_after=problem.retry_after, reason=problem.reason)
    return problem


def encode_json(value: Any) -> Encoded:
    """A small JSON answer."""
    return Encoded(200, [("Content-Type", CONTENT_TYPE)], orjson.dumps(value))
