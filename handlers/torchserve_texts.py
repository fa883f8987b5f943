"""TorchServe's headers, JSON and form of errors.

Pure values, safe on any thread. A Problem whose title is a name that TorchServe gives an exception keeps it; the others
are named by their status.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import retry_after

CONTENT_TYPE = "application/json"
NO_STORE = "no-cache, no-store, must-revalidate, private"
NO_MODEL = "ModelNotFoundException"
NO_VERSION = "ModelVersionNotFoundException"
NO_RESOURCE = "ResourceNotFoundException"
NOT_ALLOWED = "MethodNotAllowedException"
TYPES = {
    404: NO_RESOURCE,
    405: NOT_ALLOWED,
    408: "RequestTimeoutException",
    501: "UnsupportedOperationException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
}
MESSAGES = {
    NO_RESOURCE: "Requested resource is not found, please refer to API document.",
    NOT_ALLOWED: "Requested method is not allowed, please refer to API document.",
}


def own_headers() -> list[tuple[str, str]]:
    """The headers of every answer: its id, and that nobody on the way may keep it."""
    return [("x-request-id", str(uuid.uuid4())), ("Cache-Control", NO_STORE)]


def encode_json(value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Encoded:
    """A JSON document as TorchServe prints it."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Encoded(status, [("Content-Type", CONTENT_TYPE), *own_headers(), *headers], body)


def encode_error(problem: Problem) -> Encoded:
    """{"code", "type", "message"} with the problem's status."""
    status = problem.status
    kind = problem.title if problem.title.endswith("Exception") else ""
    kind = kind or TYPES.get(status) or ("BadRequestException" if status < 500 else "InternalServerException")
    told = {"code": status, "type": kind, "message": MESSAGES.get(kind, problem.detail)}
    return encode_json(told, status, retry_after(problem))


def bad_request(detail: str) -> Problem:
    """The request cannot be what its model takes."""
    return Problem(400, detail, title="BadRequestException")


def model_not_found(name: str) -> Problem:
    """404 of a model."""
    return Problem(404, f"Model not found: {name}", title=NO_MODEL)


def version_not_found(name: str, version: str) -> Problem:
    """404 of a version."""
    return Problem(404, f"Model version: {version} does not exist for model: {name}", title=NO_VERSION)


def by_files(what: str) -> Problem:
    """What TorchServe's management does and this server leaves to whoever owns its files."""
    told = f"{what} is not served: models are managed by files, and the server's settings say which it serves"
    return Problem(405, told, title="ModelsManagedByFilesException")
