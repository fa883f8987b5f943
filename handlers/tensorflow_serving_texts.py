"""TensorFlow Serving's words and forms for what is wrong: its clients look for them.

Pure values, safe on any thread. The path to the fault is added behind its own words.
"""

from __future__ import annotations

from typing import Any

import orjson

from rowserve.graphs.signature import STRING
from rowserve.handlers.items import Encoded
from rowserve.handlers.json_excerpt import show
from rowserve.handlers.json_pieces import LongList
from rowserve.handlers.json_values import JsonFault, is_b64
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import retry_after

CONTENT_TYPE = "application/json"
TITLE = "Invalid argument"
DATA_TYPES = {"float16": "half", "float32": "float", "float64": "double"}  # the others are named alike


def encode_error(problem: Problem) -> Encoded:
    """{"error": "..."} with the problem's status; 422, which TensorFlow Serving does not have, becomes 400."""
    body = orjson.dumps({"error": problem.detail}, option=orjson.OPT_INDENT_2).replace(b"\n  ", b"\n    ", 1)
    status = 400 if problem.status == 422 else problem.status
    return Encoded(status, [("Content-Type", CONTENT_TYPE), *retry_after(problem)], body)


def invalid(detail: str) -> Problem:
    """INVALID_ARGUMENT."""
    return Problem(400, detail, title=TITLE)


def unimplemented(value: Any, dtype: str) -> Problem:
    """A dtype without a JSON form."""
    while value and isinstance(value, list | LongList):
        value = value[0] if isinstance(value, list) else value.first()
    return Problem(501, f"Conversion of JSON Value: {show(value)} to type: {data_type(dtype)}")


def data_type(dtype: str) -> str:
    """A dtype as TensorFlow's DataTypeString names it."""
    return DATA_TYPES.get(dtype, dtype)


def json_type(value: Any) -> str:
    """A JSON value's kind as rapidjson names it."""
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    if isinstance(value, int | float):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Array" if isinstance(value, list | LongList) else "Object"


def fault_text(fault: JsonFault) -> str:
    """What TensorFlow Serving says of a value that does not fit."""
    value, wanted, level = fault.value, fault.wanted, fault.level
    match fault.kind:
        case "level":
            text = f"JSON Value: {show(value)} found at incorrect level: {level} in the JSON DOM."
            text += f" Expected at level: {wanted}"
        case "depth":
            text = f"Encountered list at unexpected level: {level} expected < {wanted}"
        case "size":
            size = len(value) if isinstance(value, list) else "another"
            text = f"Encountered list at unexpected size: {size} at level: {level} expected size: {wanted}"
        case "b64":
            text = "Unable to base64 decode"
        case "type" if wanted == STRING and isinstance(value, dict) and not is_b64(value):
            text = f"JSON Value: {show(value)} not formatted correctly for base64 data"
        case "type" | "range" | "nan":
            text = f"JSON Value: {show(value)} Type: {json_type(value)} is not of expected type: {data_type(wanted)}"
        case _:
            return fault.detail
    return f"{text} (at {fault.path})"


def element_text(index: int, key: str, text: str) -> str:
    """What is wrong in one element of `instances`, and in which of its inputs ("" where there is only one)."""
    named = f" key: {key}" if key else ""
    return f"Failed to process element: {index}{named} of 'instances' list. Error: INVALID_ARGUMENT: {text}"


def servable_not_found(name: str, version: int | None) -> Problem:
    """404 of a request to a model that is not served."""
    wanted = f"Specific({name}, {version})" if version else f"Latest({name})"
    return Problem(404, f"Servable not found for request: {wanted}")


def status_not_found(name: str, version: int | None) -> Problem:
    """404 of a question for the status of a model that is not known."""
    wanted = f"version {version}" if version else "any versions"
    return Problem(404, f"Could not find {wanted} of model {name}")
