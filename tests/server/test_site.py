"""Routes, statuses, faults in each protocol's form, probes, hang-ups, and figures that add up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rowserve.handlers.items import Priority
from rowserve.handlers.problem import Problem
from rowserve.server.address import NATIVE
from rowserve.server.listener import ApiSite
from rowserve.server.openapi import document
from rowserve.server.profiles import PROFILES, router
from tests.http_doubles import FORM, Server, form, head, logged

PREDICT = b'{"instances": [[1, 2]]}'


@pytest.mark.parametrize("profile", PROFILES)
def test_the_description_is_openapi(profile):
    routes = router(profile).routes
    described = json.loads(document(routes))
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]) == {route.path for route in routes if not route.refused}
    identifiers = [op["operationId"] for path in described["paths"].values() for op in path.values()]
    assert len(identifiers) == len(set(identifiers))
    for path, operations in described["paths"].items():
        for operation in operations.values():
            named = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert [f"{{{name}}}" in path for name in named] == [True] * path.count("{")
    if profile == NATIVE:
        assert orjson.loads(Server().request("GET", "/openapi.json").body) == described


UNKNOWN = ["/nothing", "/images", "/images/", "/images/m/", "/images/a%2Fb", "/images/m/x", "/nothing//"]


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_paths_are_problems_not_pages(path):
    reply = Server().request("GET", path)
    assert reply.status in (404, 405)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["status"] == reply.status


def test_a_path_that_is_not_text_is_a_400():
    assert Server().request("GET", "/v2/models/%ff").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "//metrics", "/metrics/", "/./metrics", "/x/../metrics", "/%6Detrics", "/metric%73", "/METRICS", "/metrics%2F",
        "/metrics;a", "/%2Fmetrics", "/%2E/metrics", "/metrics%00", "/metrics%20", "/v2//models/m", "/v2/%6Dodels/m",
        "/v1/%6Dodels/m", "/%761/models/m", "/v1/models/m/met%61data", "/v1/models/m%2Fmetadata",
        "/v1/models/m/%76ersions/1",
    ],
)  # fmt: skip
def test_a_path_is_what_it_is(path):
    assert Server().request("GET", path).status == 404


def escaped_paths(profile: str) -> Iterator[tuple[str, str]]:
    """Each route's method and path, with one letter of what is fixed in it escaped."""
    for route in router(profile).routes:
        for found in re.finditer(r"[a-z.](?![^<]*>)", route.rule):
            path = f"{route.rule[: found.start()]}%{ord(found[0]):02x}{route.rule[found.end() :]}"
            yield route.methods[0], re.sub("<[^>]*>", "1", path)


@pytest.mark.parametrize("profile", list(PROFILES))
def test_an_escape_in_what_is_fixed_in_a_path_is_a_404(profile):
    server = served(profile)
    for method, path in escaped_paths(profile):
        assert server.request(method, path).status == 404, (method, path)


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_a_colon_may_come_escaped(colon):
    reply = Server().request("POST", f"/v1/models/m{colon}predict", b'{"instances": [[1.0, 2.0]]}')
    assert reply.status == 200


def spelt(letter: str) -> st.SearchStrategy[str]:
    """A letter of a path in other spellings, and with what a proxy may take away beside it."""
    code = f"{ord(letter):02x}"
    others = [f"%{code}", f"%{code.upper()}", f"%25{code}", letter.upper(), letter * 2, letter + "/", letter + "%00"]
    beside = ["/", "//", "/.", "/./", "/../", "/x/..", "%2F", "%2f", ";", ";a", ".", "%20", "\\"]
    return st.sampled_from([*others, *(letter + each for each in beside), *(each + letter for each in beside)])


@st.composite
def misspelt(draw: st.DrawFn, path: str) -> str:
    """The path with one letter, or some, in another spelling."""
    letters = list(path)
    for at in draw(st.lists(st.integers(0, len(letters) - 1), min_size=1, max_size=3, unique=True)):
        letters[at] = draw(spelt(path[at]))
    return "".join(letters)


METRICS_PATHS = [
    (profile, path) for profile in PROFILES for path in ("/metrics", "/monitoring/prometheus/metrics")
]


@pytest.mark.parametrize(("profile", "path"), METRICS_PATHS)
@given(data=st.data())
def test_no_other_spelling_reaches_the_metrics(profile, path, data):
    spelling = data.draw(misspelt(path))
    assume(spelling.startswith("/") and spelling != path)
    reply = served(profile).request("GET", spelling)
    assert reply.status == 404, spelling
    assert b"rowserve_rows" not in reply.body


