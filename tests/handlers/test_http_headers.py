"""Cache-Control, Request-Timeout, Cache-Status and Server-Timing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rowserve.graphs.rows import RowLayout
from rowserve.handlers.http_headers import (
    answer_headers,
    cache_policy,
    cache_status,
    request_options,
    request_timeout,
    server_timing,
)
from rowserve.handlers.items import Answer, CachePolicy, Outcome, Priority, Timing
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import encode_problem

HIT, JOINED, NEW = Outcome.HIT, Outcome.COLLAPSED, Outcome.COMPUTED


def answer(*outcomes: Outcome) -> Answer:
    return Answer(RowLayout(()), [b""] * len(outcomes), list(outcomes))


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("no-store", CachePolicy(no_store=True)),
        ("no-cache", CachePolicy(no_cache=True)),
        ("only-if-cached", CachePolicy(only_if_cached=True)),
        ("max-age=60", CachePolicy(max_age=60.0)),
        ("max-age=0", CachePolicy(max_age=0.0)),
        ('Max-Age="60" , NO-CACHE', CachePolicy(no_cache=True, max_age=60.0)),
        ("no-transform, community=UCI", CachePolicy()),
        ("", CachePolicy()),
    ],
)
def test_cache_control(value: str, policy: CachePolicy):
    assert cache_policy(value) == policy
    assert request_options({"cache-control": value}, "images").cache == policy


def test_throw_away():
    assert request_options({"rowserve-throw-away": "1"}, "images").cache == CachePolicy(throw_away=True)
    both = {"rowserve-throw-away": "1", "cache-control": "no-cache"}
    assert request_options(both, "images").cache == CachePolicy(no_cache=True, throw_away=True)
    assert request_options({"rowserve-throw-away": "0"}, "images").cache == CachePolicy()
    for wrong in ("yes", "", "tenant", "2"):
        with pytest.raises(Problem) as caught:
            request_options({"rowserve-throw-away": wrong}, "images")
        assert caught.value.status == 400
        assert "Rowserve-Throw-Away" in caught.value.detail


@pytest.mark.parametrize(
    "value", ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon", "max-age=\u0661"]
)
def test_a_max_age_that_is_no_number_is_400(value: str):
    with pytest.raises(Problem) as caught:
        cache_policy(value)
    assert caught.value.status == 400
    assert "max-age" in caught.value.detail


def test_request_timeout():
    assert request_timeout("1.5") == 1.5
    assert request_options({"request-timeout": "0.25"}, "rows").timeout == 0.25
    for given, read in (("5", 5.0), ("0.000001", 1e-6), ("2e-05", 2e-5), ("1e3", 1000.0), ("10", 10.0)):
        assert request_timeout(given) == read
    for wrong in ("0", "0.0", "0e5", "-1", "+1", "nan", "inf", "1e999", "1_0", "1.", "\u0661", " 1", "soon", "", "1s"):
        with pytest.raises(Problem) as caught:
            request_timeout(wrong)
        assert caught.value.status == 400
        assert "Request-Timeout" in caught.value.detail


def test_options_without_wishes_are_shared():
    options = request_options({}, "images")
    assert (options.protocol, options.priority, options.timeout) == ("images", Priority.INTERACTIVE, None)
    assert options.cache == CachePolicy()
    assert request_options({"accept": "*/*"}, "images") is options
    assert request_options({}, "rows", Priority.BULK).priority is Priority.BULK


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([HIT, HIT], "rowserve; hit"),
        ([NEW], 'rowserve; fwd=miss; detail="computed=1"'),
        ([JOINED, NEW], 'rowserve; fwd=miss; detail="collapsed=1 computed=1"'),
        ([HIT] * 3 + [JOINED] + [NEW] * 4, 'rowserve; fwd=partial; detail="hit=3 collapsed=1 computed=4"'),
        ([Outcome.BYPASSED] * 2, 'rowserve; fwd=bypass; detail="bypassed=2"'),
        ([Outcome.FAILED], 'rowserve; fwd=miss; detail="failed=1"'),
        ([HIT, Outcome.FAILED], 'rowserve; fwd=partial; detail="hit=1 failed=1"'),
    ],
)
def test_cache_status(outcomes: list[Outcome], status: str):
    assert cache_status(answer(*outcomes)) == status


@pytest.mark.parametrize("forward", ["miss", "request", "stale"])
def test_cache_status_tells_why_no_row_was_a_hit(forward: str):
    for outcomes in ([NEW], [NEW, NEW]):
        assert cache_status(replace(answer(*outcomes), forward=forward)).startswith(f"rowserve; fwd={forward}; ")
    assert cache_status(replace(answer(HIT, NEW), forward=forward)).startswith("rowserve; fwd=partial; ")


def test_server_timing_is_in_milliseconds():
    told = server_timing(Timing(decode=0.0015, cache=0.00001, queue=2.0, graph=0.25))
    assert told == "decode;dur=1.500, cache;dur=0.010, queue;dur=2000.000, graph;dur=250.000"


def test_every_answer_carries_them():
    names = [name for name, _ in answer_headers(answer(HIT), "application/json")]
    assert names == ["Content-Type", "Cache-Status", "Server-Timing"]


def test_hits_tell_their_time_in_microseconds():
    hits = answer(HIT, HIT)
    for seconds, told in ((12.6e-6, "0.013"), (3.0004, "3000.400")):
        hits.timing = Timing(cache=seconds)
        headers = dict(answer_headers(hits, "text/plain"))
        assert headers["Server-Timing"] == f"decode;dur=0.000, cache;dur={told}, queue;dur=0.000, graph;dur=0.000"
        assert (headers["Content-Type"], headers["Cache-Status"]) == ("text/plain", "rowserve; hit")


def test_problem_json():
    encoded = encode_problem(Problem(503, "come again", retry_after=1.2))
    assert encoded.status == 503
    assert dict(encoded.headers) == {"Content-Type": "application/problem+json", "Retry-After": "2"}
    wanted = b'{"type":"about:blank","status":503,"title":"Service Unavailable","detail":"come again"}'
    assert encoded.body == wanted
    assert "Retry-After" not in dict(encode_problem(Problem(404, "no")).headers)
