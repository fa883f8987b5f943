"""How long requests took, by route and code: counted in plain numbers, read by Prometheus at a scrape.

Any thread may count, each under routes of its own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Times:
    """The requests of one route and code: how many up to each bound, and the sum of their seconds."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """A request took so long; a third of the time that a Histogram of prometheus_client takes."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class RequestTimes(Collector):
    """The histogram `rowserve_request_seconds`."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._times: dict[tuple[str, int | str], Times] = {}

    def add(self, route: str, code: int | str, seconds: float) -> None:
        """A request of that route was answered with that code."""
        times = self._times.get((route, code))
        if times is None:
            times = self._times[route, code] = Times(self._bounds)
        times.add(seconds)

    def collect(self) -> Iterator[Metric]:
        """The family, each series with its buckets."""
        family = HistogramMetricFamily("rowserve_request_seconds", "Time of a request.", labels=("route", "code"))
        names = [floatToGoString(bound) for bound in (*self._bounds, math.inf)]  # type: ignore[no-untyped-call]
        for (route, code), times in sorted(self._times.items(), key=str):
            buckets = list(zip(names, accumulate(times.counts), strict=True))
            family.add_metric((route, str(code)), buckets, times.seconds)
        yield family