@pytest.mark.parametrize("method", ["get", "Get", "gET"])
def test_methods_are_case_sensitive(method):
    reply = Server().request(method, "/livez")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert Server().request(method, "/nothing").status == 404


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
# A 403 is what GraphPipe's clients get, and a model that is not there is told before that nothing explains it.
OWN_WORDS = {
    "/control/shutdown": (403,), "/explanations/1": (404,), "/explanations/1/1": (404,), "/v1/models/1:explain": (404,)
}  # fmt: skip


def served(profile: str) -> Server:
    server = Server()
    server.site = ApiSite(server.api, profile)
    return server


@pytest.mark.parametrize("profile", list(PROFILES))
def test_allow_names_exactly_what_works(profile):
    server = served(profile)
    paths = {re.sub("<[^>]*>", "1", route.rule) for route in router(profile).routes}
    for path in sorted(paths):
        told = server.request("OPTIONS", path)
        assert "allow" in told.headers, (path, told)
        allowed = told.headers["allow"].split(", ")
        assert told.status == 204
        asked_by_a_page = server.request("OPTIONS", path, Origin="http://test")
        assert asked_by_a_page.status in (200, 204)
        assert asked_by_a_page.headers["allow"].split(", ") == allowed
        for method in METHODS:
            reply = server.request(method, path)
            if reply.status == 405:
                assert reply.headers["allow"].split(", ") == allowed
                assert method not in allowed
            elif method not in allowed:  # in the words that protocols have for it
                wrong = (400, 501) if path.startswith("/v1/") else (501,)
                assert reply.status in (*wrong, *OWN_WORDS.get(path, ())), (path, method)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW", "PROPFIND", "get", "Post"])
@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_method_that_nothing_takes_is_told_what_is_allowed(profile, method):
    server = served(profile)
    paths = {re.sub("<[^>]*>", "1", route.rule) for route in router(profile).routes}
    for path in sorted(paths):
        allowed = server.request("OPTIONS", path).headers["allow"]
        reply = server.request(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allowed), path


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_refused_coding_names_those_that_are_taken(profile):
    server = served(profile)
    for route in router(profile).routes:
        path = re.sub("<version>", "2", route.rule).replace("<model>", "m")
        for kind in route.takes:
            sent = f"{kind.replace('*', 'png')}; boundary=B"
            told = {"Content_Type": sent, "Content_Encoding": "br"}
            reply = server.request(route.methods[0], path, b"x", **told)
            status = 501 if path.startswith("/v2/") else 415  # Triton's word for it
            assert (reply.status, reply.headers["accept-encoding"]) == (status, "gzip, deflate"), path


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/images/m", "OPTIONS, POST"),
        ("PUT", "/rows/m", "OPTIONS, POST"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
        ("BREW", "/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_other_methods_are_told_which_are_allowed(method, path, allow):
    reply = Server().request(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert reply.headers["content-type"] == "application/problem+json"
    options = Server().request("OPTIONS", path)
    assert (options.status, options.headers["allow"], options.body) == (204, allow, b"")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/models/m"])
def test_head_is_get_without_the_body(path):
    server = Server()
    client = server.connect()
    reply = client.request("HEAD", path)
    assert (reply.status, reply.rest) == (200, b"")
    assert int(reply.headers["content-length"]) > 0
    assert client.request("GET", path).status == 200


@pytest.mark.parametrize("path", ["/images/{}", "/rows/{}"])
@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("no", 404, "there is: m"),
        (".hidden", 404, ""),
        ("..", 404, ""),
        ("a" * 65, 404, ""),
        ("%2e%2e", 404, ""),
        ("m/versions/3", 404, "it has: 2, 1"),
        ("m/versions/-1", 404, "positive"),
        ("m/versions/one", 404, "positive"),
        ("m/versions/" + "9" * 40, 404, "positive"),
        ("m?signature=no", 400, "it has: other, serving_default"),
        ("m?outputs=no", 400, "it has: double, sum"),
        ("m?top=-1", 400, "top="),
        ("m?colour=red", 400, "there are: top, outputs, signature"),
        ("m?top=1&top=2", 400, "2 times"),
    ],
)
def test_unknown_models_versions_signatures_and_outputs_are_named(path, target, status, words):
    server = Server()
    reply = server.request("POST", path.format(target), b"x" * 10, **FORM)
    assert reply.status == status
    assert words in reply.json["detail"]
    assert server.pipeline.seen == []


def test_a_signature_without_pictures_says_so_before_the_body():
    client = Server().connect()
    client.send(head("POST", "/images/m?signature=other", 1_000_000, **FORM))
    told = client.wire.value()
    assert told.startswith(b"HTTP/1.1 422 Unprocessable ")
    assert client.reply().status == 422


def test_too_many_fields_in_a_query():
    assert Server().request("GET", "/livez?" + "&".join(f"a{i}=1" for i in range(200))).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v1/models/no:predict", 404, "Servable not found for request: Latest(no)"),
        ("POST", "/v1/models/m/versions/7:predict", 404, "Servable not found for request: Specific(m, 7)"),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/m/versions/7", 404, "Could not find version 7 of model m"),
        ("GET", "/v1/models/m:predict", 400, "Malformed request: GET /v1/models/m:predict"),
        ("POST", "/v1/models/m/metadata", 400, "Malformed request: POST /v1/models/m/metadata"),
        ("POST", "/v1/models/m:classify", 400, "JSON Parse error: "),
        ("POST", "/v1/models/m:predict", 400, ""),
    ],
)
def test_faults_under_v1_have_the_form_of_tensorflow_serving(method, path, status, words):
    reply = Server().request(method, path, b"not json")
    assert reply.status == status
    assert list(reply.json) == ["error"]
    assert words in reply.json["error"]


