"""Whom a listener answers: rules as values, and what becomes of requests that they refuse or let a page read."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rowserve.handlers.problem import Problem
from rowserve.server.listener import ApiSite
from rowserve.server.origins import MOST_KNOWN, Authority, Origin, OriginRule, is_loopback
from rowserve.server.principal import ANYBODY
from rowserve.server.request_head import read_head
from rowserve.server.routing import Router
from tests.http_doubles import FORM, Client, Reply, Server, chunked, form

PREDICT = "/v1/models/m:predict"
BODY = b'{"instances": [[1, 2]]}'
PAGE, FOREIGN = "https://page.example", "https://foreign.example"
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
GOING = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
READABLE = {"access-control-allow-origin", "access-control-expose-headers", "vary"}

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z][a-z0-9]{0,5}){0,3}", fullmatch=True)
ports = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))


def guarded(bound: str = "127.0.0.1", hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> Server:
    """A server behind the rule of a listener that is bound to an address."""
    server = Server()
    server.site.authorize = OriginRule.of(bound, hosts, origins).authorize
    return server


def raw(method: str, target: str, host: str | None, headers: dict[str, str], body: bytes | None = None) -> bytes:
    told = {**({} if host is None else {"Host": host}), **headers}
    if body is not None:
        told["Content-Length"] = str(len(body))
    version = "HTTP/1.0" if host is None else "HTTP/1.1"
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {target} {version}\r\n{lines}\r\n".encode("latin-1") + (body or b"")


def asked(
    server: Server, method: str, target: str, host: str | None, body: Any = None, **headers: Any
) -> Reply:
    """The answer to a request on a connection of its own; underscores in names of headers stand for dashes."""
    client = server.connect()
    client.send(raw(method, target, host, {name.replace("_", "-"): value for name, value in headers.items()}, body))
    return client.reply(head=method == "HEAD")


def authorized(rule: OriginRule, host: str | None, target: str = "/livez", method: str = "GET", **headers: str) -> Any:
    return rule.authorize(read_head(raw(method, target, host, {k.replace("_", "-"): v for k, v in headers.items()})))


def refused(rule: OriginRule, host: str | None, target: str = "/livez", **headers: str) -> bool:
    try:
        authorized(rule, host, target, **headers)
    except Problem as problem:
        assert problem.status == 403  # noqa: PT017
        assert "[http] " in problem.detail  # noqa: PT017
        return True
    return False


# Hosts

LOOPBACK_RULE = OriginRule.of("127.0.0.1", (), ())
EACH_LOOPBACK = [
    "localhost", "localhost:8080", "LOCALHOST:1", "localhost.", "a.localhost:80", "a.b.localhost", "127.0.0.1",
    "127.0.0.1:8080", "127.1.2.3:9", "127.255.255.255",
    "[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "localhost:", "127.0.0.1.",
]  # fmt: skip
NONE_LOOPBACK = [
    "", ":8080", "rebound.example", "rebound.example:8080", "localhost.example", "xlocalhost",
    "localhost.evil.example:8080",
    "127.0.0.1.example", "1270.0.0.1", "127.0.0.256", "128.0.0.1", "10.0.0.7:8080", "0.0.0.0", "[::]",
    "[::2]:8080", "[::ffff:10.0.0.7]", "local%68ost", "localhost,evil.example", "127.0.0.1,x",
]  # fmt: skip


@pytest.mark.parametrize("host", EACH_LOOPBACK)
@pytest.mark.parametrize("bound", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_a_loopback_listener_answers_to_loopback_names_and_addresses_at_any_port(bound: str, host: str):
    assert authorized(OriginRule.of(bound, (), ()), host) is ANYBODY


@pytest.mark.parametrize("host", NONE_LOOPBACK)
def test_a_loopback_listener_answers_to_no_other_host(host: str):
    assert refused(LOOPBACK_RULE, host)


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.0.0.7", "fe80::1", "", "/run/rowserve.sock", "unix"])
@pytest.mark.parametrize("host", ["rebound.example", "10.0.0.7:8080", "localhost", ""])
def test_any_other_listener_answers_to_every_host(bound: str, host: str):
    assert authorized(OriginRule.of(bound, (), ()), host) is ANYBODY


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("models.example.org", True), ("MODELS.example.org.:443", True), ("api.example.org:8080", True),
        ("localhost:8080", True),
        ("api.example.org", False), ("api.example.org:8081", False), ("example.net", False),
        ("a.example.net", True),
        ("a.b.example.net:1", True), ("a.example.net.evil.example", False), ("aexample.net", False),
        ("10.0.0.7:8080", True),
        ("10.0.0.8:8080", False), ("[fe80::1]:8080", True), ("other.example.org", False),
    ],
)  # fmt: skip
def test_hosts_of_the_settings_are_answered_and_loopback_ones_and_no_others(bound: str, host: str, answered: bool):
    hosts = ("models.example.org", "api.example.org:8080", "*.example.net", "10.0.0.7", "[FE80::1]:8080")
    assert refused(OriginRule.of(bound, hosts, ()), host) is not answered


def test_http_1_0_may_come_without_a_host_but_not_with_a_foreign_one():
    assert authorized(LOOPBACK_RULE, None) is ANYBODY
    with_host = read_head(b"GET /livez HTTP/1.0\r\nHost: rebound.example\r\n\r\n")
    with pytest.raises(Problem, match="rebound.example"):
        LOOPBACK_RULE.authorize(with_host)
    assert refused(LOOPBACK_RULE, None, Origin="http://localhost")  # of nobody's page


@pytest.mark.parametrize(
    ("target", "host", "answered"),
    [
        ("http://localhost:8080/livez", "rebound.example", True),
        ("HTTPS://[::1]/livez", "rebound.example", True),
        ("http://rebound.example/livez", "localhost", False),
        ("hTTp://rebound.example", "localhost", False),
        ("http://rebound.example?a=//localhost/", "localhost", False),
        ("http://localhost@rebound.example/", "localhost", False),
        ("http://me@localhost/", "localhost", False),
        ("//rebound.example/livez", "localhost", True),  # a path (RFC 9112, section 3.2.1)
    ],
)
def test_whom_an_absolute_target_names_counts_before_host(target: str, host: str, answered: bool):
    assert refused(LOOPBACK_RULE, host, target) is not answered


def test_the_host_of_an_absolute_target_is_what_an_origin_is_held_against():
    assert refused(LOOPBACK_RULE, "a.localhost", "http://b.localhost/", Origin="http://a.localhost")
    assert not refused(LOOPBACK_RULE, "a.localhost", "http://b.localhost/", Origin="http://b.localhost")


@given(names, ports)
@example("localhost", ":1")
@example("localhost.example", "")
def test_of_names_only_localhost_and_those_below_it_are_loopback(name: str, port: str):
    below = name.split(".")[-1] == "localhost"
    assume(not name.replace(".", "").isdigit())
    assert refused(LOOPBACK_RULE, name + port) is not below
    assert not refused(LOOPBACK_RULE, f"{name}.localhost{port}")


@given(st.integers(0, 2**32 - 1), ports)
@example(0x7F000000, "")
@example(0x7FFFFFFF, ":8080")
@example(0x80000000, "")
def test_of_addresses_only_127_8_is_loopback(number: int, port: str):
    address = str(IPv4Address(number))
    inside = number >> 24 == 127
    assert is_loopback(address) is inside
    for host in (address, f"[::ffff:{address}]"):
        assert refused(LOOPBACK_RULE, host + port) is not inside


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40))
def test_whatever_a_host_or_an_origin_is_a_rule_answers_or_refuses(text: str):
    rule = OriginRule.of("127.0.0.1", ("a.example", "*.b.example"), (PAGE,))
    for head in (
        f"GET / HTTP/1.1\r\nHost: {text}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {text}\r\n\r\n",
    ):
        try:
            read = read_head(head.encode("latin-1"))
        except Problem:  # which others test
            continue
        try:
            assert rule.authorize(read).origin in ("", PAGE)
        except Problem as problem:
            assert problem.status == 403  # noqa: PT017


# Pages


@pytest.mark.parametrize("host", ["localhost:8080", "models.example.org", "models.example.org:80", "10.0.0.7"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_page_of_our_own_may_ask_whatever_its_scheme(host: str, scheme: str):
    rule = OriginRule.of("0.0.0.0", (), ())
    for site in ("same-origin", "none"):
        told = authorized(rule, host, method="POST", Origin=f"{scheme}://{host}", Sec_Fetch_Site=site)
        assert told is ANYBODY


@pytest.mark.parametrize(
    ("origin", "host", "ours"),
    [
        ("https://models.example.org", "models.example.org:443", True),
        ("http://models.example.org", "models.example.org:80", True),
        ("http://Models.example.org.", "models.example.org", True),
        ("https://models.example.org", "models.example.org:80", False),
        ("https://models.example.org", "models.example.org:8080", False),
        ("http://localhost:3000", "localhost:8080", False),
        ("http://localhost:8080", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://evil.models.example.org", "models.example.org", False),
        ("https://models.example.org.evil.example", "models.example.org", False),
        ("https://models.example.org/", "models.example.org", False),
        ("https://me@models.example.org", "models.example.org", False),
        ("models.example.org", "models.example.org", False),
        ("://models.example.org", "models.example.org", False),
        ("null", "null", False),
        ("", "", False),
        ("http://", "", False),
        ("file://", "models.example.org", False),
        ("https://models.example.org, https://foreign.example", "models.example.org", False),
        ("https://models.example.org https://foreign.example", "models.example.org", False),
        ("chrome-extension://abcdef", "models.example.org", False),
    ],
)
def test_a_page_is_ours_by_the_authority_of_its_origin(origin: str, host: str, ours: bool):
    assert refused(OriginRule.of("0.0.0.0", (), ()), host, Origin=origin) is not ours


def test_two_origins_are_none_of_ours():
    head = b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nOrigin: http://a\r\n\r\n"
    with pytest.raises(Problem, match="'http://a, http://a'"):
        OriginRule().authorize(read_head(head))


@given(names, ports, names, ports, st.sampled_from(["http", "https"]))
def test_a_page_is_ours_only_under_the_same_name_and_port(name, port, other, at, scheme):
    assert Origin.read(f"{scheme}://{name}{port}") is not None
    own = Origin.read(f"{scheme}://{name}{port}")
    assert own is not None
    assert own.is_of(Authority.read(f"{name.upper()}{port}"))
    default = {"http": ":80", "https": ":443"}[scheme]
    same = (name, port or default) == (other, at or default)
    assert own.is_of(Authority.read(f"{other}{at}")) is same


@given(names, ports, st.sampled_from(["http", "https", "chrome-extension"]))
def test_an_origin_of_the_settings_lets_that_origin_in_and_no_other(name, port, scheme):
    rule = OriginRule.of("0.0.0.0", (), (f"{scheme.upper()}://{name}{port}",))
    origin = f"{scheme}://{name}{port}"
    assert authorized(rule, "a", Origin=origin).origin == origin
    for other in (
        f"{scheme}://x{name}{port}",
        f"x{scheme}://{name}{port}",
        f"{origin}0" if port else f"{origin}:81",
        "null",
    ):
        assert refused(rule, "a.invalid", Origin=other)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", "navigate", ""])
def test_what_another_site_sends_is_refused_but_for_going_there(method: str, mode: str):
    head = read_head(raw(method, "/livez", "localhost", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}))
    if (method, mode) == ("GET", "navigate"):
        assert LOOPBACK_RULE.authorize(head) is ANYBODY
    else:
        with pytest.raises(Problem, match=r"\[http\] origins"):
            LOOPBACK_RULE.authorize(head)


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_what_comes_from_our_own_site_or_from_nowhere_goes_on(site: str):
    assert authorized(LOOPBACK_RULE, "localhost", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") is ANYBODY
    assert refused(LOOPBACK_RULE, "localhost", Sec_Fetch_Site=site, Origin="http://localhost:3000")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "http://a",
        "a/b",
        "a:b",
        "*",
        "*.",
        "a.*",
        "**.a",
        "a b",
        "a,b",
        "::1",
        "[::1",
        "bücher.example",
        ".a",
        "a:",
        "@a",
    ],
)
def test_what_is_no_host_is_told_with_the_name_of_its_setting(entry: str):
    with pytest.raises(ValueError, match="^hosts: "):
        Authority.entry(entry)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "null",
        "a.example",
        "https://a.example/",
        "https://",
        "https://*.a.example",
        "https://a b",
        "//a",
        "1://a",
    ],
)
def test_what_is_no_origin_is_told_with_the_name_of_its_setting(entry: str):
    with pytest.raises(ValueError, match="^origins: "):
        Origin.entry(entry)


# What becomes of a request

REFUSED: dict[str, tuple[str, str, dict[str, str]]] = {  # host, the setting that is named, headers
    "host": ("rebound.example:8080", "[http] hosts", {}),
    "origin": ("localhost:8080", "[http] origins", {"Origin": FOREIGN}),
    "null": ("localhost:8080", "[http] origins", {"Origin": "null"}),
    "site": ("localhost:8080", "[http] origins", CROSS),
    "form": ("localhost:8080", "[http] origins", {**GOING, "Origin": FOREIGN}),
    "neighbour": (
        "localhost:8080",
        "[http] origins",
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    ),
}
each_refused = pytest.mark.parametrize("name", REFUSED)


@each_refused
@pytest.mark.parametrize(
    ("path", "more"),
    [
        (PREDICT, {}),
        ("/v2/models/m/infer", {}),
        ("/graphpipe/m", {}),
        ("/", {}),
        ("/rows/m", {"Content-Type": "text/plain"}),
        ("/images/m", FORM),
        ("/predictions/m", {"Content-Type": "application/json"}),
        ("/nothing", {}),
        ("/livez", {}),
    ],
)
def test_on_every_route_a_refusal_comes_before_any_of_the_body(name: str, path: str, more: dict[str, Any], monkeypatch):
    monkeypatch.setattr(Router, "open", lambda *_: pytest.fail("it is routed"))
    host, setting, headers = REFUSED[name]
    headers = {**headers, **{key.replace("_", "-"): value for key, value in more.items()}}
    for how in (
        {"Content-Length": "23"},
        {"Content-Length": "23", "Expect": "100-continue"},
        {"Transfer-Encoding": "chunked"},
    ):
        server = guarded()
        client = server.connect()
        client.send(raw("POST", path, host, {**headers, **how}))
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (403, "close")
        assert setting in reply.body.decode()
        assert not READABLE & reply.headers.keys()
        client.send(BODY)
        assert (client.wire.value(), server.pipeline.seen) == (b"", [])
        assert len(server.site.heads) == 0


@each_refused
@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/models/m", "/v2", "/", "/ping", "/x"]
)
def test_what_is_read_is_refused_alike_and_the_connection_kept(name: str, path: str):
    host, setting, headers = REFUSED[name]
    client = guarded().connect()
    for _ in range(2):
        client.send(raw("GET", path, host, headers))
        reply = client.reply()
        assert (reply.status, "connection" in reply.headers) == (403, False)
        assert setting in reply.body.decode()
    client.send(raw("GET", "/livez", "localhost", {}))
    assert client.reply().status == 200


@pytest.mark.parametrize(
    ("path", "profile", "members"),
    [
        (PREDICT, "native", {"error"}),
        ("/V1/models/m:predict", "tensorflow-serving", {"error"}),
        (PREDICT, "kserve", {"error"}),
        ("/v2/models/m/infer", "native", {"error"}),
        ("/rows/m", "native", {"type", "status", "title", "detail"}),
    ],
)
def test_a_refusal_has_the_form_of_its_protocol(path: str, profile: str, members: set[str]):
    server = Server()
    server.site = ApiSite(server.api, profile)
    server.site.authorize = LOOPBACK_RULE.authorize
    reply = asked(server, "POST", path, "rebound.example", BODY)
    assert (reply.status, reply.json.keys()) == (403, members)


def test_a_host_that_is_known_is_judged_anew_where_a_page_asks():
    rule = OriginRule.of("127.0.0.1", (), ())
    assert authorized(rule, "localhost") is authorized(rule, "localhost")
    for headers in ({"Origin": "https://page.example"}, {"Sec_Fetch_Site": "cross-site"}):
        with pytest.raises(Problem):
            authorized(rule, "localhost", **headers)
    with pytest.raises(Problem):
        authorized(rule, "localhost", target="http://rebound.example/livez")
    for _ in range(2):
        with pytest.raises(Problem):
            authorized(rule, "rebound.example")


def test_hosts_that_are_known_take_bounded_memory():
    rule = OriginRule()
    for number in range(MOST_KNOWN + 10):
        authorized(rule, f"{number}.example")
    assert len(rule._known) == MOST_KNOWN


def test_refusals_are_counted():
    server = guarded()
    asked(server, "POST", PREDICT, "rebound.example", BODY)
    assert server.figures()['rowserve_request_seconds_count{code="403",route="other"}'] == 1


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost"}, {"Origin": "https://localhost", **GOING}])
def test_who_may_ask_without_an_origin_of_the_settings_gets_nothing_to_read_by(headers: dict[str, str]):
    reply = asked(guarded(), "GET", "/livez", "localhost", **headers)
    assert reply.status == 200
    assert not READABLE & reply.headers.keys()


# Pages of other origins that may


@pytest.mark.parametrize("headers", [{}, CROSS, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}])
@pytest.mark.parametrize(
    ("method", "path", "body", "more", "status"),
    [
        ("GET", "/livez", None, {}, 200),
        ("HEAD", "/livez", None, {}, 200),
        ("POST", PREDICT, BODY, {}, 200),
        ("POST", PREDICT, b"x", {}, 400),
        ("POST", "/v1/models/no:predict", BODY, {}, 404),
        ("POST", "/rows/m", b"[1, 2]\n" * 3, {}, 200),
        ("POST", "/images/m", form(b"abc"), FORM, 200),
        ("POST", "/images/m", form(b"broken"), FORM, 422),
        ("GET", "/nothing", None, {}, 404),
        ("POST", "/livez", BODY, {}, 405),
        ("POST", PREDICT, BODY, {"Content_Encoding": "br"}, 415),
        ("OPTIONS", "/rows/m", None, {}, 204),
    ],
)
def test_an_allowed_page_may_read_each_answer(headers, method, path, body, more, status):
    server = guarded(origins=("http://other.example", PAGE))
    reply = asked(server, method, path, "localhost", body, Origin=PAGE, **headers, **more)
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-expose-headers"] == "*"
    assert reply.headers["vary"] == "Origin"


def test_it_may_read_answers_to_known_heads_too_and_nobody_else_those_of_the_same_request():
    server = guarded(origins=(PAGE,))
    for _ in range(3):
        reply = asked(server, "POST", PREDICT, "localhost", BODY, Origin=PAGE)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "cache-status" in reply.headers
        reply = asked(server, "POST", PREDICT, "localhost", BODY)
        assert (reply.status, READABLE & reply.headers.keys()) == (200, {"vary"})
    assert len(server.site.heads) == 2
    refused = asked(server, "POST", PREDICT, "localhost", b"x" * len(BODY), Origin=PAGE)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (400, PAGE)
    assert len(server.site.heads) == 2


def test_it_may_read_what_is_wrong_with_its_body():
    server = guarded(origins=(PAGE,))
    client: Client = server.connect()
    client.send(raw("POST", "/rows/m", "localhost", {"Origin": PAGE, "Transfer-Encoding": "chunked"}) + b"zz\r\n")
    reply = client.reply()
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (400, PAGE)
    client = server.connect()
    client.send(raw("POST", PREDICT, "localhost", {"Origin": PAGE, "Content-Length": "9"}) + b"x")
    server.wait(11)
    reply = client.reply()
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (408, PAGE)


def test_it_may_read_a_stream():
    server = guarded(origins=(PAGE,))
    client = server.connect()
    client.send(raw("POST", "/rows/m", "localhost", {"Origin": PAGE, "Transfer-Encoding": "chunked"}))
    client.send(chunked(b"[1, 2]\n" * 9))
    reply = client.reply()
    assert (reply.status, len(reply.lines), reply.headers["access-control-allow-origin"]) == (200, 9, PAGE)


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "cache-control,content-type,request-timeout",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "cross-site",
}


@pytest.mark.parametrize("path", ["/rows/m", PREDICT, "/v1/models/no", "/v2/models/m/infer", "/", "/nothing", "*"])
def test_a_preflight_of_an_allowed_page_is_answered_without_a_route(path: str, monkeypatch):
    monkeypatch.setattr(Router, "open", lambda *_: pytest.fail("it is routed"))
    client = guarded(origins=(PAGE,)).connect()
    for _ in range(2):
        client.send(raw("OPTIONS", path, "localhost", {"Origin": PAGE, **PREFLIGHT}))
        reply = client.reply()
        assert (reply.status, reply.body) == (204, b"")
        told = {name: value for name, value in reply.headers.items() if name not in ("server", "date")}
        assert told == {
            "access-control-allow-origin": PAGE,
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "cache-control,content-type,request-timeout",
            "access-control-max-age": "7200",
            "vary": "Origin",
        }


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://page.example", f"{PAGE}:444"])
def test_a_preflight_of_another_page_is_refused(origin: str):
    reply = asked(guarded(origins=(PAGE,)), "OPTIONS", "/rows/m", "localhost", Origin=origin, **PREFLIGHT)
    assert reply.status == 403
    assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_a_method_that_asks_for_a_method_is_no_preflight_unless_it_is_options():
    server = guarded(origins=(PAGE,))
    assert asked(server, "GET", "/livez", "localhost", Origin=PAGE, **PREFLIGHT).json == {"live": True}
    told = asked(server, "OPTIONS", "/livez", "localhost", Origin=PAGE)
    assert (told.status, told.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


def test_an_allowed_page_may_not_ask_under_a_name_that_is_not_ours():
    assert asked(guarded(origins=(PAGE,)), "GET", "/livez", "rebound.example", Origin=PAGE).status == 403


# Heads that are known


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["localhost", "127.0.0.1:8080", "rebound.example", "a.example"]),
            st.sampled_from(["", "http://localhost", "http://rebound.example", "null", PAGE, FOREIGN]),
            st.sampled_from(["", "cross-site", "same-origin"]),
        ),
        max_size=12,
    )
)
def test_a_head_that_is_known_is_one_that_was_let_in_by_the_same_listener(requests):
    """Two listeners of one server: what one lets in the other may not, in any order, whatever both know by then."""
    rules = OriginRule.of("127.0.0.1", (), ()), OriginRule.of("0.0.0.0", ("*.example",), (PAGE,))
    server = Server()
    sites = [ApiSite(server.api), ApiSite(server.api)]
    for site, rule in zip(sites, rules, strict=True):
        site.authorize = rule.authorize
    for host, origin, fetched in requests * 2:
        headers = {name: value for name, value in (("Origin", origin), ("Sec-Fetch-Site", fetched)) if value}
        whole = raw("POST", PREDICT, host, headers, BODY)
        for site, rule in zip(sites, rules, strict=True):
            server.site = site
            client = server.connect()
            client.send(whole)
            may = not refused(rule, host, **{name.replace("-", "_"): value for name, value in headers.items()})
            assert client.reply().status == (200 if may else 403)
            assert (site.heads.find(whole.removesuffix(BODY)) is not None) is may


# Clients that are no browsers go on

PROBE = {"User-Agent": "kube-probe/1.31", "Accept": "*/*", "Connection": "close"}
UNCHANGED: dict[str, tuple[str, dict[str, str]]] = {
    "kubelet, liveness": ("/livez", PROBE),
    "kubelet, readiness": ("/readyz", PROBE),
    "Prometheus": (
        "/metrics",
        {
            "User-Agent": "Prometheus/3.5.0",
            "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
            "Accept-Encoding": "gzip",
            "X-Prometheus-Scrape-Timeout-Seconds": "10",
        },
    ),
    "curl": ("/v2", {"User-Agent": "curl/8.14.1", "Accept": "*/*"}),
}


@pytest.mark.parametrize("name", UNCHANGED)
@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.0.0.7"])
def test_probes_and_scrapes_by_address_go_on(name: str, bound: str):
    path, headers = UNCHANGED[name]
    client = guarded(bound).connect()
    client.send(raw("GET", path, "10.0.0.7:8080", headers))
    reply = client.reply()
    assert reply.status == 200
    assert not READABLE & reply.headers.keys()


def test_a_proxy_on_the_same_machine_may_say_its_own_name_where_it_is_in_the_settings():
    """nginx sends 127.0.0.1:8080 unless told otherwise, and the client's Host with `proxy_set_header Host $host`."""
    told = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    assert asked(guarded(), "POST", PREDICT, "127.0.0.1:8080", BODY, **told).status == 200
    assert asked(guarded(), "POST", PREDICT, "models.example.org", BODY, **told).status == 403
    server = guarded(hosts=("models.example.org",))
    own = {**told, "Origin": "https://models.example.org", "Sec-Fetch-Site": "same-origin"}
    assert asked(server, "POST", PREDICT, "models.example.org", BODY, **own).status == 200
