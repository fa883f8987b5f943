"""What heads of requests were found to ask, so that the same bytes are not read again. Reactor thread.

A client sends the same head with each of its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowserve.graphs.rows import Buffer
    from rowserve.handlers.items import Encoded, Question
    from rowserve.handlers.problem import Problem
    from rowserve.server.models import Models, ServedModel
    from rowserve.server.request_head import RequestHead

HEADS = 1024
HEAD_BYTES = 2048


class Known(NamedTuple):
    """What follows from a head alone, as long as the models stay as they are: `read` makes of a body what is asked of
    `served`."""

    head: RequestHead
    route: str
    problem_form: Callable[[Problem], Encoded]
    served: ServedModel
    read: Callable[[Buffer], Question[Any] | Encoded]


class HeadMemo:
    """Heads by their bytes: at most `HEADS` of at most `HEAD_BYTES`. When it is full it begins anew, so that a client
    whose heads all differ costs the others one more reading in a thousand."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._changes = models.changes
        self._known: dict[bytes, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, raw: bytes) -> Known | None:
        """What is known of this head, since the models last changed."""
        if self._changes != self._models.changes:
            self._known.clear()
            self._changes = self._models.changes
        return self._known.get(raw)

    def keep(self, raw: bytes, known: Known) -> None:
        """Remember it."""
        if len(raw) > HEAD_BYTES:
            return
        if len(self._known) >= HEADS:
            self._known.clear()
        self._known[raw] = known
