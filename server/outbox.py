"""What connections have to send, sent at the end of the reactor's turn. Reactor thread; on the path of every request.

Sent one by one, between the work for one request and the next, each answer would wake a client that has just gone to
sleep; a system that wakes a thread for each of 32 answers has no time for anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rowserve.server.clock import Clock


class Sender(Protocol):
    """A connection with unsent bytes."""

    def send_now(self) -> None:
        """Sends what the socket takes; the transport sends the rest."""


class Outbox:
    """Calls each of its senders once, when the reactor has seen to all that came in with them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._senders: list[Sender] = []

    def put(self, sender: Sender) -> None:
        """It has bytes to send."""
        if not self._senders:
            self._clock.callLater(0, self._send)
        self._senders.append(sender)

    def _send(self) -> None:
        senders, self._senders = self._senders, []
        for sender in senders:
            sender.send_now()