def test_predict_status_and_metadata():
    server = Server()
    assert server.request("POST", "/v1/models/m:predict", PREDICT).json == {
        "predictions": [{"double": [2.0, 4.0], "sum": 3.0}]
    }
    assert server.request("POST", "/v1/models/m/versions/1:predict", PREDICT).status == 200
    states = server.request("GET", "/v1/models/m").json["model_version_status"]
    assert [state["version"] for state in states] == ["2", "1"]
    assert server.request("GET", "/v1/models/m/versions/1/metadata").json["model_spec"]["version"] == "1"


def test_options_of_a_request_reach_the_pipeline():
    server = Server()
    wishes = {"Cache_Control": "no-cache, max-age=7", "Request_Timeout": "1.5"}
    server.request("POST", "/v1/models/m:predict", PREDICT, **wishes)
    server.request("POST", "/rows/m?priority=bulk&sync=0", b"[1,2]\n", **wishes)
    for _, options in server.pipeline.seen:
        assert (options.timeout, options.cache.no_cache, options.cache.max_age) == (1.5, True, 7.0)
    assert [options.priority for _, options in server.pipeline.seen] == [Priority.INTERACTIVE, Priority.BULK]
    assert server.request("POST", "/images/m", form(b"a"), **FORM, Request_Timeout="soon").status == 400


def test_a_wish_may_stand_in_a_header_line_of_its_own():
    server = Server()
    raw = head("POST", "/v1/models/m:predict", len(PREDICT), Cache_Control="no-store", X="y")
    server.connect().send(raw.replace(b"X: y", b"Cache-Control: max-age=7") + PREDICT)
    ((_, options),) = server.pipeline.seen
    assert (options.cache.no_store, options.cache.max_age) == (True, 7.0)


def test_a_whole_request_may_be_refused_with_a_time_to_come_again():
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    body = form(b"abc")
    client.send(head("POST", "/images/m", len(body), **FORM) + body)
    server.pipeline.refuse(Problem(503, "the queue is full", retry_after=1.2, reason="queue_full"))
    reply = client.reply()
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    assert server.adds_up()


@pytest.mark.parametrize("holding", [False, True])
@pytest.mark.parametrize("path", ["/images/m", "/v1/models/m:predict"])
def test_what_breaks_inside_is_one_log_line_and_tells_no_internals(path, holding):
    server = Server()
    server.pipeline.holding = holding
    if not holding:
        server.pipeline.raises = RuntimeError("secret of the house")
    client = server.connect()
    body = form(b"abc") if path.startswith("/images") else PREDICT
    with logged() as events:
        client.send(head("POST", path, len(body), **FORM) + body)
        if holding:
            server.pipeline.refuse(RuntimeError("secret of the house"))
    reply = client.reply()
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert ("error" in reply.json) == path.startswith("/v1")
    assert len(events) == 1
    assert "secret" in str(events[0]["log_failure"].value)
    assert client.request("GET", "/livez").status == 200


