"""`bench` from its flags to its exit status. Main thread, which is the reactor thread."""

from __future__ import annotations

import gc
import http.client
import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
from twisted.internet.task import LoopingCall

from rowserve.tools.bench_forms import (
    NO_WISH,
    THROW_AWAY,
    Form,
    Headers,
    address,
    binary_form,
    json_form,
    json_pieces,
    upload_form,
)
from rowserve.tools.bench_input import read_pieces
from rowserve.tools.bench_load import Load
from rowserve.tools.bench_plot import latency_svg
from rowserve.tools.bench_report import summary, table
from rowserve.tools.bench_rows import NEW, Input, MadeUpRows, Piece, inputs_of, repeats, zipf
from rowserve.tools.options import Refused
from rowserve.tools.progress import Progress
from rowserve.tools.remote import model_path
from rowserve.tools.run_reactor import ReactorRun, log_to_stderr

ALL_ANSWERED, SOME_FAILED, NOT_STARTED = 0, 1, 2
TOLD_SECONDS = 0.25
POOL_SEED = 1
META_SECONDS = 30
THROWN_AWAY = "its rows are gone from the server's cache some seconds after it ends"
FILLS = "this fills the server's cache: the rows stay there until they are evicted or purged"


def run(
    model: str,
    server: str,
    protocol: str,
    place: str | None,
    rows: int,
    connections: int,
    seconds: float,
    rate: float | None,
    as_json: bool,
    plot: Path | None,
    throw_away: bool | None,
    **wanted: Any,
) -> int:
    """`rowserve bench`: the exit status. Raises Refused."""
    log_to_stderr()
    host, port, authority = address(server)
    path = model_path(model)
    if plot is not None and plot.suffix != ".svg":
        raise Refused(f"--plot {plot}: its name must end in .svg")
    if protocol == "images" and place is None:
        raise Refused("--protocol images needs pictures: name a folder with --input")
    known = place is not None and protocol != "open-inference"
    inputs = [] if known else inputs_of(metadata(host, port, authority, path))
    throw_away = place is None if throw_away is None else throw_away
    wishes = THROW_AWAY if throw_away else NO_WISH
    form = form_of(protocol, authority, path, inputs, rows, wishes)
    requests = requests_of(form, rows_of(protocol, place, inputs, **wanted), rows)
    click.echo(f"rowserve: {THROWN_AWAY if throw_away else FILLS}", err=True)
    reactor_run = ReactorRun()
    load = Load(reactor_run.reactor, requests, seconds, rate)
    reactor_run.on_signal = load.stop
    gc.freeze()
    reactor_run.run(partial(work, load, host, port, connections, rows))
    if not load.latency.total:
        raise Refused(f"{server}: no server answers there; is it running?")
    found = summary(load, rows)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n".join(table(found)))
    if plot is not None:
        plot.write_text(latency_svg(load.latency, title_of(model, connections, rows, rate)), encoding="utf-8")
    return SOME_FAILED if found["errors"] else ALL_ANSWERED


async def work(load: Load, host: str, port: int, connections: int, rows: int) -> int:
    """The load, and a bar while it runs."""
    progress = Progress(os.isatty(2))
    told = 0

    def tell() -> None:
        nonlocal told
        now = load.statuses[200] * rows
        progress.add(now - told)
        told = now

    bar = LoopingCall(tell)
    bar.start(TOLD_SECONDS)
    load.begin(host, port, connections)
    try:
        await load.done
    finally:
        bar.stop()
        progress.close()
    return ALL_ANSWERED


def metadata(host: str, port: int, authority: str, path: str) -> Any:
    """What the server says of the model. Raises Refused."""
    try:
        connection = http.client.HTTPConnection(host, port, timeout=META_SECONDS)
        connection.request("GET", f"/v2/models/{path}", headers={"Host": authority})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"http://{authority}: no server answers there; is it running? ({error})") from None
    try:
        found = orjson.loads(body)
        if answer.status == 200 and found["inputs"]:
            return found
        told = str(found.get("error", "it has no inputs"))
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        told = "no metadata of the Open Inference Protocol"
    raise Refused(f"http://{authority}/v2/models/{path}: {answer.status}, {told}")


def form_of(
    protocol: str, authority: str, path: str, inputs: Sequence[Input], rows: int, wishes: Headers = NO_WISH
) -> Form:
    """How a request is written."""
    if protocol == "rows":
        return json_form(authority, f"/rows/{path}", wishes)
    if protocol == "images":
        return upload_form(authority, f"/images/{path}", wishes=wishes)
    return binary_form(authority, f"/v2/models/{path}/infer", inputs, rows, wishes)


def rows_of(
    protocol: str,
    place: str | None,
    inputs: Sequence[Input],
    repeat: float | None,
    zipf: float | None,
    distinct: int,
) -> Iterator[Piece]:
    """The rows in the order they are sent."""
    if repeat is not None and zipf is not None:
        raise Refused("--repeat and --zipf are two ways to say the same: give one of them")
    random = np.random.default_rng()
    if place is not None:
        held = read_pieces(place, protocol, inputs)
        pool = held[:distinct]
        new: Iterator[Piece] = cycle(held)
        if repeat is None and zipf is None:
            return new
    else:
        new = made_up(protocol, inputs, random)
        if not repeat and zipf is None:
            return new
        pool = MadeUpRows(inputs, np.random.default_rng(POOL_SEED)).some(distinct)
        pool = json_pieces(pool, inputs) if protocol == "rows" else pool
    return chosen(pool, new, repeat, zipf, random)


def made_up(protocol: str, inputs: Sequence[Input], random: np.random.Generator) -> Iterator[Piece]:
    """New rows."""
    new = MadeUpRows(inputs, random).new()
    return (json_pieces([piece], inputs)[0] for piece in new) if protocol == "rows" else new


def chosen(
    pool: Sequence[Piece],
    new: Iterator[Piece],
    repeat: float | None,
    exponent: float | None,
    random: np.random.Generator,
) -> Iterator[Piece]:
    """Rows of the pool, and new ones."""
    places = repeats(repeat or 0.0, len(pool), random) if exponent is None else zipf(exponent, len(pool), random)
    for place in places:
        yield next(new) if place == NEW else pool[place]


def requests_of(form: Form, pieces: Iterator[Piece], rows: int) -> Iterator[bytes]:
    """Requests of so many rows."""
    while True:
        yield form([next(pieces) for _ in range(rows)])


def title_of(model: str, connections: int, rows: int, rate: float | None) -> str:
    """The title of the picture."""
    how = "as fast as it answers" if rate is None else f"{rate:g} requests/s"
    return f"{model}: {rows} rows a request, {connections} connections, {how}"
