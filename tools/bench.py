"""`rowserve bench`: a load on a running server. Main thread; see `bench_run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click


@click.command(short_help="Put a load on a running server and measure it.")
@click.argument("model")
@click.option("--server", default="http://127.0.0.1:8080", show_default=True, metavar="URL", help="The server.")
@click.option(
    "--protocol",
    type=click.Choice(["open-inference", "rows", "images"]),
    default="open-inference",
    show_default=True,
    help="Binary tensors, JSON rows, or uploads of pictures.",
)
@click.option(
    "--input",
    "place",
    metavar="PATH",
    help="Rows to send: .npy, .npz or .jsonl; pictures: a folder, a glob. Without it rows are made up.",
)
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows a request.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=8, show_default=True, help="Kept connections.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="How long.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="R",
    help="Requests a second, sent when they are due. Without it each connection sends as soon as it has its answer.",
)
@click.option("--repeat", type=click.FloatRange(0, 1), metavar="P", help="The share of rows that were sent before.")
@click.option("--zipf", type=click.FloatRange(0), metavar="S", help="Draw all rows by Zipf's law with this exponent.")
@click.option(
    "--distinct",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many rows --repeat and --zipf draw from.",
)
@click.option(
    "--throw-away/--keep",
    default=None,
    help="Whether the rows are gone from the server's cache soon after the run, or fill it.  [default: --throw-away "
    "for made-up rows, --keep for those of --input]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg",
    help="Draw how the latency is distributed.",
)
def bench(**flags: Any) -> None:
    """Send requests for MODEL (NAME or NAME/VERSION) to a running server, and say how fast it was.

    Rows are new unless told otherwise: made up so that no cache has them, or those of --input in turn. They go through
    the server's cache; made-up ones are gone from it soon after the run, others fill it, and a line says which.
    With --rate the latency of a request counts from the moment it was due, so a server that falls behind cannot hide
    it.

    \b
    rowserve bench digits                                     every row new: nothing but misses
    rowserve bench digits --keep                              the same, and the rows stay in the cache
    rowserve bench digits --repeat 1                          after the first second, nothing but hits
    rowserve bench digits --zipf 1 --distinct 100000 --rows 8 --connections 32
    rowserve bench digits --rate 500 --seconds 60 --plot latency.svg
    rowserve bench efficientnet_lite0 --protocol images --input photos/ --server http://10.0.0.5:8080

    Exit: 0 all requests were answered with 200; 1 some were not; 2 nothing could start.
    """
    from rowserve.tools.bench_run import run

    sys.exit(run(**flags))
