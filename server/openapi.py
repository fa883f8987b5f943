"""GET /openapi.json: OpenAPI 3.1, made of the tables of routes. Pure functions."""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import orjson
from blake3 import blake3

from rowserve.handlers.http_headers import SECONDS, response_coding
from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem, phrase
from rowserve.server.body_schemas import JSON
from rowserve.server.faults import native_fault
from rowserve.server.routing import Parameter, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rowserve.server.body_schemas import Content
    from rowserve.server.routing import Fault

JSON_TYPES = {str: "string", int: "integer"}
PATH_PATTERNS = {
    "model": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$",
    "version": "^[0-9]{1,18}$",
    "repository": "^[^/:]+$",
    "region": "^[^/:]+$",
}
HEADERS = (
    Parameter(
        "Cache-Control", "no-store, no-cache, only-if-cached, max-age=N: what the row cache may do for this request."
    ),
    Parameter(
        "Rowserve-Throw-Away",
        "1: these rows meet nobody else's in the row cache, and are forgotten soon.",
        {"enum": ["0", "1"]},
    ),
    Parameter(
        "Request-Timeout",
        "Seconds until rows that are not answered get a 504.",
        {"type": "string", "pattern": f"^{SECONDS.pattern}$"},
    ),
)
# What any request may get: before its route is known (a head that cannot be read, or that comes too slowly), at the
# door (who may not ask, a query that cannot be parsed), and from its route (too large a body, a fault of ours).
BEFORE_ROUTING = (400, 408, 414, 431, 505)
AT_THE_DOOR = (400, 403)
ON_EACH_ROUTE = (413, 500)
NATIVE = "native"
# What an answer says beside its body.
SAYS = {
    "Cache-Status": "Whether the rows were in the row cache (RFC 9211).",
    "Server-Timing": "Where the time went, in milliseconds.",
    "ETag": "The tag of this representation.",
    "Vary": "What the representation follows from.",
    "Retry-After": "The seconds after which to ask again.",
    "Accept-Encoding": "The content codings that a request may have.",
}
SAID_WITH = {415: ("Accept-Encoding",), 501: ("Accept-Encoding",), 503: ("Retry-After",)}


