"""A listening port that goes on when the process has no file descriptor left. Reactor thread.

A few descriptors are held in reserve. When they are needed, they are given up for as long as it takes, the connections
that come meanwhile are good for probes only, and one line says so. When even they are used up, nothing is accepted for
a moment: whoever connects waits in the system's queue.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.tcp import Port

if TYPE_CHECKING:
    from rowserve.server.admission import Admission
    from rowserve.server.clock import Clock

log = logging.getLogger(__name__)
RESERVE = 24  # more than there are probes at once, which also have to open a file
PAUSE_SECONDS = 1.0
ACCEPTS = 64  # in a turn
NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
NOBODY = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EPERM, errno.EINTR)


class Reserve:
    """Descriptors for bad times, for all ports of the process; `admission` hears of these."""

    def __init__(self, clock: Clock, admission: Admission) -> None:
        self._clock = clock
        self._admission = admission
        self._files: list[int] = []
        self._fill()

    def _fill(self) -> None:
        try:
            while len(self._files) < RESERVE:
                self._files.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        files, self._files = self._files, []
        for file in files:
            os.close(file)

    def open_up(self) -> bool:
        """No descriptor is left: whether there are some now."""
        if not self._files:
            return False
        log.error("no file descriptor is left: only probes are answered until some are free again (see ulimit -n)")
        self._give_up()
        self._admission.ran_short()
        self._clock.callLater(PAUSE_SECONDS, self._restore)
        return True

    def _restore(self) -> None:
        self._fill()
        if self._files:
            self._admission.short = False
        else:
            self._clock.callLater(PAUSE_SECONDS, self._restore)

    def close(self) -> None:
        """Gives them back."""
        self._give_up()


class ApiPort(Port):
    """As its parent, but for what it does without descriptors."""

    def __init__(self, reserve: Reserve, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._reserve = reserve
        self._paused: Any = None

    def doRead(self) -> None:  # noqa: N802
        """Accepts whoever waits."""
        for _ in range(ACCEPTS):
            try:
                client, address = self.socket.accept()
            except OSError as error:
                if error.errno not in NONE_LEFT:
                    if error.errno not in NOBODY:
                        log.error("a connection could not be accepted: %s", error)
                    return
                if not self._reserve.open_up():
                    self.stopReading()  # type: ignore[no-untyped-call]
                    self._paused = self.reactor.callLater(PAUSE_SECONDS, self._go_on)
                    return
                continue
            factory: Any = self.factory
            protocol = factory.buildProtocol(None)  # no protocol of ours asks for the client's address
            self.sessionno += 1
            protocol.makeConnection(self.transport(client, protocol, address, self, self.sessionno, self.reactor))

    def _go_on(self) -> None:
        self._paused = None
        if self.connected and not self.disconnecting:
            self.startReading()  # type: ignore[no-untyped-call]
