"""`rowserve infer` over many JSON rows of digits: its first run against a bare loop, its second against the first.

The bare loop does what a careful script would: parse 256 lines, one session call, encode the five best classes of each
row as `infer` prints them. Start-up counts for neither: both clocks begin when the first row has been answered.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.real_model import bare_session, model_folder
from benchmarks.table import Figure, emit, median_pair
from rowserve.graphs.rows import Array

NAME = "digits"
BATCH = 256
TOP = 5


def digit_lines(rows: int) -> bytes:
    """Different rows of 8 x 8 whole numbers from 0 to 16, a line each."""
    numbers = np.random.default_rng(0).integers(0, 17, (rows, 8, 8))
    numbers.reshape(rows, 64)[:, :6] = np.arange(rows)[:, None] // 17 ** np.arange(6) % 17
    return b"".join(orjson.dumps(row) + b"\n" for row in numbers.tolist())


def bare_loop(session: Callable[[Array], Array], lines: Sequence[bytes], out: Any) -> None:
    """Parse, batch of 256, session, encode."""
    labels = [str(digit) for digit in range(10)]
    for start in range(0, len(lines), BATCH):
        group = lines[start : start + BATCH]
        scores = session(np.array([orjson.loads(line) for line in group], np.float32))
        best = np.argsort(-scores, axis=1)[:, :TOP]
        for at, (indices, row) in enumerate(zip(best.tolist(), scores.tolist(), strict=True)):
            top = [{"index": i, "label": labels[i], "score": row[i]} for i in indices]
            out.write(orjson.dumps({"line": start + at + 1, "cache": "computed", "top": top, "outputs": {}}) + b"\n")


def command(cache: Path) -> list[str]:
    """As a user types it."""
    model = ["infer", NAME, "--models", str(model_folder(NAME))]
    return [sys.executable, "-m", "rowserve.tools.cli", *model, "--cache", str(cache)]


def first_run(cache: Path, first: bytes, rest: bytes, rows: int) -> tuple[float, float]:
    """Seconds from the first answer to the last, and of the whole process."""
    began = time.perf_counter()
    with subprocess.Popen(
        command(cache), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        os.write(program.stdin.fileno(), first)
        seen = program.stdout.readline().count(b"\n")
        started = time.perf_counter()
        feeder = threading.Thread(target=feed, args=(program.stdin, rest))
        feeder.start()
        while piece := os.read(program.stdout.fileno(), 1 << 20):
            seen += piece.count(b"\n")
            answered = time.perf_counter()
        feeder.join()
    assert (seen, program.returncode) == (rows, 0), (seen, program.returncode)
    return answered - started, time.perf_counter() - began


def feed(pipe: Any, content: bytes) -> None:
    """Writes it all, then ends the input."""
    pipe.write(content)
    pipe.close()


def second_run(cache: Path, source: Path, target: Path) -> float:
    """Seconds of the whole process."""
    began = time.perf_counter()
    with source.open("rb") as stdin, target.open("wb") as stdout:
        subprocess.run(command(cache), stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - began
    misses = [line for line in target.read_bytes().splitlines() if b'"cache":"hit"' not in line]
    assert not misses, f"{len(misses)} rows were not hits: {misses[:1]!r}"
    return seconds


def figures(quick: bool) -> Iterator[Figure]:
    """Both runs."""
    rows, turns = (5_000, 1) if quick else (100_000, 3)
    text = digit_lines(rows)
    lines = text.splitlines()
    first, rest = lines[0] + b"\n", text[len(lines[0]) + 1 :]
    session = bare_session(NAME)
    session(np.zeros((BATCH, 8, 8), np.float32))
    rates, wholes = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "lines.jsonl"
        source.write_bytes(text)
        for turn in range(turns):
            cache = folder / str(turn)
            running, whole = first_run(cache, first, rest, rows)
            with (folder / "bare.jsonl").open("wb") as out:
                began = time.perf_counter()
                bare_loop(session, lines, out)
                rates.append((time.perf_counter() - began, running))
            wholes.append((second_run(cache, source, folder / "out.jsonl"), whole))
    pair = median_pair(rates)
    what = f"infer over {rows:,} JSON rows of digits, first run, against a bare loop"
    detail = f"{rows / pair.bare:,.0f} rows/s against {rows / pair.ours:,.0f}"
    yield Figure(what, pair.ratio, "x", 0.5, detail, at_least=True)
    pair = median_pair(wholes)
    yield Figure("its second run, whole process, against the first", pair.ratio, "x", 1 / 3, pair.detail(1, "s"))


if __name__ == "__main__":
    emit(figures)
