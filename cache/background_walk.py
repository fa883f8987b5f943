"""Looks for damage in the cache file before it is stepped on. A thread of its own, which waits for a child process."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rowserve.cache import integrity, walk
from rowserve.cache.errors import CacheRefused, WalkEnded

# After a start, which has enough to do; then each day, or sooner where nothing came of it.
FIRST_SECONDS = 30.0
EVERY_SECONDS = 86400.0
AGAIN_SECONDS = 600.0
Call = Callable[[], None]


class BackgroundWalk:
    """Walks the file in the folder `rows`: all pages, the free list, then each record's checksum.

    `damaged` is told why the file must not be used any more, and another may take its place; `forget` the keys of
    single records that are damaged; both by `call_in_reactor`. The first walk comes `first` seconds after the start,
    each other one `every` seconds after the one before, or `again` seconds after one that could not be made.
    """

    def __init__(
        self,
        rows: Path,
        damaged: Callable[[str], None],
        forget: Callable[[bytes], None],
        call_in_reactor: Callable[[Call], None],
        first: float = FIRST_SECONDS,
        every: float = EVERY_SECONDS,
        again: float = AGAIN_SECONDS,
        command: Sequence[str] | None = None,
    ) -> None:
        self._rows = rows
        self._damaged = damaged
        self._forget = forget
        self._call_in_reactor = call_in_reactor
        self._first, self._every, self._again = first, every, again
        self._command = command or integrity.walk_command(rows, walk.BESIDE)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """The thread; it ends with `stop`."""
        pause: float | None = self._first
        while pause is not None and not self._stopped.wait(pause):
            pause = self._walk()

    def stop(self) -> None:
        """From any thread: a walk that runs is given up."""
        with self._lock:
            self._stopped.set()
            if self._child is not None:
                self._child.kill()

    def _walk(self) -> float | None:
        """In how many seconds another is to follow; None if none is."""
        file = self._file()
        try:
            status, said, fault = self._child_says()
            if self._stopped.is_set():
                return None
            if status == integrity.UNREAD:
                return self._again
            integrity.walked(self._rows, status, fault.decode(errors="replace"))
        except (OSError, WalkEnded):
            return self._again
        except CacheRefused as refused:
            if self._file() != file:
                return self._again  # it was of another file, which has been set aside meanwhile
            integrity.leave_mark(self._rows, str(refused))  # now: who has noted it only in memory may be killed
            why = str(refused)
            self._call_in_reactor(lambda: self._damaged(why))
            return self._every
        for key in map(bytes.fromhex, json.loads(said)["damaged"]):
            self._call_in_reactor(lambda key=key: self._forget(key))  # type: ignore[misc]
        return self._every

    def _file(self) -> int:
        """Which file it is; 0 where there is none."""
        try:
            return (self._rows / integrity.DATA).stat().st_ino
        except OSError:
            return 0

    def _child_says(self) -> tuple[int, bytes, bytes]:
        """Its exit status and what it wrote. Raises OSError where there can be no child."""
        pipe = subprocess.PIPE
        with self._lock:
            if self._stopped.is_set():
                return integrity.UNREAD, b"", b""
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        said, fault = self._child.communicate()
        return self._child.returncode, said, fault
