"""Rows a second of EfficientNet-Lite0 with every row missing: the pipeline under load against a bare session."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from benchmarks.real_model import InProcess, bare_session, in_process
from benchmarks.table import Figure, emit, median_pair
from rowserve.graphs.rows import Array, Rows

NAME = "efficientnet_lite0"
BATCH = 32
REQUEST = 8
CLIENTS = 16


async def under_load(model: InProcess, requests: Sequence[Rows]) -> float:
    """Seconds for all requests, of which CLIENTS are always on their way."""
    source = iter(requests)

    async def client() -> None:
        for rows in source:
            answer = await model.ask(rows)
            assert not answer.errors

    began = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(client()) for _ in range(CLIENTS)])
    return time.perf_counter() - began


def one_by_one(bare: Any, batches: Sequence[Array]) -> float:
    """Seconds for all batches, one after the other."""
    began = time.perf_counter()
    for batch in batches:
        bare(batch)
    return time.perf_counter() - began


async def measure(turns: int, batches: int, _reactor: Any, model: InProcess) -> list[Figure]:
    """The same number of rows each way, in turns."""
    bare = bare_session(NAME)
    bare(model.images(BATCH))
    pairs = []
    for _ in range(turns):
        requests = [model.rows(REQUEST) for _ in range(batches * BATCH // REQUEST)]
        ours = await under_load(model, requests)
        pairs.append((one_by_one(bare, [model.images(BATCH) for _ in range(batches)]), ours))
    pair = median_pair(pairs)  # of the bare seconds first: its ratio is that of the rates
    rows = batches * BATCH
    detail = f"{rows / pair.bare:.1f} rows/s against {rows / pair.ours:.1f} at batches of {BATCH}"
    what = "EfficientNet-Lite0 rows/s under load, in process, against the bare session"
    return [Figure(what, pair.ratio, "x", 0.95, detail, at_least=True)]


def figures(quick: bool) -> Iterator[Figure]:
    """One."""
    turns, batches = (1, 4) if quick else (7, 10)
    yield from in_process([NAME], partial(measure, turns, batches))


if __name__ == "__main__":
    emit(figures)
