"""How the cost of a hit grows: with rows in the cache, row size, connections, rows a request, models loaded."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import bare
from benchmarks.side_by_side.arena import Arena, link
from benchmarks.side_by_side.result import Growth, Result, Series
from benchmarks.side_by_side.rivalry import HOT_SMALL, p50, requests, rows
from benchmarks.side_by_side.rows import TINY, Model
from benchmarks.side_by_side.sides import Rowserve
from benchmarks.side_by_side.wrk import Load, Run
from benchmarks.table import Figure, Pair, number

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (1000, 10_000, 100_000, 1_000_000)
MOST = 10_000_000
WIDTHS = (64, 1024, 16_384, 150_528, 602_112)
CONNECTIONS = (1, 8, 32, 128, 512, 1000)
ROWS = (1, 8, 64, 256, 1000)
MODELS = (1, 10, 40)
POOL_BYTES = 16 << 20
SECONDS = 2


def program(*arguments: object) -> Any:
    """What `in_process` prints."""
    command = [sys.executable, "-m", "benchmarks.side_by_side.in_process", *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)


def whole_hit(arena: Arena) -> Iterator[Result]:
    """In process, against the bare sum of hash, read and copy."""
    for (width, (ours, least, ratio)), wanted in zip(program("hits", 64, 150_528).items(), (2.0, 1.3), strict=True):
        pair = Pair(ours * 1e6, least * 1e6, ratio)
        goal = Figure("rowserve / bare sum", ratio, "x", wanted, pair.detail(1, "us"))
        title = f"a hit inside the process, no HTTP: a row of {int(width):,} bytes"
        yield Result(title, "us", {"rowserve": pair.ours, "bare sum": pair.bare}, [goal], low=True)


def rows_in_the_cache(arena: Arena) -> Iterator[Result | Growth]:
    """The same with ever larger files."""
    counts = [*COUNTS, MOST] if arena.full else list(COUNTS)
    found = {int(count): seconds for count, seconds in program("file", *counts).items()}
    few, many = found[counts[0]], found[counts[-1]]
    detail = f"{many * 1e6:.3g} us against {few * 1e6:.3g} us"
    goal = Figure("the large file / the small one", many / few, "x", 1.5, detail)
    title = f"a hit inside the process among {counts[-1]:,} rows of 100 bytes"
    yield Result(title, "us", {"rowserve": many * 1e6}, [goal], low=True)
    table = [(f"{count:,}", f"{seconds * 1e6:.3g}") for count, seconds in found.items()]
    yield Growth("Rows in the cache", ("rows", "us a hit, inside the process"), table)


def row_size(arena: Arena) -> Iterator[Growth]:
    """Hits of ever larger rows, over HTTP."""
    folder = arena.scratch / "wide"
    models = [Model(f"wide{width}", "float32", (width // 4,)) for width in WIDTHS]
    for model in models:
        version = folder / model.name / "1"
        arena.child.submit(bare.save_tiny, version.parent, width=model.shape[0]).result()
        arena.versions[model.name] = version
    side = arena.running("wide", lambda: Rowserve(folder, arena.scratch / "wide-cache"))
    loads = {
        f"{model.row_bytes:,}": Load(model, 1, 8, 1.0, model.rows(min(HOT_SMALL, POOL_BYTES // model.row_bytes), 1))
        for model in models
    }
    found = arena.in_turns({name: arena.timed(load, side, SECONDS) for name, load in loads.items()})
    arena.stop("wide")
    table = [
        (name, per_second(series, requests), f"{median(series, requests) * loads[name].model.row_bytes / 1e6:,.0f}")
        for name, series in found.items()
    ]
    yield Growth("Row size", ("bytes a row", "hits/s", "MB/s of rows"), table)


def connections(arena: Arena) -> Iterator[Growth]:
    """Hits over ever more connections."""
    pool, side = TINY.rows(HOT_SMALL, 1), arena.rowserve()
    runs = {f"{many:,}": arena.timed(Load(TINY, 1, many, 1.0, pool), side, SECONDS) for many in CONNECTIONS}
    table = [
        (name, per_second(series, requests), f"{median(series, p50):.3g}")
        for name, series in arena.in_turns(runs).items()
    ]
    yield Growth("Connections", ("connections", "hits/s, 64-byte rows", "p50 in ms"), table)


def rows_a_request(arena: Arena) -> Iterator[Growth]:
    """Hits in ever larger requests."""
    pool, side = TINY.rows(HOT_SMALL, 1), arena.rowserve()
    runs = {f"{many:,}": arena.timed(Load(TINY, many, 4, 1.0, pool), side, SECONDS) for many in ROWS}
    table = [
        (name, per_second(series, requests), per_second(series, rows), f"{median(series, p50):.3g}")
        for name, series in arena.in_turns(runs).items()
    ]
    yield Growth("Rows a request", ("rows a request", "requests/s", "rows/s, all hits", "p50 in ms"), table)


def models_loaded(arena: Arena) -> Iterator[Growth]:
    """Hits of one model beside ever more others."""
    pool, table = TINY.rows(HOT_SMALL, 1), []
    for many in MODELS:
        folder = arena.scratch / f"{many}-models"
        link(arena.versions["tiny"], folder / TINY.name)
        for index in range(1, many):
            link(arena.versions["tiny"], folder / f"other{index}")
        began = time.monotonic()
        side = arena.running(folder.name, partial(Rowserve, folder, arena.scratch / f"{folder.name}-cache"))
        assert isinstance(side, Rowserve)
        start, memory = time.monotonic() - began, side.served.private_bytes() / 2**20
        run = arena.timed(Load(TINY, 1, 8, 1.0, pool), side, SECONDS)
        (series,) = arena.in_turns({"": run}).values()
        table.append((f"{many}", f"{start:.1f}", f"{memory:,.0f}", per_second(series, requests)))
        arena.stop(folder.name)
    columns = ("models", "seconds until ready", "MiB of private memory", "hits/s")
    yield Growth("Models loaded", columns, table)


def median(series: Series, read: Callable[[Run], float]) -> float:
    """The median over the turns."""
    return statistics.median(map(read, series.runs))


def per_second(series: Series, read: Callable[[Run], float]) -> str:
    """The same as text."""
    return number(median(series, read))
