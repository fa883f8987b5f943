"""Rows on their way through the batcher, and who waits for them. Reactor thread; asks are read on the graph thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rowserve.cache.keys import Generation
from rowserve.graphs.rows import Buffer, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Priority
from rowserve.server.lanes import Lane

NEVER = float("inf")


class Asker(Protocol):
    """A request as the batcher sees it."""

    priority: Priority

    def next_asks(self, rows: int, nbytes: float) -> Sequence[Ask]:
        """Its next rows to be queued, none when it has none at the moment. Called when there is room for so many rows
        and bytes; the last of them may go beyond."""

    def answered(self, asks: Sequence[Ask], packed: Sequence[Buffer], batch: Batch, first: bool) -> None:
        """The outputs of rows have come; `first` to those who waited first, the others were collapsed into them.

        May still come, like `failed`, to one that leaves while a batch is handed out.
        """

    def failed(self, ask: Ask, error: BaseException) -> None:
        """A row has failed, with a GraphError or what kept the graph from running."""


@dataclass(slots=True, eq=False)
class Source:
    """What the rows of one array share: who asks for them, and how. `nbytes` is the size of one.

    `generation` is None where they are not to be kept. A `fresh` row joins a queued twin, but no running one.
    `deadline` is when, by the batcher's clock, they are no longer wanted.
    """

    asker: Asker
    signature: Signature
    rows: Rows
    lane: Lane
    nbytes: int
    generation: Generation | None = None
    fresh: bool = False
    deadline: float = NEVER


@dataclass(slots=True, eq=False)
class Ask:
    """One row that one request waits for: row `index` of the source, or all of it as one unit where that is None.

    `position` is its place in the request; `key` is None where it joins no twin and is not to be kept.
    """

    source: Source
    position: int
    index: int | None
    key: bytes | None = None
    pending: PendingRow | None = None


@dataclass(slots=True, eq=False)
class PendingRow:
    """A row that is queued or running. `data` is the ask that brought it, `asks` all who wait for it still.

    `deadline` is the earliest of those who ever waited.
    """

    data: Ask
    asks: list[Ask]
    lane: Lane
    arrived: float
    order: int
    priority: Priority
    deadline: float = NEVER
    running: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """Rows of one session call. `queued` is how long its oldest row waited, `ran` how long it ran (seconds).

    `reason` says why it was not held any longer: the thread was free (`idle`), it was `full`, a larger or later one
    would have missed a `deadline`, or its rows had waited for company as long as they may (`wait`).
    """

    rows: list[PendingRow]
    started: float
    queued: float
    reason: str = "idle"
    ran: float = 0.0
