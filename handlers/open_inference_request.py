"""What an inference request says beside its tensors: fields and parameters, read from JSON.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rowserve.graphs.signature import Signature
from rowserve.handlers.items import ModelFace, Options, Priority
from rowserve.handlers.json_values import kind_of
from rowserve.handlers.open_inference_outputs import Wish, wish
from rowserve.handlers.open_inference_texts import invalid, unsupported
from rowserve.handlers.problem import Problem

LARGEST = 2**64 - 1
SHARED_MEMORY = "shared_memory_region"
SIGNATURE_NAME = "signature_name"


def field(entry: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A field of that JSON type; the default where it is missing or null. Raises Problem 400."""
    value = entry.get(name)
    if value is None:
        if default is not None:
            return default
        raise invalid(f"Unable to parse {name!r}: it is missing")
    if type(value) is not kind:
        words = {str: "a string", int: "an integer", bool: "true or false", list: "a list", dict: "an object"}
        raise invalid(f"Unable to parse {name!r}: expected {words[kind]}, found {kind_of(value)}")
    return value


def unsigned(entry: Mapping[str, Any], name: str, default: int = 0) -> int:
    """A field that is a whole number of 64 bits, 0 or more. Raises Problem 400."""
    value: int = field(entry, name, int, default)
    if not 0 <= value <= LARGEST:
        raise no_unsigned(name)
    return value


def no_unsigned(name: str) -> Problem:
    """400, in Triton's words."""
    return invalid(f"Unable to parse {name!r}: attempt to access JSON non-unsigned-integer as unsigned-integer")


def objects(document: Mapping[str, Any], name: str) -> Sequence[dict[str, Any]]:
    """A field that is a list of objects; none of them where it is missing. Raises Problem 400."""
    entries: list[Any] = field(document, name, list, [])
    for entry in entries:
        if not isinstance(entry, dict):
            raise invalid(f"Unable to parse {name!r}: expected objects, found {kind_of(entry)}")
    return entries


def shape_of(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """An input's shape. Raises Problem 400."""
    shape: list[Any] = field(entry, "shape", list)
    if any(type(size) is not int or not 0 <= size <= LARGEST for size in shape):
        raise no_unsigned("shape")
    return tuple(shape)


def asked_signature(face: ModelFace, parameters: Mapping[str, Any]) -> Signature:
    """The signature that the request's parameter names, or the default one. Raises Problem 400."""
    name: str = field(parameters, SIGNATURE_NAME, str, "")
    try:
        return face.signature(name)
    except Problem as problem:
        told = f"the request's parameter {SIGNATURE_NAME!r} names one, and the model's card (`signature`) the default"
        raise invalid(f"{problem.detail}; {told}") from None


def request_id(document: Mapping[str, Any]) -> str:
    """The id that the answer bears too. Raises Problem 400."""
    found: str = field(document, "id", str, "")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise invalid("Unable to parse 'id': it is no valid Unicode") from None
    return found


def asked_options(options: Options, priority: int, timeout: int) -> Options:
    """The options with a request's own `priority` and `timeout` (microseconds; 0: none) put in.

    As in Triton a lower number is more urgent and 0 is the default: 0 and 1 are interactive, the others bulk. Of two
    deadlines the earlier one counts.
    """
    if priority > 1:
        options = replace(options, priority=Priority.BULK)
    if timeout:
        options = replace(options, timeout=min(timeout / 1e6, options.timeout or timeout / 1e6))
    return options


def read_wishes(signature: Signature, model: str, document: Mapping[str, Any], all_binary: bool) -> list[Wish]:
    """The outputs that are asked for; all, where none is named. Raises Problem 400 or 501."""
    entries = objects(document, "outputs")
    if not entries:
        return [wish(signature, model, spec.name, binary=all_binary) for spec in signature.outputs]
    wishes: dict[str, Wish] = {}
    for entry in entries:
        name: str = field(entry, "name", str)
        parameters: dict[str, Any] = field(entry, "parameters", dict, {})
        if SHARED_MEMORY in parameters:
            raise unsupported("shared memory")
        if name in wishes:
            raise invalid(f"output {name[:64]!r} already exists in request")
        binary: bool = field(parameters, "binary_data", bool, all_binary)
        classes = unsigned(parameters, "classification")
        wishes[name] = wish(signature, model, name, binary=binary, classes=classes)
    return list(wishes.values())