@pytest.mark.parametrize("path", ["/images/m", "/v1/models/m:predict"])
def test_a_client_that_hangs_up_cancels_its_rows(path):
    server = Server()
    server.pipeline.holding = True
    client = server.connect()
    body = form(b"abc") if path.startswith("/images") else PREDICT
    client.send(head("POST", path, len(body), **FORM) + body)
    assert server.pipeline.cancelled == 0
    with logged() as events:
        client.hang_up()
    assert server.pipeline.cancelled == 1
    assert events == []
    assert server.adds_up()


def test_a_client_that_hangs_up_while_its_json_is_parsed_or_encoded_is_forgotten():
    server = Server()
    server.api.limits = type(server.api.limits)(pool_parse_bytes=1, pool_encode_bytes=1)
    for steps in (0, 1):
        client = server.connect()
        client.send(head("POST", "/v1/models/m:predict", len(PREDICT)) + PREDICT)
        for _ in range(steps):
            server.pool.step()
        with logged() as events:
            client.hang_up()
        assert events == []
        server.pool.calls.clear()
    assert len(server.pipeline.seen) == 1


def test_liveness():
    server = Server()
    assert server.request("GET", "/livez").json == {"live": True}
    server.fault = "a session call has not come back for 61 s"
    reply = server.request("GET", "/livez")
    assert (reply.status, reply.json["fault"]) == (503, server.fault)


def test_readiness_names_each_version_and_its_state():
    server = Server()
    broken = server.models.expect("broken", 1)
    reply = server.request("GET", "/readyz")
    assert (reply.status, reply.json["state"]) == (503, "loading")
    broken.state, broken.fault = "broken", "no such file"
    reply = server.request("GET", "/readyz")
    assert (reply.status, reply.json["ready"]) == (200, True)
    assert reply.json["models"] == [
        {"name": "broken", "version": "1", "state": "broken", "fault": "no such file"},
        {"name": "m", "version": "2", "state": "ready"},
        {"name": "m", "version": "1", "state": "ready"},
    ]
    reply = server.request("POST", "/images/broken", form(b"a"), **FORM)
    assert reply.status == 503
    server.site.drain()
    reply = server.request("GET", "/readyz")
    assert (reply.status, reply.json["state"]) == (503, "draining")


@pytest.mark.parametrize(
    ("query", "state", "status"),
    [
        ("?strict=1", "broken", 503),
        ("?strict=true", "broken", 503),
        ("?strict=0", "broken", 200),
        ("", "broken", 200),
        ("?strict=1", "ready", 200),
        ("?strict=1", "loading", 503),
    ],
)
def test_a_strict_probe_is_not_content_while_any_model_is_broken(query, state, status):
    server = Server()
    server.models.expect("other", 1).state = state
    reply = server.request("GET", f"/readyz{query}")
    assert (reply.status, reply.json["ready"]) == (status, status == 200)
    assert reply.json["state"] == ("ready" if status == 200 else state)


def test_a_metric_has_each_models_state():
    server = Server()
    server.metrics.models = server.models.states
    server.models.expect("other", 7).state = "broken"
    told = {key: value for key, value in server.figures().items() if key.startswith("rowserve_model_state")}
    assert len(told) == 3 * 3
    assert sum(told.values()) == 3
    assert told['rowserve_model_state{model="other",state="broken",version="7"}'] == 1
    assert told['rowserve_model_state{model="m",state="broken",version="2"}'] == 0


