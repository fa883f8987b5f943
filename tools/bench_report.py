"""What `bench` found, as a table and as JSON. Main thread."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rowserve.tools.bench_load import Load

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))
DETAIL = re.compile(rb"(hit|collapsed|computed|bypassed|failed)=(\d+)")


def outcomes(caches: Counter[bytes], rows: int) -> dict[str, int]:
    """Rows by what the Cache-Status of their answers says of them; `rows` a request."""
    found: Counter[str] = Counter()
    for told, answers in caches.items():
        if told == b"rowserve; hit":
            found["hit"] += answers * rows
            continue
        for name, count in DETAIL.findall(told):
            found[name.decode()] += int(count) * answers
    return dict(found)


def summary(load: Load, rows: int) -> dict[str, Any]:
    """All figures; latencies in milliseconds."""
    good = load.statuses[200]
    share = good / load.latency.total if load.latency.total else 0.0
    rate = load.in_time / load.elapsed if load.elapsed else 0.0
    errors = {str(status): count for status, count in sorted(load.statuses.items()) if status != 200}
    return {
        "seconds": round(load.elapsed, 3),
        "requests": good,
        "requests_per_second": round(rate * share, 1),
        "rows_per_second": round(rate * share * rows, 1),
        "latency_ms": {
            **{name: milliseconds(load.latency.quantile(part)) for name, part in QUANTILES},
            "max": milliseconds(load.latency.highest),
        },
        "rows": outcomes(load.caches, rows),
        "errors": {**errors, **load.faults},
        "unsent": load.unsent,
    }


def milliseconds(seconds: float) -> float:
    """Three digits behind the point."""
    return round(seconds * 1e3, 3)


def table(found: dict[str, Any]) -> Iterator[str]:
    """The lines that people read."""
    yield f"requests/s  {found['requests_per_second']:>12,.1f}"
    yield f"rows/s      {found['rows_per_second']:>12,.1f}"
    yield "latency ms  " + "  ".join(f"{name} {value:.3g}" for name, value in found["latency_ms"].items())
    told = found["rows"]
    total = sum(told.values())
    if total:
        yield "rows        " + "  ".join(f"{name} {count:,} ({count / total:.1%})" for name, count in told.items())
    if found["errors"]:
        yield "errors      " + "  ".join(f"{what}: {count:,}" for what, count in found["errors"].items())
    if found["unsent"]:
        yield f"unsent      {found['unsent']:,} requests were due and found no free connection: the rate was too high"
