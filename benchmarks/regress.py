"""Two commits of rowserve under the same load, in turns: what a change costs hits, misses and uploads.

    python -m benchmarks regress [--base COMMIT] [--turns N]

Each commit is built as its users get it, a wheel (compiled, where there is a C compiler), and both serve at once, each
with a cache of its own. A turn puts each load on both sides, the order changing from turn to turn, so that what the
machine does meanwhile hits both alike. A figure is the median of the ratios within turns; its interval holds the true
median in at least 95 of 100 runs, whatever the distribution is (H. A. David, H. N. Nagaraja: Order Statistics, 7.1).
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import platformdirs

from benchmarks.served import Served
from benchmarks.side_by_side import bare, uploads, wrk
from benchmarks.side_by_side.rows import FORMS, TINY
from benchmarks.table import Figure, as_markdown, machine

ROOT = Path(__file__).resolve().parents[1]
# The commit whose speed is kept, and how much of it.
BASE = "8d3fdc8"
KEPT = 0.97
LEAST_TURNS = 6  # with fewer the interval is the whole range, and holds less
CONFIDENCE = 0.95
# Both servers are started anew so often: two processes of the same code differ by where their memory lies.
STARTS = 4
POOL = 1000
CROPS = 240
Run = Callable[[Served], float]


@click.command()
@click.option("--base", default=BASE, show_default=True, help="The commit to compare with.")
@click.option("--head", default="HEAD", show_default=True, help="The commit that is compared.")
@click.option("--turns", default=20, show_default=True, type=click.IntRange(LEAST_TURNS))
@click.option("--seconds", default=3, show_default=True, type=click.IntRange(1), help="How long a load lasts.")
@click.option("--case", "names", multiple=True, help="Only this; may be given often.")
def main(base: str, head: str, turns: int, seconds: int, names: tuple[str, ...]) -> None:
    """Measure HEAD against BASE: 1 is as fast, below 0.97 is a regression."""
    if not wrk.installed():
        raise click.ClickException("wrk is needed (apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="regress-") as scratch:
        folder = Path(scratch)
        with bare.child() as child:
            child.submit(bare.save_tiny, folder / "models" / TINY.name).result()
            child.submit(bare.save_pictures, folder / "models" / "pictures").result()
        uploads.save_crops(folder / "crops", CROPS, 1)
        runs = loads(folder / "crops", seconds)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names or runs}
        for start in range(STARTS):
            with ExitStack() as stack:
                sides = [stack.enter_context(served(commit, folder)) for commit in (head, base)]
                for side in sides:
                    fill(side, folder / "crops")
                for name, pairs in found.items():
                    for turn in range(start * turns // STARTS, (start + 1) * turns // STARTS):
                        pairs.append(ratio(runs[name], sides, turn))
                        told = f"{name} {turn + 1}: {pairs[-1][0]:,.0f} and {pairs[-1][1]:,.0f}"
                        click.echo(f"  {told}, {pairs[-1][0] / pairs[-1][1]:.3f}x", err=True)
    figures = [figure(name, pairs) for name, pairs in found.items()]
    told = {**machine(), "commits": f"{short(head)} against {short(base)}", "turns": str(turns)}
    click.echo(", ".join(f"{name}: {value}" for name, value in told.items()))
    click.echo()
    click.echo(as_markdown(figures))
    sys.exit(any(not each.met for each in figures))


def served(commit: str, scratch: Path) -> Served:
    """A server of this commit."""
    place = installed(short(commit))
    path = os.pathsep.join([str(place), *filter(None, sys.path[1:])])
    arguments = ("--models", str(scratch / "models"), "--cache", str(scratch / f"cache-{place.name}"))
    # Without site, whose .pth files may hold an editable install of this very tree.
    return Served(*arguments, python=(sys.executable, "-S"), environment={"PYTHONPATH": path})


def installed(commit: str) -> Path:
    """The folder in which the commit's wheel lies unpacked; kept in the user's cache folder."""
    version = f"py{sys.version_info[0]}{sys.version_info[1]}"
    place = platformdirs.user_cache_path("rowserve") / "regress" / f"{commit}-{version}"
    if not (place / "rowserve").is_dir():
        click.echo(f"building {commit} ...", err=True)
        with tempfile.TemporaryDirectory() as folder:
            tree = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "x", "-C", folder], input=tree, check=True)
            target = ("--target", str(place.with_suffix(".part")))
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade")
            subprocess.run([*pip, *target, folder], check=True)
        place.with_suffix(".part").rename(place)
    return place


def short(commit: str) -> str:
    """Its digits."""
    command = ["git", "rev-parse", "--short", commit]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


KNOWN = wrk.Load(TINY, 1, 32, 1.0, TINY.rows(POOL, 1))
NEW = wrk.Load(TINY, 1, 32, 0.0, TINY.rows(1, 1))


def loads(crops: Path, seconds: int) -> Mapping[str, Run]:
    """Each load by its name: it gives requests a second, or pictures.

    New pictures are known ones sent with `no-cache`: decoded, computed and kept again.
    """

    def rows(load: wrk.Load) -> Run:
        def run(side: Served) -> float:
            done = wrk.run(f"http://127.0.0.1:{side.port}/v2/models/{TINY.name}/infer", load, FORMS["binary"], seconds)
            if done.bad:
                raise RuntimeError(f"{done.bad} requests failed")
            return done.requests_per_second

        return run

    def pictures(**headers: str) -> Run:
        return lambda side: upload(side, crops, headers, seconds=float(seconds))

    return {
        "hits": rows(KNOWN),
        "misses": rows(NEW),
        "uploads, known": pictures(),
        "uploads, new": pictures(**{"Cache-Control": "no-cache"}),
    }


def fill(side: Served, crops: Path) -> None:
    """Each known row and picture once."""
    client, form = side.connect(), FORMS["binary"]
    for row in range(POOL):
        body = form.body(TINY, KNOWN.pool[row : row + 1])
        client.request("POST", f"/v2/models/{TINY.name}/infer", body, form.headers(TINY, 1))
        answer = client.getresponse()
        answer.read()
        assert answer.status == 200
    client.close()
    upload(side, crops, {})


def upload(side: Served, crops: Path, headers: Mapping[str, str], **more: float) -> float:
    """Pictures a second. Raises RuntimeError where one failed."""
    done = uploads.run(port=side.port, target="/images/pictures", folder=str(crops), headers=dict(headers), **more)
    if done["bad"]:
        raise RuntimeError(f"{done['bad']} uploads failed")
    return float(done["answers"] / done["seconds"])


def ratio(run: Run, sides: Sequence[Served], turn: int) -> tuple[float, float]:
    """What (head, base) do in a turn; who is first changes from turn to turn."""
    done = {side: run(sides[side]) for side in ((0, 1) if turn % 2 else (1, 0))}
    return done[0], done[1]


def figure(name: str, pairs: Sequence[tuple[float, float]]) -> Figure:
    """The median of the ratios, and its interval."""
    each = sorted(ours / base for ours, base in pairs)
    low, high = interval(len(each))
    head, base = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    detail = f"95 % interval {each[low]:.3f} to {each[high]:.3f}; {head:,.0f}/s against {base:,.0f}/s"
    return Figure(name, statistics.median(each), "x", KEPT, detail, at_least=True)


def interval(count: int) -> tuple[int, int]:
    """Places, in sorted order, of the two values between which the median lies with CONFIDENCE: the number of values
    below it is binomial (count, 1/2)."""
    below, place = 0.0, 0
    while below + math.comb(count, place) / 2**count <= (1 - CONFIDENCE) / 2:
        below += math.comb(count, place) / 2**count
        place += 1
    return max(0, place - 1), min(count - 1, count - place)


if __name__ == "__main__":
    main()
