"""Where the sides meet: the servers that run, the loads they get in turns, and the checks of what they answer."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.side_by_side import bare, wrk
from benchmarks.side_by_side.result import Series
from benchmarks.side_by_side.rows import EFFICIENTNET, Form, Model, equal
from benchmarks.side_by_side.sides import BareLimit, Kit, Peer, Rowserve, Side
from rowserve.graphs.rows import Array

WARM_SECONDS = 1
SAMPLES = 8
SETTLE_SECONDS = 0.6
OURS = "rowserve"
OPENVINO = "rowserve, openvino"
OUTCOME = re.compile(r'^rowserve_rows_total\{[^}]*outcome="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)


@dataclass
class Arena:
    """One run of the program. `kit` is None where there are no rivals; `only` names the rivals wanted, () is all."""

    scratch: Path
    kit: Kit | None
    only: Sequence[str]
    turns: int
    seconds: int
    full: bool
    child: ProcessPoolExecutor
    checks: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _running: dict[str, Side] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.models = self.scratch / "models"
        self.versions = {name: self._version(name) for name in ("tiny", "mobilenet", "efficientnet_lite0")}

    def _version(self, name: str) -> Path:
        """The model's SavedModel, which all sides load; linked where rowserve finds it."""
        from benchmarks.real_model import MODELS

        if name == EFFICIENTNET.name:
            version = MODELS[name]() / "1"
        elif self.kit is not None and (self.kit.models / name / "1").is_dir():
            version = self.kit.models / name / "1"
        else:
            version = self.scratch / "made" / name / "1"
            save = bare.save_tiny if name == "tiny" else bare.save_mobilenet
            self.child.submit(save, version.parent).result()
        link(version, self.models / name)
        return version

    # Sides

    def rowserve(self) -> Rowserve:
        """The server with all models."""
        side = self.running(OURS, lambda: Rowserve(self.models, self.scratch / "cache"))
        assert isinstance(side, Rowserve)
        return side

    def openvino(self, name: str) -> list[Side]:
        """The same with `engine = "openvino"` in the model's card, where that is installed."""
        folder = self.scratch / f"openvino-{name}"
        if not bare.has("openvino"):
            return []
        link(self.versions[name], folder / name)
        (folder / name / "rowserve.toml").write_text('engine = "openvino"\n', encoding="utf-8")
        make = lambda: Rowserve(folder, self.scratch / f"cache-{name}", OPENVINO)  # noqa: E731
        return self.maybe(f"{OPENVINO}: {name}", make)

    def peers(self, forms: Sequence[str] = ("binary", "raw", "json", "v2json")) -> list[Side]:
        """The rivals that are installed, without a cache; those that take rows in one of these forms."""
        from benchmarks.side_by_side.sides import PEERS

        if self.kit is None:
            return []
        names = [name for name in self.kit.installed() if name != "triton" and PEERS[name][1] in forms]
        found: list[Side] = []
        for name in names:
            if not self.only or name in self.only:
                self.stop(f"{name} cache")  # the kit starts each of them once
                found += self.maybe(name, lambda name=name: Peer(self.kit, name))  # type: ignore[misc]
        return found

    def cached_triton(self) -> list[Side]:
        """Triton with its response cache."""
        kit = self.kit
        if kit is None or "triton-direct" not in kit.installed() or (self.only and "triton-direct" not in self.only):
            return []
        self.stop("triton-direct")
        return self.maybe("triton-direct cache", lambda: Peer(kit, "triton-direct", "cache"))

    def bare_limit(self, *arguments: str) -> list[Side]:
        """The yardstick of the kit."""
        kit = self.kit
        return [] if kit is None else self.maybe(f"bare {arguments[0]}", lambda: BareLimit(kit, *arguments))

    def maybe(self, key: str, make: Callable[[], Side]) -> list[Side]:
        """The side, or nothing and a note where it does not start."""
        try:
            return [self.running(key, make)]
        except RuntimeError as error:
            self.note(f"{key} did not start: {error}")
            return []

    def running(self, key: str, make: Callable[[], Side]) -> Side:
        """The side that runs under this name, started if need be."""
        if key not in self._running:
            click.echo(f"  starting {key}", err=True)
            side = make()
            side.__enter__()
            self._running[key] = side
        return self._running[key]

    def stop(self, key: str) -> None:
        """Stops a side if it runs."""
        if side := self._running.pop(key, None):
            side.__exit__(None, None, None)

    def close(self) -> None:
        """Stops all."""
        for key in list(self._running):
            self.stop(key)

    def note(self, text: str) -> None:
        """Something that the reader of the figures should know."""
        click.echo(f"  {text}", err=True)
        if text not in self.notes:
            self.notes.append(text)

    # Loads

    def compare(self, load: wrk.Load, sides: Sequence[Side], seconds: int | None = None) -> dict[str, Series]:
        """The load on each side, in turns."""
        return self.in_turns({side.name: self.timed(load, side, seconds or self.seconds) for side in sides})

    def in_turns(self, runs: Mapping[str, Callable[[], wrk.Run]]) -> dict[str, Series]:
        """A B A B ...: what the machine does meanwhile then hits all alike."""
        found = {name: Series() for name in runs}
        for _ in range(self.turns):
            for name, run in runs.items():
                found[name].add(run())
        for name, series in found.items():
            if series.bad:
                self.wrong.append(f"{name}: {series.bad} requests failed")
        return found

    def timed(self, load: wrk.Load, side: Side, seconds: int) -> Callable[[], wrk.Run]:
        """A run of this load on this side, ready to go: its cache filled, itself warm."""
        fill(side, load)
        wrk.run(side.url(load.model), load, side.form, WARM_SECONDS)
        wanted = self.reference(load.model, load.pool) if side.checked else load.pool

        def run() -> wrk.Run:
            witness = Witness(side, load, seconds / (SAMPLES if load.model.row_bytes < 1000 else 3))
            before = outcomes(side)
            witness.start()
            done = wrk.run(side.url(load.model), load, side.form, seconds)
            witness.ended.set()
            witness.join()
            done = done.with_more(len(witness.told), load.rows, seconds)
            self.judge(side, load, witness, wanted)
            self.judge_outcomes(side, load, outcomes(side) - before)
            click.echo(f"  {side.name}: {done.requests_per_second:,.1f} req/s, p50 {done.p50 * 1e3:.3g} ms", err=True)
            return done

        return run

    def reference(self, model: Model, rows: Array) -> Array:
        """What the bare model says to these rows."""
        answers: Array = self.child.submit(bare.answers, self.versions[model.name], rows).result()
        return answers

    def judge(self, side: Side, load: wrk.Load, witness: Witness, known: Array) -> None:
        """Compares what the witness was told with what the bare model says."""
        if not side.checked:
            return
        if witness.fault:
            self.wrong.append(f"{side.name}: {witness.fault}")
        for rows, places, answer in witness.told:
            wanted = known[places] if places is not None else self.reference(load.model, rows)
            self.checks += len(wanted)
            if not equal([answer[-wanted.size :]], [wanted.ravel()]):
                self.wrong.append(f"{side.name}, {load.model.name}: an answer is not the model's")

    def judge_outcomes(self, side: Side, load: wrk.Load, rows: Counter[str]) -> None:
        """Hits must have been hits, and misses misses."""
        known, new = rows["hit"] + rows["collapsed"], rows["computed"] + rows["bypassed"]
        others = {1.0: new, 0.0: known}.get(load.share, 0)  # those cut off at the end of a run have failed
        if others > 0.01 * (known + new):
            self.wrong.append(
                f"{side.name}, {load.model.name}: {others:,} of {known + new:,} rows were not what they should be"
            )


