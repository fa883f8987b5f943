"""The factory of connections: what they share, and how they end when the server stops. Reactor thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import ServerFactory

from rowserve.server.address import NATIVE
from rowserve.server.channel import Channel
from rowserve.server.deadlines import Deadlines
from rowserve.server.head_memo import HeadMemo
from rowserve.server.origins import OriginRule
from rowserve.server.outbox import Outbox
from rowserve.server.probe_channel import ProbeChannel
from rowserve.server.profiles import router

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.server.principal import Principal
    from rowserve.server.request_head import RequestHead
    from rowserve.server.site import Api


class ApiSite(ServerFactory):
    """Listens for `api` with the routes of a profile. `drain` ends idle connections, and the others after their
    answers; then `idle` holds."""

    noisy = False

    def __init__(self, api: Api, profile: str = NATIVE) -> None:
        self.api = api
        self.router = router(profile)
        # Who asks, by the head of a request, or Problem 403: every head passes it once, before all else.
        self.authorize: Callable[[RequestHead], Principal] = OriginRule().authorize
        self.clock = api.clock
        self.limits = api.limits
        self.heads = HeadMemo(api.models)
        self.deadlines = Deadlines(api.clock)
        self.outbox = Outbox(api.clock)
        self.unsent = api.pipeline.unsent
        self.admission = api.admission
        self.channels: set[Channel] = set()
        self._on_idle: list[Any] = []

    def buildProtocol(self, addr: Any) -> Channel:  # noqa: N802
        """A connection; where there is no room for it, one for a probe."""
        return ProbeChannel(self) if self.admission.full() else Channel(self)

    @property
    def draining(self) -> bool:
        """Whether the server stops."""
        return self.api.draining

    def opened(self, channel: Channel) -> None:
        """A client has connected."""
        self.channels.add(channel)
        self.deadlines.add(channel)
        if type(channel) is ProbeChannel:
            self.admission.enter_as_probe(channel)
        else:
            self.admission.enter(channel)

    def closed(self, channel: Channel) -> None:
        """A client has gone."""
        self.channels.discard(channel)
        self.deadlines.discard(channel)
        self.unsent.forget(channel)
        self.admission.leave(channel)
        if not self.channels:
            waiting, self._on_idle = self._on_idle, []
            for call in waiting:
                call()

    def refused(self, status: int) -> None:
        """A connection broke the protocol before it had asked for anything."""
        self.api.metrics.request("malformed", status, 0.0)

    def drain(self) -> None:
        """No further request on any connection."""
        self.api.draining = True
        for channel in list(self.channels):
            channel.drain()

    def when_idle(self, call: Any) -> None:
        """Calls, now or later, when no connection is left."""
        if self.channels:
            self._on_idle.append(call)
        else:
            call()

    def abort(self) -> None:
        """Cut off whoever is still there."""
        for channel in list(self.channels):
            channel.abort()
