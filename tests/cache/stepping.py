"""A cache whose writer thread, clock and reactor are moved by hand; and children to be stopped and killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rowserve.cache.books import About, Books
from rowserve.cache.commits import Limits
from rowserve.cache.memory_store import MemoryStore
from rowserve.cache.opening import open_cache
from rowserve.cache.row_cache import RowCache
from rowserve.cache.stats import CacheStats
from rowserve.cache.writer import Writer

SECRET = bytes(range(32))
START = 1_700_000_000.0
MIB = 2**20


class SteppedCache:
    """A RowCache in a folder, or over a store of one's own. Nothing moves but by `step` and `react`."""

    def __init__(
        self,
        folder: Path | None = None,
        size: int | None = None,
        *,
        store: Any = None,
        limits: Limits | None = None,
        **more: Any,
    ) -> None:
        self.now = START
        self.lines: list[str] = []
        self.threads: list[Callable[[], None]] = []
        self.calls: list[Callable[[], None]] = []
        ways: dict[str, Any] = {
            "clock": lambda: self.now,
            "start_thread": self.threads.append,
            "call_in_reactor": lambda call: self.calls.append(call),
            "limits": limits,
            **more,
        }
        if folder is not None:
            self.cache = open_cache(folder, size, log=self.lines.append, **ways)
        else:
            stats = CacheStats(log=self.lines.append)
            self.cache = RowCache(store, secret=SECRET, stats=stats, **ways)

    @property
    def writer(self) -> Writer:
        """The writer behind the thread that was to be started."""
        writer: Writer = self.threads[0].__self__  # type: ignore[attr-defined]
        return writer

    @property
    def store(self) -> Any:
        return self.writer.store

    @property
    def stats(self) -> CacheStats:
        return self.cache.stats

    def step(self) -> None:
        self.writer.step()

    def react(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def settle(self) -> None:
        """Write all that is queued."""
        while self.stats.queued_rows:
            self.step()
        self.react()

    def close(self) -> None:
        """With a thread at last."""
        for run in self.threads:
            threading.Thread(target=run, daemon=True).start()
        self.cache.close(60)


def memory_store(size: int = 4 * MIB, pages: int = 4096) -> MemoryStore:
    """A memory store that says what it is."""
    store = MemoryStore(pages)
    with store.update() as update:
        Books(update, int(START)).describe(About(size, "00"))
    return store


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code`; gone afterwards."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that a child says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Give a child the line that it waits for."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def key(number: int) -> bytes:
    """A key that is not like its neighbours."""
    from blake3 import blake3

    return blake3(number.to_bytes(8, "big")).digest()
