"""What the parts ask of the clock that is handed to them: the reactor's, or a stepped one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Never make it."""

    def active(self) -> bool:
        """Whether it is still to come."""

    def reset(self, secondsFromNow: float) -> None:  # noqa: N803  (Twisted's name)
        """Make it that much later than now."""


class Clock(Protocol):
    """Twisted's IReactorTime, in a form that the type checker reads."""

    def seconds(self) -> float:
        """Now; only differences mean anything."""

    def callLater(self, delay: float, call: Callable[..., object], /, *args: Any) -> Timer:  # noqa: N802
        """Call it `delay` seconds from now."""
