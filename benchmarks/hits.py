"""The whole hit, in process: from a parsed request to its Answer, key, checksum and metrics included.

The bare limit is the least that any such cache must do: a keyed BLAKE3 of each row, one read transaction a request,
and a copy of each value.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from blake3 import blake3

from benchmarks.made_up import MadeUp, flat, numbered_rows
from benchmarks.table import Figure, Pair, emit, in_turns, timed
from rowserve.graphs.rows import Array, Rows
from rowserve.handlers.items import Answer, Options

KEY = bytes(range(32))
ANSWER = 4000
OPTIONS = Options()
Ask = Callable[[int], None]


class BareHits:
    """Keyed BLAKE3, one read transaction a request, get: nothing else."""

    def __init__(self, folder: Path, inputs: Array, outputs: Array) -> None:
        self._env: Any = lmdb.open(str(folder), map_size=1 << 30, readahead=False)
        with self._env.begin(write=True) as txn:
            for row, answer in zip(inputs, outputs, strict=True):
                txn.put(blake3(row.data, key=KEY).digest(), answer.tobytes())

    def ask(self, rows: Sequence[memoryview]) -> list[bytes]:
        """One request."""
        with self._env.begin() as txn:
            get = txn.get
            return [get(blake3(row, key=KEY).digest()) for row in rows]


def repeat(ask: Callable[[Any], object], requests: Sequence[Any], count: int) -> Callable[[], float]:
    """Seconds of one request, as the mean over `count`, taken from `requests` in turn."""
    source = itertools.cycle(requests)

    def burst() -> float:
        chosen = list(itertools.islice(source, count))

        def go() -> None:
            for request in chosen:
                ask(request)

        return timed(go) / count

    return burst


def asking(made_up: MadeUp) -> Callable[[Rows], Answer]:
    """One request through the pipeline."""
    answer, model, signature = made_up.pipeline.answer, made_up.model, made_up.signature

    def ask(rows: Rows) -> Answer:
        found = answer(model, signature, [rows], OPTIONS)
        assert type(found) is Answer, "not a hit"
        return found

    return ask


def requests(inputs: Array, size: int) -> list[Rows]:
    """The rows as requests of `size`."""
    return [Rows({"x": inputs[at : at + size]}, size) for at in range(0, len(inputs) - size + 1, size)]


def against_bare(width: int, rows: int, sizes: Sequence[int], quick: bool) -> Iterator[Pair]:
    """Hits in requests of each of `sizes` against the bare sum."""
    inputs = numbered_rows(rows, width)
    outputs = numbered_rows(rows, ANSWER).view("<f4")
    with tempfile.TemporaryDirectory() as folder:
        made_up = MadeUp(Path(folder, "cache"), flat(width), ANSWER)
        made_up.fill(inputs, outputs)
        bare = BareHits(Path(folder, "bare"), inputs, outputs)
        for size in sizes:
            count = max(1, (2000 if width < 10_000 else 400) // size)
            whole = repeat(asking(made_up), requests(inputs, size), count)
            views = [[row.data for row in inputs[at : at + size]] for at in range(0, rows - size + 1, size)]
            yield in_turns(whole, repeat(bare.ask, views, count), 5 if quick else 101)
        made_up.cache.close()


def figures(quick: bool) -> Iterator[Figure]:
    """All of them."""
    told = [
        ("whole hit, 784-byte row, 4 kB answer, requests of 1", 4.0),
        ("the same, requests of 32", 2.5),
        ("whole hit, 150,528-byte row, 4 kB answer, requests of 1", 1.5),
        ("the same, requests of 32", 1.5),
    ]
    pairs = [*against_bare(784, 256, (1, 32), quick), *against_bare(150_528, 256, (1, 32), quick)]
    for (what, wanted), pair in zip(told, pairs, strict=True):
        yield Figure(what, pair.ratio, "x", wanted, pair.detail(1e6, "us a request"))
    yield by_size(quick)


def by_size(quick: bool) -> Figure:
    """Hits all over a large file against hits in a small one, asked alike: a million rows in turn, or a thousand."""
    many, few, width, answer = 20_000 if quick else 1_000_000, 1000, 64, 100
    places = np.random.default_rng(2).integers(0, many, 10_000 if quick else 200_000)
    with tempfile.TemporaryDirectory() as folder:
        bursts = []
        for count in (many, few):
            inputs = numbered_rows(count, width)
            made_up = MadeUp(Path(folder, str(count)), flat(width), answer)
            made_up.fill(inputs, numbered_rows(count, answer, 1).view("<f4"))
            bursts.append(repeat(asking(made_up), requests(inputs[places % count], 1), few))
        pair = in_turns(bursts[0], bursts[1], 5 if quick else 151)
    return Figure(f"whole hit among {many:,} rows of 100 B against 1,000", pair.ratio, "x", 1.5, pair.detail(1e6, "us"))


if __name__ == "__main__":
    emit(figures)
