"""A bar on the terminal, while there is one to see it. Any thread that owns it; one at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNTED_BYTES = 1 << 20


class Progress:
    """Rows done, of `total` where that is known. `total` is only called where a bar is shown."""

    def __init__(self, shown: bool, total: Callable[[], int | None] = lambda: None) -> None:
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(total=total(), unit=" rows", dynamic_ncols=True, file=sys.stderr)

    def add(self, rows: int) -> None:
        """So many more are done."""
        if self._bar is not None:
            self._bar.update(rows)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def shown_for_infer() -> bool:
    """Only where it does not run into the answers, or into what a person types."""
    return os.isatty(2) and not os.isatty(1) and not os.isatty(0)


def count_lines(file: Path | int) -> int | None:
    """The lines from here to the end of a file (a path, or a descriptor, which stays where it is); None of a pipe."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC) if isinstance(file, Path) else file
    try:
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        lines, last = 0, b"\n"
        while piece := os.pread(descriptor, COUNTED_BYTES, at):
            lines, last, at = lines + piece.count(b"\n"), piece, at + len(piece)
        return lines + (not last.endswith(b"\n"))
    except OSError:
        return None
    finally:
        if isinstance(file, Path):
            os.close(descriptor)
