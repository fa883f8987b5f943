"""The reactor's stalls, and the cache's figures, as a scrape shows them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from rowserve.server.metrics import Metrics
from rowserve.server.stall import StallGauge


def test_the_longest_stall_since_the_last_scrape():
    clock = Clock()
    gauge = StallGauge(clock, tick=0.02)
    gauge.start()
    for _ in range(100):
        clock.advance(0.02)
    assert gauge.take_longest() == pytest.approx(0)
    clock.advance(0.32)
    clock.advance(0.02)
    clock.advance(0.12)
    assert gauge.take_longest() == pytest.approx(0.3)
    clock.advance(0.02)
    assert gauge.take_longest() == pytest.approx(0, abs=0.021)
    clock.rightNow += 1.02  # time passes, and the reactor does not turn
    assert gauge.take_longest() == pytest.approx(1.0, abs=0.021)
    gauge.stop()
    assert clock.getDelayedCalls() == []


def figures(metrics: Metrics) -> dict[str, float]:
    lines = metrics.exposition().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def test_stalls_and_the_cache_are_read_at_a_scrape():
    metrics = Metrics()
    clock = Clock()
    metrics.stall = StallGauge(clock)
    metrics.stall.start()
    stats = SimpleNamespace(
        rows=3, bytes=4096, committed=5, dropped=1, failed=2, bad_checksums=7, errors=0, evicted=9, state="failing"
    )
    metrics.cache_stats = lambda: stats
    clock.advance(0.52)
    shown = figures(metrics)
    assert shown["rowserve_reactor_stall_seconds"] == pytest.approx(0.5)
    assert shown["rowserve_cache_rows"] == 3
    assert shown["rowserve_cache_bytes"] == 4096
    assert shown['rowserve_cache_writes_total{outcome="committed"}'] == 5
    assert shown['rowserve_cache_writes_total{outcome="dropped"}'] == 1
    assert shown["rowserve_cache_bad_checksums_total"] == 7
    assert shown['rowserve_cache_state{state="failing"}'] == 1
    stats.rows = 4
    assert figures(metrics)["rowserve_cache_rows"] == 4
