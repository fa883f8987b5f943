"""Tables of routes: which answers, in which form faults come, and what a profile leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem
from rowserve.server.routing import ANY, Router, RouteTable


def says(word: str) -> Any:
    return lambda api, request, **parts: Encoded(200, [], f"{word} {sorted(parts.items())}".encode())


def fault(word: str) -> Any:
    return lambda problem: Encoded(problem.status, [], f"{word}: {problem.detail}".encode())


ONE = RouteTable("one", fault=fault("one"), prefixes=("/one/",))
ONE.route("GET", "/one/<model>[/versions/<version>]", "One.")(says("one"))
ONE.route("GET", "/both/<model>", "Both.")(says("one"))
OWN = Problem(400, "two's own words")


def own_words(request: Any, problem: Problem) -> Problem:
    return OWN


TWO = RouteTable("two", fault=fault("two"), prefixes=("/two/",), unknown=own_words)
TWO.route("GET", "/both/<name>", "Both.")(says("two"))
TWO.route(ANY, "/two/<name>", "Any method.")(says("two"))


class Head:
    """The head of a request."""

    api = None
    route = "other"
    problem_form: Any = None

    def __init__(self, method: str, path: str) -> None:
        self.method = method.encode()
        self.path = path.encode()


def asked(router: Router, method: str, path: str) -> tuple[int, str]:
    head: Any = Head(method, path)
    try:
        answer: Any = router.open(head)
    except Problem as problem:
        answer = head.problem_form(problem)
    return answer.status, answer.body.decode()


def test_what_stands_in_brackets_may_be_left_out():
    router = Router([ONE])
    assert asked(router, "GET", "/one/m") == (200, "one [('model', 'm')]")
    assert asked(router, "GET", "/one/m/versions/3") == (200, "one [('model', 'm'), ('version', '3')]")
    assert {route.path for route in router.routes} >= {"/one/{model}", "/one/{model}/versions/{version}"}


def test_of_two_routes_alike_the_first_table_counts():
    assert asked(Router([ONE, TWO]), "GET", "/both/m")[1].startswith("one")
    assert asked(Router([TWO, ONE]), "GET", "/both/m")[1].startswith("two")
    assert [route.table.name for route in Router([TWO, ONE]).routes].count("one") == 2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_any_method(method: str):
    assert asked(Router([TWO]), method, "/two/m")[0] == 200


def test_a_fault_has_the_form_of_the_path():
    router = Router([ONE, TWO])
    assert asked(router, "GET", "/one/m/what") == (
        404,
        "one: there is nothing at /one/m/what; /openapi.json describes what there is",
    )
    assert asked(router, "GET", "/two/m/what") == (400, "two: two's own words")
    assert asked(router, "POST", "/one/m") == (405, "one: /one/m takes GET, HEAD, OPTIONS, not POST")
    assert '"status":404' in asked(router, "GET", "/three")[1].replace(" ", "")


def test_a_route_is_known_by_its_pattern():
    head: Any = Head("GET", "/both/m")
    Router([ONE]).open(head)
    assert head.route == "/both/{model}"
