"""What the server counts, and how Prometheus reads it, on the reactor thread.

Rows are counted in plain integers on the hot path and only turned into samples at a scrape, so that at every
scrape asked = hit + collapsed + computed + bypassed + failed + pending.
"""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rowserve.handlers.items import Outcome
from rowserve.server.models import STATES
from rowserve.server.request_times import RequestTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rowserve.server.models import ModelState
    from rowserve.server.stall import StallGauge

CONTENT_TYPE = CONTENT_TYPE_LATEST
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SECONDS_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
ROW_LABELS = ("model", "version", "protocol")


class RowCounts:
    """The rows of one (model, version, protocol). The owner keeps asked = the sum of outcomes + pending.

    `ask(n)` when rows come in, then for each row exactly one `settle`; `hits(n)` does both for rows found in
    the cache. `took` tells how long they took.
    """

    __slots__ = (
        "answered_seconds", "asked", "bypassed", "collapsed", "computed", "failed", "failed_seconds", "hit",
        "hit_seconds", "miss_seconds", "pending", "reasons",
    )  # fmt: skip

    def __init__(self) -> None:
        self.asked = 0
        self.pending = 0
        self.hit = 0
        self.collapsed = 0
        self.computed = 0
        self.bypassed = 0
        self.failed = 0
        self.answered_seconds = 0.0
        self.failed_seconds = 0.0
        self.hit_seconds = 0.0
        self.miss_seconds = 0.0
        self.reasons: Tally[str] = Tally()

    def ask(self, n: int = 1) -> None:
        """`n` rows came in; each waits for its `settle`."""
        self.asked += n
        self.pending += n

    def hits(self, n: int, seconds: float = 0.0) -> None:
        """`n` rows came in and were answered at once from the cache, in so much time."""
        self.asked += n
        self.hit += n
        seconds *= n
        self.answered_seconds += seconds
        self.hit_seconds += seconds

    def settle(self, outcome: Outcome, n: int = 1, reason: str = "") -> None:
        """`n` pending rows are done. `reason` (a Problem's) names why rows failed."""
        self.pending -= n
        name = outcome.value
        setattr(self, name, getattr(self, name) + n)
        if outcome is Outcome.FAILED:
            self.reasons[reason or "error"] += n

    def took(self, outcomes: Sequence[Outcome], seconds: float, looked_up: float) -> None:
        """All rows of a request are settled: how long it took from its beginning, and to look them up."""
        failed, hit = outcomes.count(Outcome.FAILED), outcomes.count(Outcome.HIT)
        self.answered_seconds += (len(outcomes) - failed) * seconds
        self.failed_seconds += failed * seconds
        self.hit_seconds += hit * looked_up
        self.miss_seconds += (len(outcomes) - failed - hit) * looked_up

    def add(self, other: RowCounts) -> None:
        """Adds what another has counted, but for its reasons."""
        for name in self.__slots__:
            if name != "reasons":
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def by_outcome(self) -> Iterator[tuple[str, int]]:
        """(outcome, rows) for every outcome."""
        for outcome in Outcome:
            yield outcome.value, getattr(self, outcome.value)


class BatchCounts:
    """What one model version has run: rows, the seconds they waited and ran (summed over rows), and batches by size.

    `sizes` gives for each size how many batches there were and the seconds that they ran; `last` is when the latest
    was over, in seconds since 1970. `reasons` counts batches by why they were released (see pending_rows.Batch).
    """

    __slots__ = ("last", "ran", "reasons", "rows", "sizes", "waited")

    def __init__(self) -> None:
        self.rows = 0
        self.waited = 0.0
        self.ran = 0.0
        self.last = 0.0
        self.sizes: dict[int, tuple[int, float]] = {}
        self.reasons: Tally[str] = Tally()

    def add(self, rows: int, waited: float, ran: float, now: float, reason: str) -> None:
        """A batch is over; `waited` is the sum of what its rows waited."""
        self.reasons[reason] += 1
        batches, seconds = self.sizes.get(rows, (0, 0.0))
        self.sizes[rows] = (batches + 1, seconds + ran)
        self.rows += rows
        self.waited += waited
        self.ran += ran * rows
        self.last = now

    def total(self) -> tuple[int, float]:
        """Batches, and the seconds that they ran."""
        return sum(batches for batches, _ in self.sizes.values()), sum(seconds for _, seconds in self.sizes.values())


