"""Whether a connection is read from: open only while nobody holds it. Reactor thread."""

from __future__ import annotations

from typing import Any


class ReadGate:
    """Stands for the transport where Twisted's HTTPChannel pauses and resumes it.

    The channel's own `pauseProducing` and `resumeProducing` are one hold among others, so that its resuming does not
    undo a hold of ours.
    """

    def __init__(self, transport: Any, registered: bool = False) -> None:
        self._transport = transport
        self._holds: set[str] = set()
        self._registered = registered

    @property
    def held(self) -> bool:
        """Whether nothing is read."""
        return bool(self._holds)

    def hold(self, who: str) -> None:
        """Stop reading until `who` releases it."""
        if not self._holds:
            self._transport.pauseProducing()
        self._holds.add(who)

    def release(self, who: str) -> None:
        """`who` is content."""
        if who in self._holds:
            self._holds.discard(who)
            if not self._holds:
                self._transport.resumeProducing()

    def open(self) -> None:
        """Release all."""
        for who in list(self._holds):
            self.release(who)

    def pauseProducing(self) -> None:  # noqa: N802
        """The channel's hold."""
        self.hold("channel")

    def resumeProducing(self) -> None:  # noqa: N802
        """The channel's release."""
        self.release("channel")

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """Passed on."""
        self._registered = True
        self._transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:  # noqa: N802
        """Passed on, once."""
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()
