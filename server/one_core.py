"""Keeps the threads that hand Python's interpreter to one another on one core, while they do hardly anything else.

Only one of them runs at a time. On several cores each hand-over wakes a core that has just gone to sleep, and moves
what Python touches from one core's cache to the other's: rows of a small model cost half as much again. Threads that
work without the interpreter (a large model's, the decode pool's) are left alone, and so are all while a model has long
batches.

Reactor thread, but for `apart` and `joined`, which a thread calls of itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from rowserve.server.clock import Clock

TICK = 0.5
REST_TICKS = 10  # without another try, once others wanted the core
MANY = 100  # hand-overs in a tick
LIGHT = 0.002  # seconds without the interpreter that one takes at most
# Parts of a core's time. One that is busy for longer is full; others that take more of it are others that want it.
FULL = 0.9
FOREIGN = 0.4
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Work:
    """How often a thread has got something from another so far, a batch or a call, and the seconds it took for them."""

    handovers: int
    seconds: float = 0.0


class Cores(Protocol):
    """The machine's cores, for threads of this process."""

    def may_use(self) -> frozenset[int]:
        """Those that this process may use."""

    def keep_on(self, thread: int, cores: frozenset[int]) -> None:
        """From now on it runs on these. Raises OSError."""

    def at(self, thread: int) -> int:
        """Where it ran last. Raises OSError."""

    def ran(self, thread: int) -> float:
        """Its seconds so far. Raises OSError."""

    def busy(self, core: int) -> float:
        """Seconds that the core has worked so far, for whomever. Raises OSError."""


class OneCore:
    """`start` once. Each that is watched tells how much it has done so far."""

    def __init__(self, clock: Clock, cores: Cores) -> None:
        self._cores = cores
        self._watched: list[tuple[Callable[[], Work], Work]] = []
        self._all = cores.may_use()
        self._reactor = threading.get_native_id()
        self._threads = {self._reactor}
        self._core: int | None = None
        self._rest = 0
        self._busy = self._ran = 0.0
        self._call = LoopingCall(self._ticked)
        self._call.clock = cast("Any", clock)

    def watch(self, work: Callable[[], Work]) -> None:
        """A model, or another that has a thread among them."""
        self._watched.append((work, Work(0)))

    def start(self) -> None:
        """Begin to look after them, where there is a choice."""
        if len(self._all) > 1:
            self._call.start(TICK, now=False)

    def stop(self) -> None:
        """Leave all to the system."""
        if self._call.running:
            self._call.stop()
        self._free()

    def apart(self) -> None:
        """The thread that calls it may run on all cores, whatever its parent's are. Those that it starts inherit it."""
        if len(self._all) > 1:
            with suppress(OSError):  # a sandbox that does not allow it
                self._cores.keep_on(threading.get_native_id(), self._all)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """While it lasts, the thread that calls it is one of them. It begins on all cores."""
        self.apart()
        thread = threading.get_native_id()
        self._threads.add(thread)
        try:
            yield
        finally:
            self._threads.discard(thread)

    def _ticked(self) -> None:
        wanted = self._many_and_light()
        try:
            if self._core is None:
                self._rest = max(self._rest - 1, 0)
                if wanted and not self._rest:
                    self._share(self._cores.at(self._reactor))
            elif not wanted:
                self._free()
            elif self._crowded(self._core):
                self._free()
                self._rest = REST_TICKS
            else:
                self._share(self._core)  # there may be a new one among them
        except OSError:  # a thread has just ended, or this system does not tell
            self._free()
            self._rest = REST_TICKS

    def _many_and_light(self) -> bool:
        """Whether there were many hand-overs since the last look, none of them to a thread that has long work."""
        many, light = 0, True
        for at, (work, before) in enumerate(self._watched):
            done = work()
            self._watched[at] = work, done
            handovers = done.handovers - before.handovers
            many += handovers
            light = light and done.seconds - before.seconds <= handovers * LIGHT
        return light and many >= MANY

    def _crowded(self, core: int) -> bool:
        """Whether others have had much of the core since the last look, and nothing of it was left."""
        busy, ran = self._cores.busy(core) - self._busy, self._all_ran() - self._ran
        return busy > FULL * TICK and busy - ran > FOREIGN * TICK

    def _share(self, core: int) -> None:
        self._core = core
        for thread in list(self._threads):
            self._cores.keep_on(thread, frozenset([core]))
        self._busy, self._ran = self._cores.busy(core), self._all_ran()

    def _all_ran(self) -> float:
        return sum(self._cores.ran(thread) for thread in list(self._threads))

    def _free(self) -> None:
        if self._core is None:
            return
        self._core = None
        for thread in list(self._threads):
            with suppress(OSError):  # it has just ended
                self._cores.keep_on(thread, self._all)


class LinuxCores:
    """Read from /proc (proc(5)); elsewhere there is one core, and so no choice."""

    def may_use(self) -> frozenset[int]:
        """See Cores."""
        return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset([0])

    def keep_on(self, thread: int, cores: frozenset[int]) -> None:
        """See Cores."""
        os.sched_setaffinity(thread, cores)

    def at(self, thread: int) -> int:
        """See Cores."""
        return int(self._fields(thread)[36])

    def ran(self, thread: int) -> float:
        """See Cores."""
        fields = self._fields(thread)
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def _fields(self, thread: int) -> list[str]:
        """What follows the name in brackets, which may hold anything."""
        return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()

    def busy(self, core: int) -> float:
        """See Cores."""
        for line in Path("/proc/stat").read_text().splitlines():
            name, *times = line.split()
            if name == f"cpu{core}":
                user, nice, system, _idle, _waiting, *interrupts = map(int, times[:7])
                return (user + nice + system + sum(interrupts)) / TICKS_A_SECOND
        raise OSError(f"/proc/stat does not tell of core {core}")
