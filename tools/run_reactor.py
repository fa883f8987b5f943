"""Runs one piece of work on the process's reactor, and turns its end or a signal into an exit status. Main thread."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, STDLibLogObserver, globalLogBeginner
from twisted.python.failure import Failure

from rowserve.tools.allocator import keep_freed_memory

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAILED = 1
SWITCH_SECONDS = 0.001
"""How long a thread may keep the others waiting. The graph thread is one of the others: with Python's own 5 ms it idles
after each batch while lines are being parsed."""


def log_to_stderr(form: str = "rowserve: %(message)s") -> None:
    """Routes all logs, Twisted's too, to stderr, a line each: warnings and worse."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=form, datefmt="%Y-%m-%d %H:%M:%S")
    twisted = cast(ILogObserver, STDLibLogObserver())
    globalLogBeginner.beginLoggingTo([twisted], redirectStandardIO=False, discardBuffer=True)


def choose_reactor() -> None:
    """To be called before anything imports the reactor; Klein does."""
    try:
        from rowserve.tools.lean_reactor import install
    except ImportError:  # there is no epoll: Twisted takes what there is
        return
    install()


class ReactorRun:
    """`run` once.

    `on_signal`, where set, is called in the reactor at the first signal and sees to it that the work ends; else that
    signal ends it. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.on_signal: Callable[[], None] | None = None
        self._signal = 0
        self._status = FAILED

    def run(self, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
        """The work's exit status, or 128 + the number of the signal that ended it. Raises what the work raises."""
        failures: list[Failure] = []

        def begin() -> None:
            for number in SIGNALS:
                signal.signal(number, self._signalled)
            done = Deferred.fromCoroutine(work())
            done.addCallbacks(self._finish, failures.append)
            done.addBoth(lambda _: self._stop())

        self.reactor.callWhenRunning(begin)
        sys.setswitchinterval(SWITCH_SECONDS)
        keep_freed_memory()
        self.reactor.run()
        if failures and not self._signal:
            failures[0].raiseException()
        return 128 + self._signal if self._signal else self._status

    def _signalled(self, number: int, _frame: Any) -> None:
        if self._signal:
            os._exit(128 + number)
        self._signal = number
        self.reactor.callFromThread(self._told)

    def _told(self) -> None:
        if self.on_signal is not None:
            self.on_signal()
        else:
            self._stop()

    def _finish(self, status: int) -> None:
        self._status = status

    def _stop(self) -> None:
        if self.reactor.running:
            self.reactor.stop()


def leave_at_once(status: int) -> NoReturn:
    """Ends the process without waiting for threads that may be deep in a graph or in a read."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
