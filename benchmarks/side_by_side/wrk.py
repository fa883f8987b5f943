"""Runs wrk, the load generator, with `load.lua`: one thread of C, the same for all sides."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.rows import Form, Model
from rowserve.graphs.rows import Array

SCRIPT = Path(__file__).with_name("load.lua")
STAMP_BYTES = 8
APART = 10_000_000
FIRST = itertools.count(APART, APART)
"""New rows of one run are none of another's."""


@dataclass(frozen=True)
class Load:
    """What is sent: `rows` of `model` a request over `connections`; the share `known` of them from the rows `pool`."""

    model: Model
    rows: int
    connections: int
    share: float
    pool: Array


@dataclass(frozen=True)
class Run:
    """What came of it; seconds."""

    requests_per_second: float
    rows_per_second: float
    p50: float
    p99: float
    bad: int

    def with_more(self, requests: int, rows: int, seconds: float) -> Run:
        """With requests that somebody else has sent meanwhile."""
        rate = requests / seconds
        return replace(
            self,
            requests_per_second=self.requests_per_second + rate,
            rows_per_second=self.rows_per_second + rate * rows,
        )


def installed() -> bool:
    """Whether there is a wrk."""
    return shutil.which("wrk") is not None


def run(url: str, load: Load, form: Form, seconds: int) -> Run:
    """One timed run; whole seconds, as wrk wants them. Raises RuntimeError where wrk did not do it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), load, form)
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(SCRIPT), url]
        done = subprocess.run([*command, "--", folder], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk: {done.stdout[-500:]} {done.stderr[-500:]}")
    told: dict[str, Any] = json.loads(lines[-1])
    rate = told["requests"] / told["seconds"]
    return Run(rate, rate * load.rows, told["p50"], told["p99"], told["bad"])


def write(folder: Path, load: Load, form: Form) -> None:
    """The files that load.lua reads."""
    known = load.pool if load.share else load.pool[:1]
    whole = form.row(known[0])
    if form.text:
        numbers = whole.strip(b"[]").split(b",", 2)
        before, tail, stamp = b"[", b"," + numbers[2] + b"]", "text"
    else:
        before, tail, stamp = b"", whole[STAMP_BYTES:], load.model.dtype
    headers = ", ".join(f'["{name}"] = "{told}"' for name, told in form.headers(load.model, load.rows).items())
    spec = (
        f"return {{rows = {load.rows}, known = {len(known)}, share = {load.share}, row_bytes = {len(whole)}, "
        f'stamp = "{stamp}", before = "{before.decode()}", first = {next(FIRST)}, text = {str(form.text).lower()}, '
        f"headers = {{{headers}}}}}"
    )
    separator = b"\n" if form.text else b""
    files = {
        "spec.lua": spec.encode(),
        "front": form.front(load.model, load.rows),
        "between": form.between,
        "end": form.end,
        "known": separator.join(map(form.row, known)),
        "tail": tail,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
