"""Tables of routes, one a protocol, and the Klein map that a listener's profile makes of them. Reactor thread.

A route is written once: what answers it, and what /openapi.json says of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

from klein import Klein
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, RequestRedirect

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem
from rowserve.server.bodies import BodySink
from rowserve.server.body_schemas import NOTHING, OBJECT, Content, Schema
from rowserve.server.faults import NotAllowed, native_fault, with_hints
from rowserve.server.target import decoded, fixed_path

if TYPE_CHECKING:
    from rowserve.server.request import ApiRequest

Opened = BodySink | Encoded
Handler = TypeVar("Handler", bound="Callable[..., Opened]")
Fault = Callable[[Problem], Encoded]

ASKING = (400, 404, 408, 413, 415, 500, 503, 504)
ANY = "*"
OPTIONAL = re.compile(r"\[(.*?)\]")
# So many matches of paths are kept, of paths so long.
MATCHES = 1024
MATCHED_LENGTH = 256
ANY_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query."""

    name: str
    text: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method (or ANY) on one path (`rule`, as Klein takes it). `takes` and `gives` are what bodies may be (`gives`
    is None where it is never served, and says so in its protocol's words); `statuses` are those beside 200, of which
    `states` may have a body in the form of the 200's. `other_fault` is a second form of its faults."""

    table: RouteTable
    method: str
    rule: str
    open: Callable[..., Opened]
    text: str
    gives: Content | None
    takes: Content
    query: tuple[Parameter, ...]
    statuses: tuple[int, ...]
    states: tuple[int, ...] = ()
    other_fault: Fault | None = None

    @property
    def path(self) -> str:
        """The path as metrics and the description have it: `/images/{model}`."""
        return self.rule.replace("<", "{").replace(">", "}")

    @property
    def refused(self) -> bool:
        """Whether it only says that the method does not work there."""
        return self.gives is None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods it takes."""
        return ANY_METHODS if self.method == ANY else (self.method,)


class RouteTable:
    """The routes of one protocol.

    `fault` writes its errors, on its routes and on unknown paths that begin with one of `prefixes`. `unknown` is given
    what is wrong with such a path, and says it in the protocol's own words, or answers it; `preflight` answers OPTIONS,
    where the protocol has an answer of its own to it. Prefixes are written in lower case, and stand for any case.
    """

    def __init__(
        self,
        name: str,
        *,
        fault: Fault,
        prefixes: Sequence[str] = (),
        unknown: Callable[[ApiRequest, Problem], Problem | Opened] | None = None,
        preflight: Callable[[ApiRequest], Encoded | None] | None = None,
    ) -> None:
        self.name = name
        self.fault = fault
        self.prefixes = tuple(prefixes)
        self.unknown = unknown
        self.preflight = preflight
        self.routes: list[Route] = []

    def with_fault(self, fault: Fault) -> RouteTable:
        """The same routes, whose errors are written in another way."""
        table = copy(self)
        table.fault = fault
        table.routes = [replace(route, table=table) for route in self.routes]
        return table

    def route(
        self,
        method: str,
        rule: str,
        text: str,
        *,
        gives: Content | None = OBJECT,
        takes: Content = NOTHING,
        query: tuple[Parameter, ...] = (),
        statuses: tuple[int, ...] = (),
        states: tuple[int, ...] = (),
        other_fault: Fault | None = None,
    ) -> Callable[[Handler], Handler]:
        """Puts a function `(api, request, **parts of the path)` into the table; what stands in [] may be left out."""

        def put(handler: Handler) -> Handler:
            for path in dict.fromkeys((OPTIONAL.sub("", rule), OPTIONAL.sub(r"\1", rule))):
                described = (text, gives, takes, query, statuses, states, other_fault)
                self.routes.append(Route(self, method, path, handler, *described))
            return handler

        return put


class Name(BaseConverter):
    """A part of a path that is a name: a colon ends it, as a verb follows (`m:predict`)."""

    regex = "[^/:]+"
    part_isolating = True


class Router:
    """What answers a request: tables in their order; of two routes alike the first counts."""

    def __init__(self, tables: Sequence[RouteTable]) -> None:
        self.tables = tables
        self._klein = Klein()
        # A path is what it is: a rule of a proxy in front must not be walked around by another spelling.
        self._klein.url_map.merge_slashes = False
        self._klein.url_map.converters = {**self._klein.url_map.converters, "default": Name}
        self._routes: dict[str, Route] = {}
        taken: set[tuple[str, str]] = set()
        for table in tables:
            for route in table.routes:
                form = re.sub(r"<[^>]*>", "<>", route.rule)
                methods = [method for method in route.methods if (method, form) not in taken]
                taken.update((method, form) for method in methods)
                if methods:
                    self._add(route, methods)
        self._map = self._klein.url_map.bind("localhost")
        self._matched = lru_cache(maxsize=MATCHES)(self._find)

    def _add(self, route: Route, methods: Sequence[str]) -> None:
        def opened(request: Any, **parts: str) -> Any:
            return route.open(request.api, request, **parts)

        endpoint = f"{route.method} {route.rule} {route.table.name}"
        self._routes[endpoint] = route
        self._klein.route(route.rule, methods=methods, endpoint=endpoint)(opened)

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """All that can be reached."""
        return tuple(self._routes.values())

    def open(self, request: ApiRequest) -> Opened:
        """Calls what answers the request. Raises Problem; sets the form in which faults are written."""
        table = self._table_of(request.path)
        request.problem_form = native_fault if table is None else fault_form(table)
        method, path = request.method.decode("ascii"), fixed_path(request.path)
        if method == "OPTIONS":
            return self._options(request, table, path)
        try:
            if not method.isupper():  # they are case-sensitive (RFC 9110, section 9.1), which werkzeug does not know
                raise MethodNotAllowed
            endpoint, raw = self._match(path, method)
        except MethodNotAllowed:
            allowed = self._allowed(path)
            wrong = NotAllowed(method, path[:200], allowed) if allowed else nothing_at(path)
            return self._unknown(request, table, wrong)
        except (HTTPException, RequestRedirect):
            return self._unknown(request, table, nothing_at(path))
        parts = raw if "%" not in path else {name: decoded(part) for name, part in raw.items()}
        route = self._routes[endpoint]
        request.route = route.path
        request.problem_form = fault_form(route.table, self._allowed(path) if route.refused else ())
        return cast("Opened", self._klein.execute_endpoint(endpoint, cast("Any", request), **parts))

    def _match(self, path: str, method: str) -> tuple[str, Mapping[str, str]]:
        """The endpoint, and the parts of the path; those of long paths are not kept. Raises HTTPException."""
        return self._matched(path, method) if len(path) <= MATCHED_LENGTH else self._find(path, method)

    def _allowed(self, path: str) -> set[str]:
        """The methods that work there, OPTIONS among them; none where there is nothing."""
        known = () if path.startswith("//") else tuple(self._map.allowed_methods(path))
        working = {method for method in known if not self._routes[self._match(path, method)[0]].refused}
        return {*working, "OPTIONS"} if known else set()

    def _find(self, path: str, method: str) -> tuple[str, Mapping[str, str]]:
        if path.startswith("//"):
            raise NotFound  # werkzeug would see one slash
        rule, parts = self._map.match(path, method, return_rule=True)
        return str(rule.endpoint), parts

    def fault_form_at(self, path: bytes) -> Fault:
        """The form of faults below the path, as its beginning tells."""
        table = self._table_of(path)
        return native_fault if table is None else fault_form(table)

    def _table_of(self, path: bytes) -> RouteTable | None:
        text = path.decode("latin-1").lower()
        return next((table for table in self.tables if text.startswith(table.prefixes)), None)

    def _unknown(self, request: ApiRequest, table: RouteTable | None, problem: Problem) -> Opened:
        path = fixed_path(request.path)
        if "%" in path and not self._allowed(path) and self._allowed(unquote(path)):
            raise nothing_at(path)  # an escape is no other spelling of a word
        told = problem if table is None or table.unknown is None else table.unknown(request, problem)
        if isinstance(told, Problem):
            raise told from None
        return told

    def _options(self, request: ApiRequest, table: RouteTable | None, path: str) -> Opened:
        allowed = {"OPTIONS"} if path == "*" else self._allowed(path)
        own = None if table is None or table.preflight is None else table.preflight(request)
        if not allowed:
            return self._unknown(request, table, nothing_at(path)) if own is None else own
        answer = own or Encoded(204, [], b"")
        answer.headers = [*answer.headers, ("Allow", ", ".join(sorted(allowed)))]
        return answer


def fault_form(table: RouteTable, allowed: Iterable[str] = ()) -> Fault:
    """How the table writes a fault; `allowed` are the methods that work there, where the route itself is refused."""
    return lambda problem: with_hints(problem, table.fault(problem), allowed)


def nothing_at(path: str) -> Problem:
    """404 of a path."""
    return Problem(404, f"there is nothing at {path[:200]}; /openapi.json describes what there is")