class Witness(threading.Thread):
    """Asks now and then while a load runs, and keeps what it is told. New rows of its own are unlike all others."""

    def __init__(self, side: Side, load: wrk.Load, pause: float) -> None:
        super().__init__(daemon=True)
        self.told: list[tuple[Array, Any, Array]] = []
        self.ended = threading.Event()
        self.fault = ""
        self._side = side
        self._load = load
        self._pause = pause
        self._random = np.random.default_rng()

    def run(self) -> None:
        """The thread."""
        load, client = self._load, http.client.HTTPConnection("127.0.0.1", self._side.port, timeout=60)
        try:
            while not self.ended.wait(self._pause):
                if self._random.random() < load.share:
                    places = self._random.integers(0, len(load.pool), load.rows)
                    rows = load.pool[places]
                else:
                    places, rows = None, load.model.rows(load.rows, int(self._random.integers(1 << 62)))
                self.told.append((rows, places, ask(client, self._side, load.model, rows)))
        except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
            self.fault = f"{type(error).__name__}: {error}"
        client.close()


def ask(client: http.client.HTTPConnection, side: Side, model: Model, rows: Array) -> Array:
    """One request. Raises RuntimeError unless it is answered with 200."""
    form: Form = side.form
    client.request("POST", side.path(model), form.body(model, rows), form.headers(model, len(rows)))
    answer = client.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {body[:200]!r}")
    return form.answer(answer.headers, body) if side.checked else rows


def fill(side: Side, load: wrk.Load) -> None:
    """Each known row once, so that it is in the cache."""
    if load.share:
        client = http.client.HTTPConnection("127.0.0.1", side.port, timeout=60)
        for at in range(len(load.pool)):
            ask(client, side, load.model, load.pool[at : at + 1])
        client.close()
        time.sleep(SETTLE_SECONDS)


def outcomes(side: Side) -> Counter[str]:
    """rowserve's own count of rows by outcome; nothing of the others."""
    if not isinstance(side, Rowserve):
        return Counter()
    _, text = side.served.connect().ask("GET", "/metrics")
    found: Counter[str] = Counter()
    for outcome, count in OUTCOME.findall(text.decode()):
        found[outcome] += int(float(count))
    return found


def link(version: Path, model: Path) -> None:
    """The model's folder, with this version in it."""
    model.mkdir(parents=True, exist_ok=True)
    if not (model / "1").exists():
        (model / "1").symlink_to(version, target_is_directory=True)


def sides_of(*groups: Sequence[Side]) -> Iterator[Side]:
    """All of them."""
    for group in groups:
        yield from group
