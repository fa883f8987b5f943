"""The cases in which all sides get the same load by wrk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.side_by_side import bare
from benchmarks.side_by_side.arena import OPENVINO, OURS, Arena, sides_of
from benchmarks.side_by_side.result import Result, Series, against, compared, medians
from benchmarks.side_by_side.rows import EFFICIENTNET, MOBILENET, TINY, Model
from benchmarks.side_by_side.sides import Side
from benchmarks.side_by_side.wrk import Load, Run

HOT_SMALL, HOT_LARGE = 1000, 64
HEAVY = 2
BARE_ROWS = (8, 16)
BINARY = ("binary", "raw")


def requests(run: Run) -> float:
    """A run's requests a second."""
    return run.requests_per_second


def rows(run: Run) -> float:
    """A run's rows a second."""
    return run.rows_per_second


def p50(run: Run) -> float:
    """A run's median latency in milliseconds."""
    return run.p50 * 1e3


def hits_small(arena: Arena) -> Iterator[Result]:
    """Small rows, all cached."""
    load = Load(TINY, 1, 32, 1.0, TINY.rows(HOT_SMALL, 1))
    sides = sides_of([arena.rowserve()], arena.cached_triton(), arena.bare_limit("hit"))
    found = arena.compare(load, list(sides))
    yield compared("hits, 64-byte rows, 32 connections", "req/s", found, requests, 1.0, 0.6)


def hits_large(arena: Arena) -> Iterator[Result]:
    """Large rows, all cached."""
    load = Load(MOBILENET, 1, 8, 1.0, MOBILENET.rows(HOT_LARGE, 1))
    sides = sides_of([arena.rowserve()], arena.cached_triton(), arena.bare_limit("hit"))
    found = arena.compare(load, list(sides))
    yield compared("hits, 150,528-byte rows, 8 connections", "req/s", found, requests, 1.8, 0.8)


def hits_8_rows(arena: Arena) -> Iterator[Result]:
    """What a request costs beside its rows."""
    pool, side = TINY.rows(HOT_SMALL, 1), arena.rowserve()
    eight, one = "rowserve", "rowserve, 1 row a request"
    runs = {
        eight: arena.timed(Load(TINY, 8, 8, 1.0, pool), side, arena.seconds),
        one: arena.timed(Load(TINY, 1, 8, 1.0, pool), side, arena.seconds),
    }
    found = arena.in_turns(runs)
    goal = against(found, rows, eight, one, 4.0, "rows/s")
    yield Result("hits, 8 rows of 64 bytes a request, 8 connections", "rows/s", medians(found, rows), [goal])


def tiny_misses(arena: Arena) -> list[Side]:
    """Who takes part in them."""
    limit = arena.bare_limit("miss", str(arena.versions["tiny"]))
    return list(sides_of([arena.rowserve()], arena.peers(), limit))


def misses_tiny(arena: Arena) -> Iterator[Result]:
    """A model that costs nothing, every row new."""
    found = arena.compare(Load(TINY, 1, 32, 0.0, TINY.rows(1, 1)), tiny_misses(arena))
    yield compared("misses, tiny model, 32 connections", "req/s", found, requests, 2.0, 0.6)


def lone_tiny(arena: Arena) -> Iterator[Result]:
    """The same, one at a time."""
    found = arena.compare(Load(TINY, 1, 1, 0.0, TINY.rows(1, 1)), tiny_misses(arena))
    yield compared("misses, tiny model, 1 connection: p50", "ms", found, p50, 0.5, 1.5, low=True)


def misses_mobilenet(arena: Arena) -> Iterator[Result]:
    """The model is the limit."""
    yield from model_misses(arena, MOBILENET, "mobilenet, 8 rows a request, 2 connections, misses", arena.peers(BINARY))


def misses_efficientnet(arena: Arena) -> Iterator[Result]:
    """A real one."""
    yield from model_misses(arena, EFFICIENTNET, "EfficientNet-Lite0, 8 rows a request, 2 connections, misses", [])


def model_misses(arena: Arena, model: Model, title: str, peers: list[Side]) -> Iterator[Result]:
    """Every row new: with both engines, against the rivals and against each engine alone."""
    load, seconds = Load(model, 8, 2, 0.0, model.rows(1, 1)), HEAVY * arena.seconds
    ours = [arena.rowserve(), *arena.openvino(model.name)]
    runs = {side.name: arena.timed(load, side, seconds) for side in [*ours, *peers]}
    engines = {OURS: ("bare engine", "tensorflow"), OPENVINO: ("bare engine, openvino", "openvino")}
    for side in ours:
        name, engine = engines[side.name]
        runs[name] = engine_alone(arena, engine, model, seconds)
    found = arena.in_turns(runs)
    result = Result(title, "rows/s", medians(found, rows))
    best = result.rivals[:1]
    wanted = {OURS: 1.25, OPENVINO: 1.5}
    goals = [against(found, rows, side.name, rival, wanted[side.name], "rows/s") for side in ours for rival in best]
    goals += [against(found, rows, side.name, engines[side.name][0], 0.97, "rows/s") for side in ours]
    result.goals = goals
    yield result
    arena.stop(f"{OPENVINO}: {model.name}")


def engine_alone(arena: Arena, engine: str, model: Model, seconds: int) -> Callable[[], Run]:
    """The bare engine in a process of its own, at the better of two batch sizes."""

    def rate(count: int, long: float) -> float:
        found: float = arena.child.submit(
            bare.rows_per_second, engine, arena.versions[model.name], model.rows(count, count), long
        ).result()
        return found

    best = max(BARE_ROWS, key=lambda count: rate(count, 1.0))
    return lambda: Run(0.0, rate(best, seconds), 0.0, 0.0, 0)


def half_repeated(arena: Arena) -> Iterator[Result]:
    """Each row known with probability 0.5: what a cache of rows is good for, and one of requests is not."""
    pool, seconds = MOBILENET.rows(HOT_LARGE, 1), HEAVY * arena.seconds
    known, new = "rowserve", "rowserve, all new"
    runs = {
        known: arena.timed(Load(MOBILENET, 8, 2, 0.5, pool), arena.rowserve(), seconds),
        new: arena.timed(Load(MOBILENET, 8, 2, 0.0, pool), arena.rowserve(), seconds),
    }
    for side in arena.cached_triton():
        runs[side.name] = arena.timed(Load(MOBILENET, 8, 2, 0.5, pool), side, seconds)
    found: dict[str, Series] = arena.in_turns(runs)
    goal = against(found, rows, known, new, 1.9, "rows/s")
    title = "mobilenet, 8 rows a request, half of them known"
    yield Result(title, "rows/s", medians(found, rows), [goal])
