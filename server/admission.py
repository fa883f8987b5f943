"""How many connections there may be, over all addresses, and who makes room for a new one. Reactor thread.

At the limit the connection that has been idle longest goes. Where none is idle, a newcomer is only good for a probe: a
few of these are let in, and the oldest of them goes when there are too many.
"""

from __future__ import annotations

import resource
from collections import deque
from heapq import nsmallest
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from rowserve.server.metrics import counter, gauge
from rowserve.server.pacing import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowserve.server.channel import Channel

# Descriptors that are no client's: listeners, cache, models, logs, gRPC, and probes beyond the limit.
ROOM = 256
MOST = 20_000
PROBES = 16
# The idle are looked for in one go: to go through thousands for each newcomer would take a millisecond each time.
CANDIDATES = 64
NEW_SECONDS = 1.0  # who has just connected is about to ask


def descriptors() -> int:
    """The process's limit of file descriptors, once it is as high as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else MOST + ROOM


def default_connections(files: int) -> int:
    """How many connections so many descriptors allow."""
    return min(max(files - ROOM, files // 2), MOST)


class Admission(Collector):
    """At most `limit` connections, and a few more for probes. `full` is for a newcomer to ask before it enters."""

    def __init__(self, limit: int = MOST) -> None:
        self._limit = limit
        self._members: set[Channel] = set()
        self._probes: dict[Channel, None] = {}
        self._idle: deque[Channel] = deque()
        self.closed = {"idle": 0, "full": 0}
        self.short = False  # of descriptors
        self._times_short = 0

    def full(self) -> bool:
        """Whether there is no room for another one, though all that was idle has gone."""
        return self.short or (len(self._members) >= self._limit and not self._make_room())

    def ran_short(self) -> None:
        """The process has no descriptor left, but for a few: those are for probes. Some of the idle go."""
        self.short = True
        self._times_short += 1
        for _ in range(PROBES):
            self._make_room()

    def enter(self, channel: Channel) -> None:
        """A client has connected."""
        self._members.add(channel)

    def enter_as_probe(self, channel: Channel) -> None:
        """One has connected that there is no room for."""
        self._probes[channel] = None
        if len(self._probes) > PROBES:
            self.closed["full"] += 1
            oldest = next(iter(self._probes))
            del self._probes[oldest]
            oldest.abort()

    def leave(self, channel: Channel) -> None:
        """It has gone."""
        self._members.discard(channel)
        self._probes.pop(channel, None)

    def _make_room(self) -> bool:
        if not self._idle:
            since = {channel: idle_since(channel) for channel in self._members}
            found = [(at, id(channel), channel) for channel, at in since.items() if at is not None]
            self._idle.extend(channel for _, _, channel in nsmallest(CANDIDATES, found))
        while self._idle:
            channel = self._idle.popleft()
            if channel in self._members and idle_since(channel) is not None:
                self.closed["idle"] += 1
                self._members.discard(channel)
                channel.loseConnection()
                return True
        return False

    def collect(self) -> Iterator[Metric]:
        """For a scrape."""
        yield gauge("connections", "HTTP connections that are open.", len(self._members) + len(self._probes))
        text = "Connections closed at limits.connections: idle ones that made room, and newcomers without room."
        yield counter("connections_closed", text, "reason", self.closed)
        text = "How often the process has run out of file descriptors."
        yield CounterMetricFamily("rowserve_out_of_descriptors", text, value=self._times_short)


def idle_since(channel: Channel) -> float | None:
    """Since when a connection has been waiting for a request, or None where one is on its way."""
    if channel.phase is Phase.IDLE:
        return channel.deadline - channel.limits.idle_seconds
    since = channel.deadline - channel.limits.headers_seconds
    silent = channel.phase is Phase.HEAD and not channel._buffer
    return since if silent and channel.clock.seconds() - since >= NEW_SECONDS else None
