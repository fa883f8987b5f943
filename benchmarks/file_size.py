"""Bytes of the cache's file for each row it holds: the index, the order of eviction and free pages included."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.made_up import MadeUp, flat, numbered_rows
from benchmarks.table import Figure, emit


def bytes_a_row(rows: int, answer: int) -> float:
    """Of the file that the writer has made, written in groups as in service."""
    with tempfile.TemporaryDirectory() as folder:
        made_up = MadeUp(Path(folder), flat(64), answer, group_rows=256)
        inputs, outputs = numbered_rows(rows, 64), numbered_rows(rows, answer, 1).view("<f4")
        made_up.fill(inputs, outputs)
        made_up.cache.close()
        (file,) = Path(folder).rglob("data.mdb")
        return file.stat().st_size / rows


def figures(quick: bool) -> Iterator[Figure]:
    """Both sizes of answers."""
    for answer, many, wanted in ((4000, 100_000, 4600), (100, 400_000, 400)):
        rows = many // 20 if quick else many
        found = bytes_a_row(rows, answer)
        detail = f"{rows:,} rows; the answer and its key alone are {answer + 32:,} B"
        yield Figure(f"file bytes a row, {answer:,}-byte answers", found, " B", wanted, detail)


if __name__ == "__main__":
    emit(figures)
