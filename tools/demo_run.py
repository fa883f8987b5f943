"""The demo: the real server and the real tools, as processes, on real photos.

Main thread, blocking; without a reactor, but where it serves in the foreground.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import platformdirs

from rowserve.tools.efficientnet import NAME, MissingPackages, efficientnet_model
from rowserve.tools.export import BuildFailed
from rowserve.tools.options import Refused
from rowserve.tools.photos import MissingPhotos, Photo, sample_photos

SERVING = re.compile(r"serving .* on (http://\S+)")
SUMMARY = re.compile(r"(\d+) rows: (\d+) hits")
CALLS = re.compile(r"^rowserve_graph_seconds_count (\d+)", re.MULTILINE)
STOP_SECONDS = 60.0
ALL_WELL, SOMETHING_WRONG = 0, 1


@dataclass(frozen=True)
class Seen:
    """What came back for a photo."""

    label: str
    score: float
    outcome: str
    ms: float


@dataclass
class Findings:
    """What was not as it should be."""

    faults: list[str] = field(default_factory=list)

    def expect(self, held: bool, fault: str) -> None:
        """Notes the fault unless it held."""
        if not held:
            self.faults.append(fault)


def demo_server(listen: str | None, **flags: Any) -> int:
    """Serves in the foreground."""
    models, photos = prepared()
    from rowserve.tools.serving import serve_http

    first = tuple(str(photo.path) for photo in photos[:2])
    where = () if listen is None else (listen,)
    return serve_http(models=models, model={}, listen=where, photos=first, config=None, **flags)


def demo_once() -> int:
    """All of it once, from building the model to the table."""
    models, photos = prepared()
    found = Findings()
    with tempfile.TemporaryDirectory(prefix="rowserve-demo-") as folder, running_server(models, folder) as url:
        client = Client(url)
        first = [client.upload(photo) for photo in photos]
        calls = client.graph_calls()
        second = [client.upload(photo) for photo in photos]
        found.expect(client.graph_calls() == calls, "the second pass ran the graph")
        client.sync()
        check_passes(found, photos, first, second)
        check_infer(found, photos, tool("infer", models, folder, lines=[str(photo.path) for photo in photos]))
        check_warm(found, photos, tool("warm", models, folder, *(str(photo.path) for photo in photos)))
        found.expect(client.graph_calls() == calls, "the server's graph ran while the tools worked")
    print_table(photos, first, second)
    for fault in found.faults:
        click.echo(f"rowserve demo: {fault}", err=True)
    if not found.faults:
        click.echo("Second pass, infer and warm: nothing but hits, and no graph call.")
    return SOMETHING_WRONG if found.faults else ALL_WELL


def prepared() -> tuple[Path, Sequence[Photo]]:
    """The folder of models, with the model in it, and the photos. Raises Refused."""
    models = platformdirs.user_cache_path("rowserve", appauthor=False) / "models"
    try:
        photos = sample_photos()
        efficientnet_model(models)
    except (MissingPackages, MissingPhotos, BuildFailed, OSError) as error:
        raise Refused(str(error)) from None
    return models, photos


def command(name: str, *arguments: str) -> list[str]:
    """`rowserve`, as this installation has it."""
    return [sys.executable, "-m", "rowserve.tools.cli", name, *arguments]


@contextmanager
def running_server(models: Path, cache: str) -> Iterator[str]:
    """A server on a free port, in a process of its own; its address. Raises Refused where it does not start."""
    started = command("serve", "--models", str(models), "--listen", "127.0.0.1:0", "--cache", cache)
    with subprocess.Popen(started, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = []
            for line in server.stderr:
                said.append(line.strip())
                if address := SERVING.search(line):
                    break
            else:
                raise Refused(f"the server did not start: {said[-1] if said else 'no word from it'}")
            yield address[1]
        finally:
            server.terminate()
            try:
                server.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


class Client:
    """What a browser or curl would do. Raises OSError where the server is not there any more."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc)

    def _ask(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> bytes:
        self._connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        return self._connection.getresponse().read()

    def upload(self, photo: Photo) -> Seen:
        """One photo, as a request's body."""
        began = time.perf_counter()
        answer = json.loads(self._ask("POST", f"/images/{NAME}?top=1", photo.path.read_bytes(), "image/*"))
        ms = (time.perf_counter() - began) * 1000
        return seen(answer.get("rows", [answer])[0], ms)

    def graph_calls(self) -> int:
        """How often the graph has run for somebody."""
        found = CALLS.search(self._ask("GET", "/metrics").decode())
        return int(found[1]) if found else -1

    def sync(self) -> None:
        """Returns when all that was answered is on disk, where other processes find it."""
        self._ask("POST", f"/rows/{NAME}?sync=1", b"", "application/x-ndjson")


def seen(row: dict[str, Any], ms: float = 0.0) -> Seen:
    """A row of an answer, of the server or of `infer`."""
    best = row.get("top") or [{"label": row.get("error", {}).get("detail", "no answer"), "score": 0.0}]
    return Seen(best[0]["label"], best[0]["score"], row.get("cache", "failed"), ms)


def tool(name: str, models: Path, cache: str, *arguments: str, lines: Sequence[str] = ()) -> Any:
    """`infer` or `warm` in a process of its own."""
    done = command(name, NAME, *arguments, "--models", str(models), "--cache", cache)
    text = "".join(f"{line}\n" for line in lines)
    return subprocess.run(done, input=text, capture_output=True, text=True, check=False)


def check_passes(found: Findings, photos: Sequence[Photo], first: Sequence[Seen], second: Sequence[Seen]) -> None:
    """Every photo has its label; the first pass was computed, the second found."""
    for photo, once, again in zip(photos, first, second, strict=True):
        name = photo.path.name
        found.expect(once.label == photo.label, f"{name} is {photo.label}, not {once.label}")
        found.expect(once.outcome == "computed", f"{name}, first upload: {once.outcome}, not computed")
        found.expect(again.outcome == "hit", f"{name}, second upload: {again.outcome}, not hit")
        found.expect(again.label == once.label, f"{name}, second upload: another label")


def check_infer(found: Findings, photos: Sequence[Photo], done: Any) -> None:
    """`infer` found every photo."""
    rows = [seen(json.loads(line)) for line in done.stdout.splitlines()]
    found.expect(done.returncode == 0, f"infer ended with exit {done.returncode}: {done.stderr.strip()}")
    found.expect([row.label for row in rows] == [photo.label for photo in photos], "infer: other labels")
    found.expect(all(row.outcome == "hit" for row in rows), "infer: not all hits")


def check_warm(found: Findings, photos: Sequence[Photo], done: Any) -> None:
    """`warm` found every photo."""
    told = SUMMARY.search(done.stderr)
    found.expect(done.returncode == 0, f"warm ended with exit {done.returncode}: {done.stderr.strip()}")
    found.expect(told is not None and told[1] == told[2] == str(len(photos)), "warm: not all hits")


def print_table(photos: Sequence[Photo], first: Sequence[Seen], second: Sequence[Seen]) -> None:
    """A line a photo."""
    rows = [("photo", "label", "score", "first", "ms", "again", "ms")]
    for photo, once, again in zip(photos, first, second, strict=True):
        times = f"{once.ms:.1f}", f"{again.ms:.1f}"
        rows.append(
            (photo.path.name, once.label, f"{once.score:.2f}", once.outcome, times[0], again.outcome, times[1])
        )
    widths = [max(len(row[at]) for row in rows) for at in range(7)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for at in (2, 4, 6):
            cells[at] = row[at].rjust(widths[at])
        click.echo("  ".join(cells).rstrip())
