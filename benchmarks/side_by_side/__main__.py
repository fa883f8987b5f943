"""`python -m benchmarks side_by_side`: the cases one after the other, the table, and the page."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from benchmarks.side_by_side import bare, crowd, growth, rivalry, wrk
from benchmarks.side_by_side.arena import Arena
from benchmarks.side_by_side.page import Page
from benchmarks.side_by_side.result import Growth, Result
from benchmarks.side_by_side.sides import Kit

Case = Callable[[Arena], Iterator[Result | Growth]]
RIVALS: tuple[Case, ...] = (
    rivalry.hits_small,
    rivalry.hits_large,
    rivalry.half_repeated,
    rivalry.hits_8_rows,
    crowd.hits_beside_misses,
    crowd.idle_connections,
    rivalry.misses_tiny,
    rivalry.lone_tiny,
    rivalry.misses_mobilenet,
    rivalry.misses_efficientnet,
    crowd.zipf_uploads,
    growth.whole_hit,
)
GROWTH: tuple[Case, ...] = (
    growth.rows_in_the_cache,
    growth.row_size,
    growth.connections,
    growth.rows_a_request,
    growth.models_loaded,
)
CASES = {case.__name__: case for case in (*RIVALS, *GROWTH)}


@click.command()
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), help="Only this; may be given often.")
@click.option(
    "--peers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="PEERS_KIT",
    help="The folder with the rivals' scripts; without it there are none.",
)
@click.option("--peer", "only", multiple=True, help="Only this rival; may be given often.")
@click.option("--port", default=24000, show_default=True, help="The first of the ports that rivals take.")
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1), help="How often each side has its turn.")
@click.option(
    "--seconds",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="How long a turn is; heavy models have twice that.",
)
@click.option("--full", is_flag=True, help="Large files and long runs: half an hour instead of ten minutes.")
@click.option("--write", is_flag=True, help="Write the figures into docs/performance.md, and the picture beside it.")
def main(
    names: tuple[str, ...],
    peers: Path | None,
    only: tuple[str, ...],
    port: int,
    turns: int,
    seconds: int,
    full: bool,
    write: bool,
) -> None:
    """rowserve, its rivals and the bare limit under the same load, in turns; medians."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not wrk.installed():
        raise click.ClickException("wrk is needed (apt-get install wrk)")
    page = Page(" ".join(["python -m benchmarks side_by_side", *options(names, peers, only, full)]))
    broken = []
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as scratch, bare.child() as child:
        kit = None if peers is None else Kit(peers.resolve(), port)
        arena = Arena(Path(scratch), kit, only, turns, seconds, full, child)
        try:
            for name in names or CASES:
                click.echo(f"{name} ...", err=True)
                try:
                    page.found += CASES[name](arena)
                except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                    broken.append(name)
                    arena.wrong.append(f"{name} did not end well: {error}")
        finally:
            arena.close()
    page.checks, page.wrong, page.notes = arena.checks, arena.wrong, arena.notes
    click.echo(page.text())
    if write:
        done = set(names or CASES) - set(broken)
        page.write(*(done >= {case.__name__ for case in part} for part in (RIVALS, GROWTH)))
    sys.exit(1 if arena.wrong else 0)


def options(names: Sequence[str], peers: Path | None, only: Sequence[str], full: bool) -> Iterator[str]:
    """What was asked for, as a reader would have to type it."""
    yield from (f"--case {name}" for name in names)
    if peers is not None:
        yield "--peers FOLDER"
    yield from (f"--peer {name}" for name in only)
    if full:
        yield "--full"


if __name__ == "__main__":
    main()