def test_rows_add_up_at_every_scrape():
    server = Server()
    server.pipeline.holding = True
    body = form(b"abc", b"broken", b"x")
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.send(head("POST", "/images/m", len(body), **FORM) + body)
        assert server.adds_up()
    key = '{model="m",protocol="images",version="2"}'
    assert server.figures()[f"rowserve_rows_pending{key}"] == 15
    clients[1].hang_up()
    assert server.adds_up()
    server.pipeline.step()
    assert server.adds_up()
    server.pipeline.step()
    server.pipeline.refuse(Problem(504, "late", reason="deadline"))
    server.pipeline.refuse(Problem(503, "full", reason="queue_full"))
    server.pipeline.step_all()
    server.request("POST", "/images/m", b"no form", **FORM)
    figures = server.figures()
    assert server.adds_up()
    assert figures[f"rowserve_rows_asked_total{key}"] == 15
    assert figures[f"rowserve_rows_pending{key}"] == 0
    outcomes = {
        outcome: figures[f'rowserve_rows_total{{model="m",outcome="{outcome}",protocol="images",version="2"}}']
        for outcome in ("hit", "collapsed", "computed", "bypassed", "failed")
    }
    assert outcomes == {"hit": 0, "collapsed": 0, "computed": 4, "bypassed": 0, "failed": 11}
    reasons = {k: v for k, v in figures.items() if k.startswith("rowserve_rows_failed_total")}
    assert sum(reasons.values()) == 11
    assert reasons['rowserve_rows_failed_total{reason="undecodable"}'] == 2


def test_requests_are_measured_by_route_and_code_never_by_path():
    server = Server()
    server.request("POST", "/images/m", form(b"abc"), **FORM)
    server.request("POST", "/images/no", form(b"abc"), **FORM)
    server.request("GET", "/secret/path")
    server.connect().send(b"broken\r\n\r\n")
    counted = {k: v for k, v in server.figures().items() if k.startswith("rowserve_request_seconds_count")}
    assert counted == {
        'rowserve_request_seconds_count{code="200",route="/images/{model}"}': 1,
        'rowserve_request_seconds_count{code="404",route="/images/{model}"}': 1,
        'rowserve_request_seconds_count{code="404",route="other"}': 1,
        'rowserve_request_seconds_count{code="400",route="malformed"}': 1,
    }


def test_metrics_are_served_as_prometheus_reads_them():
    server = Server()
    server.metrics.queue_rows = lambda: 7
    reply = server.request("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert b"\nrowserve_queue_rows 7.0\n" in reply.body


def test_header_values_that_are_no_utf8_are_no_crash():
    raw = head("POST", "/images/m", 3, Content_Type="image/XX", Cache_Control="XX").replace(b"XX", b"\xc3\xff")
    client = Server().connect()
    client.send(raw + b"abc")
    assert client.reply().status == 200


def test_a_lone_surrogate_in_a_name_is_told_and_harms_no_other_row():
    server = Server()
    reply = server.request("POST", "/rows/m?outputs=sum", b'[1, 2]\n{"\\ud800": 1}\n[3, 4]\n')
    assert [line.get("error", {}).get("status") for line in reply.lines] == [None, 400, None]
    assert "row.?: no such input" in reply.lines[1]["error"]["detail"]
    reply = server.request("POST", "/v1/models/m:predict", b'{"instances": [{"\\ud800": 1}]}')
    assert reply.status == 400
    assert "named input: ?" in reply.json["error"]


INFER = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}'


@pytest.mark.parametrize("padding", [b"", b" " * 70_000])  # read whole, and in pieces
@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/models/m:predict", b'{"instances": [[1.0, 2.0]]}', {}),
        ("/v2/models/m/infer", INFER, {}),
        ("/predictions/m", b"[1.0, 2.0]", {"Content_Type": "application/json"}),
        ("/rows/m", b"[1.0, 2.0]\n", {}),
    ],
)
def test_a_byte_order_mark_before_json_is_skipped(path, body, headers, padding):
    body = body[:1] + padding + body[1:]
    plain = Server().request("POST", path, body, **headers)
    marked = Server().request("POST", path, b"\xef\xbb\xbf" + body, **headers)
    assert (marked.status, marked.body) == (200, plain.body)


def test_a_byte_order_mark_before_any_line_but_the_first_is_no_json():
    reply = Server().request("POST", "/rows/m", b"\xef\xbb\xbf[1.0, 2.0]\n\xef\xbb\xbf[1.0, 2.0]\n")
    first, second = (json.loads(line) for line in reply.body.splitlines())
    assert "outputs" in first
    assert second["error"]["status"] == 400


@pytest.mark.parametrize("marks", [2, 20_000])
def test_more_byte_order_marks_than_one_are_no_json(marks):
    for path, body in (("/v2/models/m/infer", INFER), ("/rows/m", b"[1.0, 2.0]\n"), ("/v1/models/m:predict", PREDICT)):
        reply = Server().request("POST", path, b"\xef\xbb\xbf" * marks + body)
        status = reply.json["error"]["status"] if path == "/rows/m" else reply.status
        assert status == 400, path
