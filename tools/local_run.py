"""`infer` and `warm` with the model in this process. Main thread, which is the reactor thread."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, succeed

from rowserve.graphs.description import description_name
from rowserve.graphs.errors import GraphError
from rowserve.graphs.fingerprint import fingerprint
from rowserve.handlers.items import Outcome
from rowserve.handlers.native_rows import read_wants
from rowserve.handlers.problem import Problem
from rowserve.server.assembly import Assembly, load_settings
from rowserve.server.config import Config
from rowserve.server.discovery import ModelSource
from rowserve.server.units import Bytes
from rowserve.tools.bulk_job import Ready, Reply
from rowserve.tools.feed import Chunk
from rowserve.tools.groups import Columns, Group, Lines
from rowserve.tools.local_door import DryDoor, LocalDoor, Parser

log = logging.getLogger(__name__)


class LocalRun:
    """Cache, pipeline and one model. `ready` opens the door; then `flush`, and `close` once the reactor is done."""

    def __init__(self, reactor: Any, config: Config, source: ModelSource, *, dry: bool) -> None:
        self._assembly = Assembly(reactor, config)
        self._source = source
        self._dry = dry

    async def ready(self, signature: str, wishes: dict[str, str] | None, protocol: str) -> Ready | None:
        """The door; None where the model does not load or has no such thing, and the log says so.

        The graph is loaded here only where nothing is remembered of it.
        """
        if self._dry and not self._known():
            log.warning("this model was never loaded with this cache, so nothing is known of its rows")
            return Ready(counted, NothingKnown())
        state = await self._assembly.add(self._source, lazy=True)
        model = state.model
        if model is None:
            return None
        try:
            found = model.face.signature(signature)
            wants = None if wishes is None else read_wants(model.face, found, **wishes)
        except Problem as problem:
            log.error(problem.detail)
            return None
        largest = Bytes.parse(self._assembly.config.limits.body)
        parser = Parser(model.face, found, largest_file=largest, encoded=wants is not None)
        if self._dry:
            return Ready(parser.chunks, DryDoor(self._assembly, model, found))
        return Ready(parser.chunks, LocalDoor(self._assembly, model, found, wants, protocol))

    def _known(self) -> bool:
        """Whether the model can be asked for without loading its graph."""
        try:
            settings = load_settings(self._source.card, self._assembly.config)
            return self._assembly.cache.recall(description_name(fingerprint(self._source.path), settings)) is not None
        except GraphError:
            return True  # let loading say what is wrong

    def flush(self, timeout: float) -> None:
        """Writes what is kept; blocking."""
        self._assembly.cache.close(timeout)

    def close(self) -> None:
        """Ends all threads; blocking."""
        self._assembly.close()


def counted(groups: Iterable[Group]) -> Iterator[Chunk]:
    """Chunks that say no more than how many rows there are."""
    first = 1
    for group in groups:
        rows = rows_of(group)
        yield Chunk(first, rows, 0)
        first += rows


def rows_of(group: Group) -> int:
    """How many rows a group has."""
    if isinstance(group, Columns):
        return group.count
    return len(group.lines if isinstance(group, Lines) else group.paths)


class NothingKnown:
    """The Door of a dry run without a model: everything would be computed."""

    def ask(self, chunk: Chunk) -> Reply:
        """See Door."""
        return Reply(bytes, {Outcome.COMPUTED: chunk.rows})

    def finish(self) -> Deferred[str]:
        """See Door."""
        return succeed("")
