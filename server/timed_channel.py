"""What a connection waits for, and until when: absolute deadlines, which no single byte puts off. Reactor thread."""

from __future__ import annotations

from enum import Enum

from rowserve.server.deadlines import NEVER
from rowserve.server.strict_head import StrictHead


class Phase(Enum):
    """What the connection waits for; each has its own deadline."""

    HEAD = "the headers of a request"
    IDLE = "another request"
    BODY = "the body of a request"
    BUSY = "our answer"
    DEAF = "our answer, whatever else the client sends"
    LINGER = "the client to stop sending: it has its answer"
    CLOSING = "the last bytes to go out"


class TimedChannel(StrictHead):
    """The phases of a connection. `deadline` is the next of two: the phase's, and the one for taking an answer."""

    timeOut = None  # noqa: N815  (stock's idle timer, which every byte resets)

    def __init__(self) -> None:
        super().__init__()
        self.deadline = NEVER
        self._phase = Phase.HEAD
        self._phase_deadline = NEVER
        self._write_deadline = NEVER

    @property
    def deaf(self) -> bool:
        """Whether all that comes is thrown away."""
        return self._phase in (Phase.LINGER, Phase.DEAF, Phase.CLOSING)

    def _now(self) -> float:
        return float(self.site.clock.seconds())

    def _enter(self, phase: Phase, seconds: float = NEVER) -> None:
        self._phase = phase
        self._due_in(seconds)

    def _due_in(self, seconds: float) -> None:
        self._phase_deadline = self._now() + seconds
        self.deadline = min(self._phase_deadline, self._write_deadline)

    def pauseProducing(self) -> None:  # noqa: N802
        """The client does not take its answer fast enough."""
        self._write_deadline = self._now() + self.site.limits.write_seconds
        self.deadline = min(self._phase_deadline, self._write_deadline)
        super().pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802
        """The client has taken what there was."""
        self._write_deadline = NEVER
        self.deadline = self._phase_deadline
        super().resumeProducing()
        self.resumed()

    def resumed(self) -> None:
        """The client takes its answers again."""
        raise NotImplementedError
