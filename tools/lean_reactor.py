"""Twisted's epoll reactor, without a log context for each event, and with a short way for bytes that come. Main thread.

Twisted calls a connection in a context that carries its name, for the lines of a log. No line here has it, and to make
it is an eighth of what a row from the cache costs. To see at once to bytes that come, without asking what else an event
might be, gains four hundredths.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

READABLE = EPOLLIN  # and nothing else, as nearly always


class LeanReactor(EPollReactor):
    """As its parent, which also logs what a connection raises, and disconnects it."""

    _doReadOrWrite: Any  # noqa: N815
    _disconnectSelectable: Any  # noqa: N815

    def doPoll(self, timeout: float | None) -> None:  # noqa: N802
        """Waits for events, at most so many seconds, and sees to them."""
        ready = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        for number, event in ready:
            selectable = self._selectables.get(number)
            if selectable is None:
                continue
            if event != READABLE:
                self._doReadOrWrite(selectable, number, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException as error:  # noqa: BLE001
                why = error
                log.err()
            if why:
                self._disconnectSelectable(selectable, why, True)

    doIteration = doPoll  # noqa: N815


def install() -> None:
    """Makes it the process's reactor, if there is none yet."""
    if "twisted.internet.reactor" not in sys.modules:
        reactor: Any = LeanReactor
        installReactor(reactor())
