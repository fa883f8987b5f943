"""The cases in which clients get into each other's way: Zipf uploads, hits beside misses, idle connections."""

from __future__ import annotations

import io
import json
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.served import form
from benchmarks.side_by_side import uploads, wrk
from benchmarks.side_by_side.arena import SETTLE_SECONDS, Arena, fill, link
from benchmarks.side_by_side.result import Result
from benchmarks.side_by_side.rivalry import HOT_SMALL, p50, requests
from benchmarks.side_by_side.rows import MOBILENET, TINY, equal
from benchmarks.side_by_side.sides import UPLOADS, Peer, Rowserve, Side
from benchmarks.side_by_side.wrk import Load
from benchmarks.table import Figure, number

IDLE = 1000
FIRST, MORE = 2000, 2000
RATE = 500
SAMPLES = 8
CROPS, REQUESTS = (600, 2400), (5000, 20_000)


def zipf_uploads(arena: Arena) -> Iterator[Result]:
    """Cold start, then ever more hits: against what the rates of misses and hits alone allow."""
    crops, asked = REQUESTS if arena.full else CROPS
    folder = arena.scratch / "crops"
    for name, count, seed in (("pool", crops, 1), ("new", 400, 2), ("known", 50, 3)):
        uploads.save_crops(folder / name, count, seed)
    side, target = arena.rowserve(), f"/images/{MOBILENET.name}"

    def upload(name: str, **more: Any) -> dict[str, Any]:
        found = uploads.run(port=side.port, target=target, folder=str(folder / name), **more)
        if found["bad"]:
            arena.wrong.append(f"uploads: {found['bad']} requests failed")
        return found

    upload("known", seconds=1.5)
    new = upload("new")
    known = upload("known", seconds=arena.seconds)
    drawn = upload("pool", requests=asked)
    judge_uploads(arena, side, folder / "pool")
    misses, hits = drawn["rows"].get("computed", 0), drawn["rows"].get("hit", 0)
    rates = [found["answers"] / found["seconds"] for found in (new, known, drawn)]
    allowed = asked / (misses / rates[0] + (asked - misses) / rates[1])
    detail = f"{hits / asked:.1%} hits; misses alone {rates[0]:.1f}/s, hits alone {number(rates[1])}/s"
    goal = Figure("rowserve / what they allow", rates[2] / allowed, "x", 0.9, detail, at_least=True)
    values = {"rowserve": rates[2]}
    for peer in upload_peers(arena):
        path, part = UPLOADS[peer.name]
        found = uploads.run(
            port=peer.port, target=path, field=part, folder=str(folder / "pool"), seconds=2 * arena.seconds
        )
        if not found["bad"]:
            values[peer.name] = found["answers"] / found["seconds"]
    title = f"Zipf 1.0: {asked:,} uploads of {crops:,} photo crops, cold start, 32 connections"
    yield Result(title, "uploads/s", values, [goal])


def upload_peers(arena: Arena) -> list[Peer]:
    """The rivals that take forms."""
    return [peer for peer in arena.peers(("raw",)) if isinstance(peer, Peer) and peer.name in UPLOADS]


def judge_uploads(arena: Arena, side: Rowserve, folder: Path) -> None:
    """A few uploads' answers against the bare model's, on the pixels."""
    from PIL import Image

    files = [path.read_bytes() for path in sorted(folder.iterdir())[:SAMPLES]]
    body, kind = form(files)
    _, answer = side.served.connect().ask("POST", f"/images/{MOBILENET.name}?outputs=y", body, kind)
    got = [np.array(row["outputs"]["y"], np.float32) for row in json.loads(answer)["rows"]]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    arena.checks += len(files)
    if not equal(got, list(arena.reference(MOBILENET, pixels))):
        arena.wrong.append("uploads: an answer is not the model's")


