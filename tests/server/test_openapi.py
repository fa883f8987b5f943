"""The description: what is said of routes, of errors, and of two routes alike."""

from __future__ import annotations

import gzip
import json
from typing import Any

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import encode_problem
from rowserve.server.body_schemas import BINARY, JSON, PROBLEM, TENSORS, TEXT
from rowserve.server.openapi import document
from rowserve.server.routing import ANY, Router, RouteTable
from tests.http_doubles import Server


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is called")


def described(*tables: RouteTable) -> Any:
    return json.loads(document(Router(tables).routes))


def in_plain_words(problem: Problem) -> Encoded:
    return Encoded(problem.status, [("Content-Type", f"{TEXT}; charset=utf-8")], b"why")


def in_json(problem: Problem) -> Encoded:
    return Encoded(problem.status, [("Content-Type", JSON)], b'{"error": "why"}')


ONE = RouteTable("one", fault=encode_problem)
ONE.route("GET", "/both/<model>", "One's.", statuses=(404,))(never)
ONE.route("POST", "/first/<model>", "One's.")(never)
TWO = RouteTable("two", fault=in_plain_words, prefixes=("/plain",))
TWO.route(ANY, "/both/<model>", "Two's.", takes=TENSORS, gives=TENSORS, statuses=(415, 503))(never)
TWO.route(ANY, "/first/<model>", "Two's.", takes=TENSORS)(never)
TWO.route(ANY, "/plain", "Plain.")(never)
TWO.route("DELETE", "/never", "Not served.", gives=None, statuses=(501,))(never)
TWO.route("POST", "/forms", "In two forms.", statuses=(422,), other_fault=in_json)(never)
STATE = RouteTable("state", fault=in_json)
STATE.route("GET", "/state", "A state.", states=(503,))(never)
METHODS = {"get", "post", "put", "delete", "patch"}


def answers(told: Any, path: str, method: str = "get") -> dict[str, Any]:
    """The answers of an operation, by status."""
    found: dict[str, Any] = told["paths"][path][method]["responses"]
    known = told["components"]["responses"]
    return {status: known[each["$ref"].split("/")[-1]] if "$ref" in each else each for status, each in found.items()}


def forms(told: Any, path: str, status: int, method: str = "get") -> dict[str, Any]:
    """The content types of an answer, with the names of their schemas."""
    content = answers(told, path, method)[str(status)]["content"]
    return {kind: each["schema"].get("$ref", "").split("/")[-1] for kind, each in content.items()}


def test_of_two_routes_alike_the_first_is_described():
    paths = described(ONE, TWO)["paths"]["/both/{model}"]
    assert {method: op["summary"] for method, op in paths.items()} == {
        **dict.fromkeys(METHODS, "Two's."),
        "get": "One's.",
    }
    assert paths["get"]["tags"] == ["one"]
    assert described(ONE, TWO)["paths"]["/first/{model}"]["post"]["summary"] == "One's."


def test_any_method_is_described_as_each():
    paths = described(TWO)["paths"]
    assert set(paths["/both/{model}"]) == set(paths["/plain"]) == METHODS


def test_what_is_never_served_is_not_described():
    assert "/never" not in described(TWO)["paths"]


def test_errors_look_as_their_table_writes_them():
    told = described(ONE, TWO, STATE)
    assert forms(told, "/both/{model}", 500) == {PROBLEM: "one"}
    assert forms(told, "/both/{model}", 415, "put") == forms(told, "/both/{model}", 500, "put") == {TEXT: "two"}
    assert forms(told, "/forms", 422, "post") == {TEXT: "two", JSON: "two_other"}
    assert told["components"]["schemas"]["two"] == {"type": "string"}
    assert told["components"]["schemas"]["state"] == {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }


def test_what_is_found_before_the_route_has_the_native_form_and_at_the_door_that_of_the_path():
    told = described(ONE, TWO, STATE)
    for status in (408, 414, 431, 505):
        assert forms(told, "/plain", status) == {PROBLEM: "native"}
    assert forms(told, "/plain", 403) == {TEXT: "two"}
    assert forms(told, "/both/{model}", 403, "put") == {PROBLEM: "native"}
    assert forms(told, "/plain", 400) == {TEXT: "two", PROBLEM: "native"}


def test_a_state_has_the_form_of_the_answer():
    told = answers(described(STATE), "/state")
    assert told["503"]["content"] == told["200"]["content"] == {JSON: {"schema": {"type": "object"}}}


def test_answers_say_what_they_say_beside_their_bodies():
    told = answers(described(TWO), "/both/{model}", "post")
    assert [set(told[status].get("headers", {})) for status in ("200", "415", "503", "500")] == [
        {"Cache-Status", "Server-Timing"},
        {"Accept-Encoding"},
        {"Retry-After"},
        set(),
    ]
    assert set(told["200"]["content"]) == {BINARY}


def test_the_description_has_a_tag_and_is_not_sent_again():
    server = Server()
    first = server.request("GET", "/openapi.json")
    tag = first.headers["etag"]
    for told in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = server.request("GET", "/openapi.json", If_None_Match=told)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
    assert server.request("GET", "/openapi.json", If_None_Match='"other"').body == first.body
    assert server.request("HEAD", "/openapi.json").headers["etag"] == tag


def test_the_description_comes_compressed_where_that_is_wanted():
    server = Server()
    plain = server.request("GET", "/openapi.json")
    packed = server.request("GET", "/openapi.json", Accept_Encoding="gzip, br")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 5
    assert packed.headers["etag"] != plain.headers["etag"]
    assert {plain.headers["vary"], packed.headers["vary"]} == {"Accept-Encoding"}
    assert "content-encoding" not in server.request("GET", "/openapi.json", Accept_Encoding="br").headers
