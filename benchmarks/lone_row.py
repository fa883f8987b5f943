"""What a row alone pays on an idle server beside its session call: key, look-up, queue, two thread hops, hashing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.real_model import InProcess, bare_session, in_process, wait
from benchmarks.table import Figure, emit, median_pair, number, timed

IDLE = 0.05


async def measure(turns: dict[str, int], reactor: Any, *models: InProcess) -> list[Figure]:
    """Rows one at a time, each beside a bare call."""
    figures = []
    for (name, count), model in zip(turns.items(), models, strict=True):
        bare = bare_session(name)
        bare(model.images(1))
        pairs = []
        for _ in range(count):
            rows, image = model.rows(1), model.images(1)
            await wait(reactor, IDLE)
            began = time.perf_counter()
            await model.ask(rows)
            whole = time.perf_counter() - began
            await wait(reactor, IDLE)  # the row is written meanwhile
            pairs.append((whole, timed(partial(bare, image))))
        pair = median_pair(pairs)
        more = sorted(whole - call for whole, call in pairs)[count // 2] * 1e3
        what = f"a lone row on an idle server less a bare session call, {name}"
        figures.append(Figure(what, more, " ms", 1.0, f"{pair.detail(1e3, 'ms')}, {number(count)} rows"))
    return figures


def figures(quick: bool) -> Iterator[Figure]:
    """Both models."""
    turns = {"digits": 20, "efficientnet_lite0": 10} if quick else {"digits": 201, "efficientnet_lite0": 101}
    yield from in_process(list(turns), partial(measure, turns))


if __name__ == "__main__":
    emit(figures)
