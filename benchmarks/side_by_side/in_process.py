"""The whole hit inside one process, no HTTP. A program of its own for each case:

    python -m benchmarks.side_by_side.in_process hits
    python -m benchmarks.side_by_side.in_process file 1000 1000000

prints a JSON object: of `hits`, [ours, bare, ratio] in seconds by bytes a row; of `file`, seconds by rows in the file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.hits import against_bare, asking, repeat, requests
from benchmarks.made_up import MadeUp, flat
from rowserve.cache.books import Books
from rowserve.cache.opening import Opened, open_cache
from rowserve.cache.record import Kind
from rowserve.graphs.rows import Array

WIDTH, ANSWER = 64, 100
CHUNK = 1024
GROUP = 200_000
BYTES_A_ROW = 600
LEAST_CACHE = 1 << 28
ASKED = 50_000
BURST = 2000
TURNS = 25


def hits(widths: Sequence[int]) -> dict[int, list[float]]:
    """Of rows of each width, against the bare sum of hash, LMDB read and copy."""
    found = {}
    for width in widths:
        pair = next(iter(against_bare(width, 64 if width > 100_000 else 256, (1,), False)))
        found[width] = [pair.ours, pair.bare, pair.ratio]
    return found


def rows(places: Array) -> Array:
    """Row k is k, eight times: the inputs of these rows."""
    return np.repeat(places.astype("<u8")[:, None], WIDTH // 8, axis=1).view(np.uint8)


def filled(folder: Path, count: int) -> MadeUp:
    """A model over a cache of `count` rows, written in the order of their keys, which is quick."""
    open_cache(folder, max(LEAST_CACHE, count * BYTES_A_ROW)).close()
    made_up = MadeUp(folder, flat(WIDTH), ANSWER)
    served = made_up.model.served(made_up.signature)
    generation = served.generation({})
    keys: list[bytes] = []
    for at in range(0, count, CHUNK):
        some = rows(np.arange(at, min(at + CHUNK, count)))
        keys += generation.row_keys(served.inputs.pack({"x": some}, len(some)))
    keys.sort()
    made_up.cache.close()
    opened, body, now = Opened(folder), b"a" * ANSWER, int(time.time())
    for at in range(0, count, GROUP):
        with opened.store.update() as update:
            books = Books(update, now)
            for key in keys[at : at + GROUP]:
                books.put(Kind.ROW, key, body, b"made")
            books.finish()
    opened.store.close()
    opened.close()
    return MadeUp(folder, flat(WIDTH), ANSWER)


def by_size(counts: Sequence[int]) -> dict[int, float]:
    """Seconds of a hit in a file of so many rows, in turns; each asks as many different requests as the others."""
    places = np.random.default_rng(2).integers(0, 1 << 62, ASKED)
    with tempfile.TemporaryDirectory() as folder:
        bursts: list[Callable[[], float]] = []
        for count in counts:
            began = time.perf_counter()
            made_up = filled(Path(folder, str(count)), count)
            print(f"  {count:,} rows written in {time.perf_counter() - began:.1f} s", file=sys.stderr)
            asked = requests(rows(places % count), 1)
            repeat(asking(made_up), asked, ASKED)()  # the file is in memory from here on
            bursts.append(repeat(asking(made_up), asked, BURST))
        times = [[burst() for burst in bursts] for _ in range(TURNS)]
        return dict(zip(counts, np.median(np.array(times), axis=0).tolist(), strict=True))


def main(arguments: Sequence[str]) -> Iterator[str]:
    """See above."""
    what, *numbers = arguments
    given = [int(number) for number in numbers]
    yield json.dumps(hits(given or [64, 150_528]) if what == "hits" else by_size(given))


if __name__ == "__main__":
    print(*main(sys.argv[1:]))