class Metrics:
    """All figures of one server, in a registry of its own.

    `queue_rows`, `cache_stats`, `models` and `alone` (model, version, signature of those whose requests run alone) are
    called at a scrape, `stall` is read at one. All may stay unset.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_rows: Callable[[], int] = lambda: 0
        self.cache_stats: Callable[[], Any] = lambda: None
        self.models: Callable[[], Iterable[ModelState]] = lambda: ()
        self.alone: Callable[[], Iterable[tuple[str, str, str]]] = lambda: ()
        self.stall: StallGauge | None = None
        self._rows: dict[tuple[str, str, str], RowCounts] = {}
        self._batches: dict[tuple[str, int], BatchCounts] = {}
        self._requests = RequestTimes(SECONDS_BUCKETS)
        self.batch_rows = self._histogram("batch_rows", "Rows in a session call.", buckets=BATCH_BUCKETS)
        self.queue_seconds = self._histogram("queue_seconds", "Time a row waited for its session call.")
        self.graph_seconds = self._histogram("graph_seconds", "Time of a session call.")
        self.decode_seconds = self._histogram("decode_seconds", "Time of decoding a picture.")
        self.registry.register(self._requests)
        self.registry.register(RowCollector(self))

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = SECONDS_BUCKETS) -> Histogram:
        return Histogram(f"rowserve_{name}", text, buckets=buckets, registry=self.registry)

    def rows(self, model: str, version: int | str, protocol: str) -> RowCounts:
        """The counts of this model version and protocol: keep the object, counting into it is cheap."""
        key = (model, str(version), protocol)
        counts = self._rows.get(key)
        if counts is None:
            counts = self._rows[key] = RowCounts()
        return counts

    def batches(self, model: str, version: int) -> BatchCounts:
        """What this model version has run."""
        return self._batches.setdefault((model, version), BatchCounts())

    def all_batches(self) -> Iterable[tuple[tuple[str, int], BatchCounts]]:
        """Every ((model, version), counts) there is."""
        return sorted(self._batches.items(), key=lambda entry: entry[0])

    def all_rows(self) -> Iterable[tuple[tuple[str, str, str], RowCounts]]:
        """Every ((model, version, protocol), counts) there is."""
        return sorted(self._rows.items(), key=lambda entry: entry[0])

    def request(self, route: str, code: int | str, seconds: float) -> None:
        """A request was answered; any thread. `route` is a pattern, never a path that a client chose.

        `code` is HTTP's status, or the name of gRPC's.
        """
        self._requests.add(route, code, seconds)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text form, read in one go."""
        return generate_latest(self.registry)


class RowCollector(Collector):
    """Reads the plain counts of a Metrics at a scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """All families that are kept as plain numbers."""
        yield from self._row_families()
        text = "Batches that have run, by why they were released: the thread was idle, full, a deadline, waited enough."
        batches = CounterMetricFamily("rowserve_batches", text, labels=("model", "version", "reason"))
        for (model, version), ran in self._metrics.all_batches():
            for reason, number in sorted(ran.reasons.items()):
                batches.add_metric((model, str(version), reason), number)
        yield batches
        yield gauge("queue_rows", "Rows that wait for a session call.", self._metrics.queue_rows())
        yield model_states(self._metrics.models())
        alone = GaugeMetricFamily(
            "rowserve_signature_alone",
            "1 for a signature whose requests run one at a time, uncached: its answers are not those of single rows.",
            labels=("model", "version", "signature"),
        )
        for labels in self._metrics.alone():
            alone.add_metric(labels, 1)
        yield alone
        if self._metrics.stall is not None:
            text = "Longest stall of the reactor since the last scrape."
            yield gauge("reactor_stall_seconds", text, self._metrics.stall.take_longest())
        stats = self._metrics.cache_stats()
        if stats is not None:
            yield from cache_families(stats)

    def _row_families(self) -> Iterator[Metric]:
        asked = CounterMetricFamily("rowserve_rows_asked", "Rows that came in.", labels=ROW_LABELS)
        outcome_labels = (*ROW_LABELS, "outcome")
        rows = CounterMetricFamily("rowserve_rows", "Rows answered, by outcome.", labels=outcome_labels)
        pending = GaugeMetricFamily("rowserve_rows_pending", "Rows not answered yet.", labels=ROW_LABELS)
        reasons: Tally[str] = Tally()
        for key, counts in self._metrics.all_rows():
            asked.add_metric(key, counts.asked)
            pending.add_metric(key, counts.pending)
            for outcome, number in counts.by_outcome():
                rows.add_metric((*key, outcome), number)
            reasons.update(counts.reasons)
        yield from (asked, rows, pending)
        yield counter("rows_failed", "Rows that failed, by reason.", "reason", dict(sorted(reasons.items())))


def model_states(models: Iterable[ModelState]) -> GaugeMetricFamily:
    """1 for the state that each version is in, 0 for those it is not in."""
    labels = ("model", "version", "state")
    family = GaugeMetricFamily("rowserve_model_state", "1 for the state a model version is in.", labels=labels)
    for model in models:
        for state in STATES:
            family.add_metric((model.name, str(model.version), state), model.state == state)
    return family


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(f"rowserve_{name}", text, value=value)


def counter(name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    """A counter by one label."""
    family = CounterMetricFamily(f"rowserve_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


CACHE_WRITES = ("committed", "dropped", "failed")
CACHE_COUNTERS = {
    "bad_checksums": "Stored rows that did not match their checksum.",
    "errors": "Errors of the store.",
    "evicted": "Rows evicted.",
}


def cache_families(stats: Any) -> Iterator[Metric]:
    """The cache's figures; whatever its stats do not carry is left out."""
    yield gauge("cache_rows", "Rows in the cache.", getattr(stats, "rows", 0))
    yield gauge("cache_bytes", "Bytes of the cache's file in use.", getattr(stats, "bytes", 0))
    writes = {name: getattr(stats, name, None) for name in CACHE_WRITES}
    known = {name: number for name, number in writes.items() if number is not None}
    yield counter("cache_writes", "Rows handed to the cache, by what became of them.", "outcome", known)
    for name, text in CACHE_COUNTERS.items():
        number = getattr(stats, name, None)
        if number is not None:
            yield CounterMetricFamily(f"rowserve_cache_{name}", text, value=number)
    state = getattr(stats, "state", None)
    if state is not None:
        # "failing: why": the why is for the log; a label's values must be few, so it takes the word alone.
        text = "1 for the state the cache is in."
        family = GaugeMetricFamily("rowserve_cache_state", text, labels=("state",))
        family.add_metric((str(state).split(":", 1)[0],), 1)
        yield family
