"""The description: what is said of routes, of errors, and of two routes alike."""

from __future__ import annotations

import gzip
import json
from typing import Any

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem_json import encode_problem
from rowserve.server.openapi import document
from rowserve.server.routing import ANY, BINARY, JSON, PROBLEM, TEXT, Router, RouteTable
from tests.http_doubles import Server


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is called")


def described(*tables: RouteTable) -> Any:
    return json.loads(document(Router(tables).routes))


ONE = RouteTable("one", fault=encode_problem, faults=PROBLEM)
ONE.route("GET", "/both/<model>", "One's.", statuses=(404,))(never)
ONE.route("POST", "/first/<model>", "One's.")(never)
TWO = RouteTable("two", fault=lambda problem: Encoded(problem.status, [("Content-Type", TEXT)], b"why"), faults=TEXT)
TWO.route(ANY, "/both/<model>", "Two's.", takes=(BINARY,), gives=BINARY, statuses=(400,))(never)
TWO.route(ANY, "/first/<model>", "Two's.", takes=(BINARY,))(never)
TWO.route(ANY, "/plain", "Plain.")(never)
TWO.route("DELETE", "/never", "Not served.", gives="", statuses=(501,))(never)
STATE = RouteTable("state", fault=encode_problem, faults=JSON)
STATE.route("GET", "/state", "A state.", statuses=(503,))(never)


def test_of_two_routes_alike_the_first_is_described():
    paths = described(ONE, TWO)["paths"]["/both/{model}"]
    assert {method: op["summary"] for method, op in paths.items()} == {
        "get": "One's.",
        "post": "Two's. Any method will do.",
    }
    assert paths["get"]["tags"] == ["one"]
    (first,) = described(ONE, TWO)["paths"]["/first/{model}"].values()
    assert first["summary"] == "One's."


def test_any_method_is_described_as_the_one_that_clients_use():
    paths = described(TWO)["paths"]
    assert list(paths["/both/{model}"]) == ["post"]
    assert list(paths["/plain"]) == ["get"]


def test_what_is_never_served_has_no_200():
    assert list(described(TWO)["paths"]["/never"]["delete"]["responses"]) == ["501"]


def test_errors_look_as_their_table_writes_them():
    told = described(ONE, TWO, STATE)
    assert told["paths"]["/both/{model}"]["get"]["responses"]["404"]["content"] == {
        PROBLEM: {"schema": {"$ref": "#/components/schemas/one"}}
    }
    assert told["components"]["schemas"] == {
        "one": {
            "type": "object",
            "required": ["type", "status", "title", "detail"],
            "properties": {
                "type": {"type": "string"},
                "status": {"type": "integer"},
                "title": {"type": "string"},
                "detail": {"type": "string"},
            },
        },
        "two": {"type": "string"},
        "state": {"type": "object"},
    }


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
