"""The names of metrics that other servers' dashboards ask for: in their profiles, out of the same counts."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rowserve.server.listener import ApiSite
from tests.server.test_http_pipeline import RealServer


def scraped(server: RealServer, profile: str, path: str) -> dict[tuple[str, str], float]:
    """Samples by name and by their `status` label, of model m."""
    server.site = ApiSite(server.api, profile)
    reply = server.request("GET", path)
    assert reply.status == 200
    text = reply.body.decode()
    assert list(text_string_to_metric_families(text))
    assert "rowserve_rows_asked_total{" in text
    found = {}
    for name, labels, value in re.findall(r"^(\S+)\{(.*)\} (\S+)$", text, re.MULTILINE):  # as it stands on the wire
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told.get("model", told.get("model_name")) == "m" and told.get("model_version", told.get("version")) == "1":
            found[name, told.get("status", "")] = float(value)
    return found


@pytest.fixture
def server() -> RealServer:
    """Three rows computed, one of them hit again, one failed."""
    server = RealServer()
    for numbers in ((1, 2, 3), (1,), (-666,)):
        server.predict(*numbers)
        server.bench.run()
        server.turns()
    return server


def test_triton(server: RealServer) -> None:
    told = scraped(server, "triton", "/metrics")
    assert told["nv_inference_request_success", ""] == 4
    assert told["nv_inference_request_failure", ""] == 1
    assert told["nv_cache_num_hits_per_model", ""] == 1
    assert told["nv_cache_num_misses_per_model", ""] == 3
    assert ("nv_inference_queue_duration_us", "") in told


def test_tensorflow_serving(server: RealServer) -> None:
    told = scraped(server, "tensorflow-serving", "/monitoring/prometheus/metrics")
    assert told[":tensorflow:serving:request_count", "OK"] == 4
    assert told[":tensorflow:serving:request_count", "ERROR"] == 1
    assert told[":tensorflow:serving:request_example_count_total", ""] == 5


def test_torchserve(server: RealServer) -> None:
    told = scraped(server, "torchserve", "/metrics")
    assert told["ts_inference_requests_total", ""] == 5
    assert ("ts_inference_latency_microseconds", "") in told
    assert ("ts_queue_latency_microseconds", "") in told


@pytest.mark.parametrize("profile", ["native", "kserve", "mlserver"])
def test_no_other_profile_has_them(server: RealServer, profile: str) -> None:
    names = {name for name, _ in scraped(server, profile, "/metrics")}
    assert not [name for name in names if not name.startswith("rowserve_")]
