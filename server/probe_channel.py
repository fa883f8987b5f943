"""A connection beyond the limit: it is good for one request, and only a probe's is answered. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowserve.handlers.problem import Problem
from rowserve.server.channel import Channel

if TYPE_CHECKING:
    from rowserve.server.listener import ApiSite

FULL = Problem(503, "there are as many connections as limits.connections allows, and none is idle", retry_after=1)
PATHS = (b"/livez", b"/readyz", b"/metrics")


class ProbeChannel(Channel):
    """As its parent, but for a request that is no probe: that gets a 503. It is closed after its answer."""

    def __init__(self, site: ApiSite) -> None:
        super().__init__(site)
        self._probed = False

    def _read_head(self, data: bytes) -> None:
        line = data.lstrip(b"\r\n").partition(b"\r\n")
        words = line[0].split(b" ")
        if not self._probed and line[1] and len(words) == 3 and words[1].partition(b"?")[0] not in PATHS:
            self._refuse(FULL)
            return
        self._probed = self._probed or bool(line[1])
        super()._read_head(data)

    def _next_request(self) -> None:
        self.loseConnection()
