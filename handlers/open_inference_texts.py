"""The Open Inference Protocol's words and form for what is wrong: Triton's, which its clients know.

Pure values, safe on any thread.
"""

from __future__ import annotations

import re

import orjson

from rowserve.handlers.items import Encoded, ModelFace
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import retry_after
from rowserve.handlers.tensors import TensorFault

CONTENT_TYPE = "application/json"
TITLE = "Invalid argument"
UNKNOWN_MODEL = re.compile(r"Request for unknown model: (['\"])(.*)\1(?: version (\S+))? is not found", re.DOTALL)


def encode_fault(problem: Problem) -> Encoded:
    """{"error": "..."} with the problem's status; a coding that is not taken is UNSUPPORTED here."""
    status, detail = problem.status, problem.detail
    headers = [("Content-Type", CONTENT_TYPE), *retry_after(problem)]
    if problem.reason == "coding":
        status, detail = 501, f"Unsupported compression type: {detail}"
    return Encoded(status, headers, orjson.dumps({"error": detail}))


def encode_mlserver_fault(problem: Problem) -> Encoded:
    """The same in MLServer's words, which differ for a model that is not there."""
    found = UNKNOWN_MODEL.fullmatch(problem.detail)
    if found is None:
        return encode_fault(problem)
    version = f" with version {found[3]}" if found[3] else ""
    return encode_fault(Problem(problem.status, f"Model {found[2]}{version} not found"))


def invalid(detail: str) -> Problem:
    """INVALID_ARGUMENT."""
    return Problem(400, detail, title=TITLE, reason="malformed")


def unsupported(what: str) -> Problem:
    """UNSUPPORTED: a part of the protocol that is not served."""
    return Problem(501, f"{what} is not supported", reason="unsupported")


def unknown_model(name: str, version: str = "") -> Problem:
    """NOT_FOUND, for a request to a model, or to a version of one, that is not there."""
    which = f"{name[:64]!r} version {version[:40]}" if version else repr(name[:64])
    return Problem(404, f"Request for unknown model: {which} is not found")


def tensor_fault(face: ModelFace, fault: TensorFault) -> Problem:
    """What Triton says of a tensor that does not fit its model, with what would fit."""
    name, model = fault.name[:64], face.name
    match fault.kind:
        case "unknown":
            told = f"unexpected inference input {name!r} for model {model!r}: {fault.detail}"
        case "missing":
            told = f"missing required input {name!r} for model {model!r}: {fault.detail}"
        case "dtype":
            told = f"unexpected data-type for input {name!r} for model {model!r}: {fault.detail}"
        case "shape":
            told = f"unexpected shape for input {name!r} for model {model!r}: {fault.detail}"
        case _:
            told = f"inputs of model {model!r} do not fit together: {fault.detail}"
    return invalid(told)
