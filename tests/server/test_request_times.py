"""Requests are counted as prometheus_client's own histogram would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from rowserve.server.metrics import SECONDS_BUCKETS, Metrics

SECONDS = st.one_of(st.sampled_from(SECONDS_BUCKETS), st.floats(0, 100))


@given(st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from([200, 404, "OK"]), SECONDS)))
def test_the_same_text_as_prometheus_own_histogram(requests):
    registry = CollectorRegistry()
    theirs = Histogram(
        "rowserve_request_seconds", "Time.", ("route", "code"), registry=registry, buckets=SECONDS_BUCKETS
    )
    ours = Metrics()
    for route, code, seconds in requests:
        theirs.labels(route, str(code)).observe(seconds)
        ours.request(route, code, seconds)
    assert samples(ours.exposition()) == samples(generate_latest(registry))


def samples(text: bytes) -> list[str]:
    lines = text.decode().splitlines()
    return sorted(line for line in lines if line.startswith("rowserve_request_seconds") and "_created" not in line)