def hits_beside_misses(arena: Arena) -> Iterator[Result]:
    """The p99 of hits at a fixed rate, with the graph thread busy all the time and without."""
    side = arena.rowserve()
    fill(side, Load(TINY, 1, 1, 1.0, TINY.rows(1, 1)))
    flags = ["--repeat", "1", "--distinct", "50", "--rate", str(RATE), "--seconds", f"{arena.seconds:g}", "--json"]
    command = [sys.executable, "-m", "rowserve.tools.cli", "bench", TINY.name, "--server"]
    heavy = Load(MOBILENET, 8, 2, 0.0, MOBILENET.rows(1, 1))

    def p99() -> float:
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{side.port}", *flags], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        if set(found["rows"]) - {"hit"}:
            arena.wrong.append("hits beside misses: not all were hits")
        click.echo(f"  {found['latency_ms']}", err=True)
        return float(found["latency_ms"]["p99"])

    def beside() -> float:
        load = threading.Thread(target=wrk.run, args=(side.url(MOBILENET), heavy, side.form, arena.seconds + 3))
        load.start()
        time.sleep(1.5)
        found = p99()
        load.join()
        return found

    subprocess.run([*command, f"http://127.0.0.1:{side.port}", *flags], capture_output=True, check=True)
    time.sleep(SETTLE_SECONDS)
    pairs = [(beside(), p99()) for _ in range(arena.turns)]
    busy, idle = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    goal = Figure("rowserve beside misses / without", ratio, "x", 3.0, f"{number(busy)} ms against {number(idle)} ms")
    values = {"rowserve beside misses": busy, "rowserve without": idle}
    yield Result(f"p99 of {RATE} hits a second while mobilenet is kept busy", "ms", values, [goal], low=True)


def idle_connections(arena: Arena) -> Iterator[Result]:
    """A thousand clients that say nothing."""
    allow_files(FIRST + MORE + 200)
    side = arena.rowserve()
    load = Load(TINY, 1, 8, 1.0, TINY.rows(HOT_SMALL, 1))
    alone, beside = "rowserve", f"rowserve beside {IDLE:,} idle"
    timed = arena.timed(load, side, arena.seconds)

    def crowded() -> wrk.Run:
        crowd = [greeted(side) for _ in range(IDLE)]
        found = timed()
        for client in crowd:
            client.close()
        return found

    found = arena.in_turns({beside: crowded, alone: timed})
    values = {name: statistics.median(map(requests, series.runs)) for name, series in found.items()}
    ratio = statistics.median(
        requests(a) / requests(b) for a, b in zip(found[beside].runs, found[alone].runs, strict=True)
    )
    p50s = {name: statistics.median(map(p50, series.runs)) for name, series in found.items()}
    detail = f"p50 {number(p50s[beside])} ms against {number(p50s[alone])} ms"
    goals = [
        Figure(f"{beside} / {alone}", ratio, "x", 0.97, detail, at_least=True),
        memory_of_one(arena),
    ]
    yield Result(f"hits over 8 connections, with {IDLE:,} idle ones", "req/s", values, goals)


def memory_of_one(arena: Arena) -> Figure:
    """Of a connection, by a server that does nothing else; the first ones fill what start-up has left free."""
    link(arena.versions["tiny"], arena.scratch / "only-tiny" / TINY.name)
    side = arena.running("only tiny", lambda: Rowserve(arena.scratch / "only-tiny", arena.scratch / "only-tiny-cache"))
    assert isinstance(side, Rowserve)
    crowd = [greeted(side) for _ in range(FIRST)]
    before = side.served.private_bytes()
    crowd += [greeted(side) for _ in range(MORE)]
    cost = (side.served.private_bytes() - before) / MORE / 1000
    for client in crowd:
        client.close()
    arena.stop("only tiny")
    return Figure("memory of one", cost, " kB", 20, f"{MORE:,} more connections, each has asked once")


def greeted(side: Side) -> socket.socket:
    """A connection that has asked once."""
    client = socket.create_connection(("127.0.0.1", side.port), timeout=10)
    client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    return client


def allow_files(count: int) -> None:
    """This process may hold so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
