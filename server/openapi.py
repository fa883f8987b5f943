"""GET /openapi.json: OpenAPI 3.1, made of the tables of routes. Pure functions."""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import orjson
from blake3 import blake3

from rowserve.handlers.http_headers import response_coding
from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem, phrase
from rowserve.server.routing import ANY, FORM, JSON, NDJSON, TEXT, Parameter, Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANYTHING: dict[str, Any] = {}
JSON_TYPES = {str: "string", int: "integer"}
FORM_SCHEMA = {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
LINE_SCHEMA = {"type": "string", "description": "JSON objects, one a line."}
PATH_PATTERNS = {
    "model": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$",
    "version": "^[1-9][0-9]*$",
    "repository": "^[^/]+$",
    "region": "^[^/]+$",
}
HEADERS = (
    ("Cache-Control", "no-store, no-cache, only-if-cached, max-age=N: what the row cache may do for this request."),
    ("Rowserve-Throw-Away", "1: these rows meet nobody else's in the row cache, and are forgotten soon."),
    ("Request-Timeout", "Seconds until rows that are not answered get a 504."),
)


@lru_cache(maxsize=8)
def document(routes: Sequence[Route]) -> bytes:
    """The whole description; of two routes alike, as everywhere, the first counts."""
    paths: dict[str, Any] = {}
    for route in routes:
        for method in described_methods(route):
            paths.setdefault(route.path, {}).setdefault(method.lower(), operation(route, method))
    info = {"title": "rowserve", "version": own_version(), "description": "Answers rows, each computed once."}
    faults = {table.name: fault_schema(table) for table in dict.fromkeys(route.table for route in routes)}
    return orjson.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": faults}})


def described(routes: Sequence[Route], headers: Mapping[str, str]) -> Encoded:
    """The description as a client wants it: compressed, or not at all where it has this one already (RFC 9110,
    section 13.1.2)."""
    coding = "gzip" if response_coding(headers.get("accept-encoding", "")) == "gzip" else ""
    body, tag = representation(routes, coding)
    told = [("Content-Type", JSON), ("ETag", tag), ("Vary", "Accept-Encoding")]
    known = {each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Encoded(304, told[1:], b"")
    return Encoded(200, [*told, ("Content-Encoding", coding)] if coding else told, body)


@lru_cache(maxsize=16)
def representation(routes: Sequence[Route], coding: str) -> tuple[bytes, str]:
    """Its bytes, and their strong tag."""
    body = document(routes)
    if coding:
        body = gzip.compress(body, mtime=0)
    return body, f'"{blake3(body).hexdigest(16)}"'


def own_version() -> str:
    """The installed version."""
    try:
        return version("rowserve")
    except PackageNotFoundError:
        return "0"


def fault_schema(table: RouteTable) -> dict[str, Any]:
    """What an error of the table looks like, by the look of one."""
    example = table.fault(Problem(400, "why"))
    if table.faults == TEXT:
        return {"type": "string"}
    if dict(example.headers)["Content-Type"] != table.faults:
        return {"type": "object"}
    members = {name: {"type": JSON_TYPES[type(value)]} for name, value in orjson.loads(example.body).items()}
    return {"type": "object", "required": list(members), "properties": members}


def described_methods(route: Route) -> tuple[str, ...]:
    """The methods that are described: of a route that takes any, the one that most clients use."""
    if route.method != ANY:
        return route.methods
    return ("POST",) if route.takes else ("GET",)


def operation(route: Route, method: str) -> dict[str, Any]:
    """One method of one path."""
    names = re.findall(r"{(\w+)}", route.path)
    parameters = [path_parameter(name) for name in names] + [query_parameter(each) for each in route.query]
    if route.takes:
        parameters += [header_parameter(name, text) for name, text in HEADERS]
    responses: dict[str, Any] = {}
    if route.gives:
        responses["200"] = {"description": "OK", "content": {route.gives: {"schema": schema(route.gives)}}}
    wrong = {route.table.faults: {"schema": {"$ref": f"#/components/schemas/{route.table.name}"}}}
    for status in route.statuses:
        responses[str(status)] = {"description": phrase(status), "content": wrong}
    described: dict[str, Any] = {
        "operationId": operation_id(method, route),
        "tags": [route.table.name],
        "summary": route.text if route.method != ANY else f"{route.text} Any method will do.",
        "parameters": parameters,
        "responses": responses,
    }
    if route.takes:
        content = {kind: {"schema": schema(kind)} for kind in route.takes}
        described["requestBody"] = {"required": True, "content": content}
    return described


def operation_id(method: str, route: Route) -> str:
    """`post_images_model`, and so on; two paths may differ in nothing but a slash at the end."""
    return "_".join([method.lower(), *re.findall(r"\w+|/$", route.path)]).replace("/", "slash")


def schema(content_type: str) -> dict[str, Any]:
    """What is known of a body of that type."""
    if content_type == FORM:
        return FORM_SCHEMA
    if content_type == NDJSON:
        return LINE_SCHEMA
    if content_type == JSON:
        return {"type": "object"}
    return {"type": "string"} if content_type.startswith("text/") else ANYTHING


def path_parameter(name: str) -> dict[str, Any]:
    """A part of the path."""
    pattern = {"type": "string", "pattern": PATH_PATTERNS[name]}
    return {"name": name, "in": "path", "required": True, "schema": pattern}


def query_parameter(parameter: Parameter) -> dict[str, Any]:
    """A field of the query."""
    kind: dict[str, Any] = {"type": "string"}
    if parameter.values:
        kind["enum"] = list(parameter.values)
    return {"name": parameter.name, "in": "query", "description": parameter.text, "schema": kind}


def header_parameter(name: str, text: str) -> dict[str, Any]:
    """A request header."""
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
