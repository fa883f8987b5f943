"""The server's private memory while it answers ever new rows: lines and uploads, kept, and evicted again."""

from __future__ import annotations

import io
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.infer import digit_lines
from benchmarks.real_model import model_folder
from benchmarks.served import Client, Served, form
from benchmarks.table import Figure, emit, number

NAME = "digits"
LINES = 9_000
UPLOADS = 1_000
A_FORM = 100
TURN = LINES + UPLOADS
LAST = 3  # turns over which memory is read, before each mark
CARD = '\n[picture]\ncolour = "grey"\nrange = [0, 16]\n'


def model_with_pictures(folder: Path) -> Path:
    """The digits model with a card that lets it take pictures; its --models folder."""
    shutil.copytree(model_folder(NAME) / NAME, folder / NAME)
    card = folder / NAME / "rowserve.toml"
    card.write_text(card.read_text(encoding="utf-8") + CARD, encoding="utf-8")
    return folder


def pictures(turn: int) -> list[bytes]:
    """Different PNGs of 8 x 8 grey pixels."""
    from PIL import Image

    pixels = np.random.default_rng(turn).integers(0, 256, (UPLOADS, 8, 8), np.uint8)
    found = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        found.append(file.getvalue())
    return found


def one_turn(client: Client, turn: int, lines: bytes) -> None:
    """LINES new rows as lines, UPLOADS new pictures in forms."""
    status, answer = client.ask("POST", f"/rows/{NAME}?top=1&priority=bulk", lines, "application/x-ndjson")
    assert (status, answer.count(b'"computed"')) == (200, LINES), (status, answer[:300])
    files = pictures(turn)
    for at in range(0, UPLOADS, A_FORM):
        status, answer = client.ask("POST", f"/images/{NAME}?top=1", *form(files[at : at + A_FORM]))
        assert (status, answer.count(b'"computed"')) == (200, A_FORM), (status, answer[:300])


def figures(quick: bool) -> Iterator[Figure]:
    """One."""
    early, late, size = (20_000, 60_000, "8MiB") if quick else (100_000, 1_000_000, "64MiB")
    lines = digit_lines(late // TURN * LINES).splitlines(keepends=True)
    read: list[int] = []
    marks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = model_with_pictures(folder / "models")
        with Served("--models", str(models), "--cache", str(folder / "c"), "--cache-size", size) as server:
            client = server.connect()
            for turn in range(late // TURN):
                one_turn(client, turn, b"".join(lines[turn * LINES : (turn + 1) * LINES]))
                read.append(server.private_bytes())
                marks[(turn + 1) * TURN] = statistics.median(read[-LAST:])
            evicted = metric(client, "rowserve_cache_evicted_total")
    assert evicted > 0, "nothing was evicted: the cache is too large for this benchmark"
    grown = 100 * (marks[late] / marks[early] - 1)
    detail = f"{number(marks[early] / 2**20)} MiB, then {number(marks[late] / 2**20)} MiB; {evicted:,.0f} rows evicted"
    yield Figure(f"private memory from {early:,} to {late:,} distinct rows", grown, " %", 10, detail)


def metric(client: Client, name: str) -> float:
    """A metric's value."""
    text = client.ask("GET", "/metrics")[1].decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    emit(figures)