@lru_cache(maxsize=8)
def document(routes: Sequence[Route]) -> bytes:
    """The whole description; of two routes alike, as everywhere, the first counts."""
    faults = Faults(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        for method in () if route.refused else route.methods:
            paths.setdefault(route.path, {}).setdefault(method.lower(), operation(route, method, faults))
    told = "Answers rows, each computed once. HEAD works where GET does, and OPTIONS everywhere."
    info = {"title": "rowserve", "version": own_version(), "description": told}
    return orjson.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": faults.components})


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


class Faults:
    """The answers that tell of faults, each written once: `components`, as OpenAPI has them."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._tables = tuple(dict.fromkeys(route.table for route in routes))
        self._forms: dict[str, Content] = {}
        self._responses: dict[str, Any] = {}
        self._schemas: dict[str, Any] = {}
        self.components = {"schemas": self._schemas, "responses": self._responses}
        self._learn(NATIVE, native_fault)
        for table in self._tables:
            self._learn(table.name, table.fault)
        for route in routes:
            if route.other_fault is not None:
                self._learn(other(route), route.other_fault)

    def _learn(self, name: str, fault: Fault) -> None:
        """What a fault looks like, by the look of one."""
        example = fault(Problem(400, "why"))
        kind = dict(example.headers)["Content-Type"].partition(";")[0]
        self._schemas[name] = flat_object(example.body) if kind.endswith("json") else {"type": "string"}
        self._forms[name] = {kind: {"$ref": f"#/components/schemas/{name}"}}

    def at(self, route: Route, status: int) -> dict[str, Any]:
        """What the route answers with that status."""
        path = route.rule.lower()
        door = next((table.name for table in self._tables if path.startswith(table.prefixes)), NATIVE)
        names = dict.fromkeys(
            name
            for name, statuses in (
                (route.table.name, (*route.statuses, *ON_EACH_ROUTE)),
                (other(route), route.statuses if route.other_fault is not None else ()),
                (door, (*AT_THE_DOOR, *unknown_names(route))),
                (NATIVE, BEFORE_ROUTING),
            )
            if status in statuses
        )
        forms = [self._forms[name] for name in names]
        says = SAID_WITH.get(status, ())
        if status in route.states:
            return response(phrase(status), either([*forms, route.gives or {}]), says)
        key = f"{status}_{'_'.join(names)}"
        self._responses[key] = response(phrase(status), either(forms), says)
        return {"$ref": f"#/components/responses/{key}"}


def other(route: Route) -> str:
    """The name of a second form of faults."""
    return f"{route.table.name}_other"


def flat_object(body: bytes) -> dict[str, Any]:
    """The schema of a flat object like this one."""
    members = {name: {"type": JSON_TYPES[type(value)]} for name, value in orjson.loads(body).items()}
    return {"type": "object", "required": list(members), "properties": members}


def either(contents: Iterable[Content]) -> Content:
    """A body that is one of these."""
    told: dict[str, list[Any]] = {}
    for content in contents:
        for kind, schema in content.items():
            told.setdefault(kind, []).append(schema)
    return {kind: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for kind, schemas in told.items()}


def response(text: str, content: Content, says: Iterable[str] = ()) -> dict[str, Any]:
    """An answer; what it says in its head it may leave out."""
    told: dict[str, Any] = {"description": text}
    if says:
        told["headers"] = {name: {"description": SAYS[name], "schema": {"type": "string"}} for name in says}
    if content:
        told["content"] = {kind: {"schema": schema} for kind, schema in content.items()}
    return told


def operation(route: Route, method: str, faults: Faults) -> dict[str, Any]:
    """One method of one path."""
    names = re.findall(r"{(\w+)}", route.path)
    parameters = [path_parameter(name) for name in names] + [parameter(each, "query") for each in route.query]
    if route.takes:
        parameters += [parameter(each, "header") for each in HEADERS]
    described: dict[str, Any] = {
        "operationId": operation_id(method, route),
        "tags": [route.table.name],
        "summary": route.text,
        "parameters": parameters,
        "responses": responses(route, faults),
    }
    if route.takes:
        content = {kind: {"schema": schema} for kind, schema in route.takes.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def responses(route: Route, faults: Faults) -> dict[str, Any]:
    """All that the route may answer, by status."""
    content = route.gives or {}
    if 304 in route.statuses:
        says: tuple[str, ...] = ("ETag", "Vary")
    else:
        says = ("Cache-Status", "Server-Timing") if route.takes else ()
    told = {200: response("OK", content, says)}
    own = (*route.statuses, *route.states, *unknown_names(route))
    for status in sorted({*own, *BEFORE_ROUTING, *AT_THE_DOOR, *ON_EACH_ROUTE}):
        told[status] = response(phrase(status), {}, says) if status == 304 else faults.at(route, status)
    return {str(status): each for status, each in told.items()}


def operation_id(method: str, route: Route) -> str:
    """`post_images_model`, and so on; two paths may differ in nothing but a slash at the end."""
    return "_".join([method.lower(), *re.findall(r"\w+|/$", route.path)]).replace("/", "slash")


def unknown_names(route: Route) -> tuple[int, ...]:
    """404, where the path has names."""
    return (404,) if "<" in route.rule else ()


def path_parameter(name: str) -> dict[str, Any]:
    """A part of the path."""
    pattern = {"type": "string", "pattern": PATH_PATTERNS[name]}
    return {"name": name, "in": "path", "required": True, "schema": pattern}


def parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    """A field of the query, or of the head."""
    return {"name": parameter.name, "in": place, "description": parameter.text, "schema": parameter.schema}
