"""The models this server has: what is served, under which names and versions, and in which state. Reactor thread."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rowserve.graphs.rows import Array, RowLayout, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import ModelFace, plain_names
from rowserve.handlers.problem import Problem

if TYPE_CHECKING:
    from rowserve.cache.keys import Generation
    from rowserve.cache.row_cache import RowCache
    from rowserve.graphs.description import ModelDescription
    from rowserve.graphs.thread import GraphThread
    from rowserve.server.batcher import Batcher
    from rowserve.server.metrics import Metrics, RowCounts

STATES = ("loading", "ready", "broken")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class ServedSignature:
    """One signature as the pipeline needs it.

    `cached` rows are looked up and kept; `max_age` (seconds) is the card's time to live, None for ever. `name` is what
    people call the version, NAME/VERSION. Where `throw_away`, keys and
    batches are those of rows that are forgotten soon.
    """

    def __init__(
        self,
        signature: Signature,
        cache: RowCache,
        description: ModelDescription,
        *,
        enabled: bool,
        ttl: float | None,
        name: str = "",
        throw_away: bool = False,
    ) -> None:
        self.signature = signature
        self.inputs = RowLayout(signature.row_inputs)
        self.outputs = RowLayout(signature.outputs)
        self.alone = bool(signature.alone)
        self.cached = enabled and not self.alone
        self.max_age = ttl
        self._cache = cache
        self._description = description
        self._name = name
        self._throw_away = throw_away
        self._twin: ServedSignature | None = None
        self._generation = None if signature.static_inputs else self._derive({})
        # A batch keeps all its rows in one generation.
        self._lane = (signature.name, self._generation.digest if self._generation and throw_away else b"")

    def thrown_away(self) -> ServedSignature:
        """The same for rows that meet nobody else's and are forgotten soon; each call puts that off."""
        if self._twin is None:
            self._twin = ServedSignature(
                self.signature, self._cache, self._description, enabled=self.cached, ttl=self.max_age, throw_away=True
            )
        self._cache.put_off_forgetting()
        return self._twin

    def _derive(self, static: Mapping[str, Array]) -> Generation:
        about = self._description
        return self._cache.generation(
            fingerprint=about.fingerprint,
            signature=self.signature,
            static=static,
            execution=about.execution_of(self.signature.name),
            model=self._name,
            throw_away=self._throw_away,
        )

    def lane(self, rows: Rows) -> tuple[Any, ...]:
        """Rows with the same lane may share a batch: same signature, static inputs and row shapes."""
        if self._generation is not None and self.inputs.row_bytes is not None:
            return self._lane
        static = self.generation(rows.static).digest if rows.static else self._lane[1]
        if self.inputs.row_bytes is not None:
            return (self.signature.name, static)
        return (self.signature.name, static, tuple(rows.arrays[spec.name].shape[1:] for spec in self.inputs.specs))

    def row_keys(self, rows: Rows) -> list[bytes]:
        """The key of each row."""
        generation = self._generation or self._derive(rows.static)
        return generation.row_keys(self.inputs.pack(rows.arrays, rows.count))

    def generation(self, static: Mapping[str, Array]) -> Generation:
        """The cache's name space for rows with these static inputs."""
        return self._generation or self._derive(static)


class ServedModel:
    """One version of a model that answers."""

    def __init__(
        self,
        face: ModelFace,
        description: ModelDescription,
        signatures: Mapping[str, ServedSignature],
        thread: GraphThread,
        batcher: Batcher,
        metrics: Metrics,
    ) -> None:
        self.face = face
        self.description = description
        self.thread = thread
        self.batcher = batcher
        self._signatures = signatures
        self._metrics = metrics
        self._counts: dict[str, RowCounts] = {}

    def served(self, signature: Signature) -> ServedSignature:
        """That signature, ready for the pipeline."""
        return self._signatures[signature.name]

    def counts(self, protocol: str) -> RowCounts:
        """Where rows of that protocol are counted."""
        counts = self._counts.get(protocol)
        if counts is None:
            counts = self._counts[protocol] = self._metrics.rows(self.face.name, self.face.version, protocol)
        return counts


@dataclass
class ModelState:
    """A version's state, one of STATES, as /readyz and TensorFlow Serving's status tell it. `fault` says why it is
    broken."""

    name: str
    version: int
    state: str = "loading"
    fault: str = ""
    model: ServedModel | None = None
    changed: Callable[[], None] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self.changed is not None:
            self.changed()


@dataclass
class Models:
    """All models by name and version; the highest version of a name that is ready answers for it.

    `changes` counts whatever becomes of any of them: as long as it stands still, `find` finds the same.
    """

    _states: dict[str, dict[int, ModelState]] = field(default_factory=dict)
    changes: int = 0

    def _changed(self) -> None:
        self.changes += 1

    def expect(self, name: str, version: int) -> ModelState:
        """Registers a version that is about to load."""
        state = ModelState(name, version, changed=self._changed)
        self._states.setdefault(name, {})[version] = state
        self._changed()
        return state

    def states(self) -> Iterator[ModelState]:
        """Every version there is: names in order, the highest version first."""
        for name in sorted(self._states):
            for version in sorted(self._states[name], reverse=True):
                yield self._states[name][version]

    @property
    def ready(self) -> bool:
        """Whether every version has loaded, or failed to while another one answers."""
        states = list(self.states())
        return not any(state.state == "loading" for state in states) and any(s.state == "ready" for s in states)

    def versions(self, name: str) -> list[ModelState]:
        """The versions of a name, the highest first. Raises Problem 404."""
        if not NAME.fullmatch(name) or name not in self._states:
            raise Problem(404, f"there is no model {name!r}; there is: {plain_names(sorted(self._states))}")
        return [self._states[name][version] for version in sorted(self._states[name], reverse=True)]

    def asked(self, name: str, version: int | None = None) -> list[ModelState]:
        """The versions that a question for states is about, the highest first: all, one, or for 0 the one that answers
        by default. Any thread."""
        states = [state for state in self.states() if state.name == name]
        if version == 0:
            return [next((state for state in states if state.state == "ready"), states[0])] if states else []
        return [state for state in states if version in (None, state.version)]

    def find(self, name: str, version: int | None = None) -> ServedModel:
        """The model that answers, by default (None, or 0, as some clients write it) or in one version; any thread, as
        it only reads. Raises Problem 404, or 503 while it loads or when it is broken."""
        states = self.versions(name)
        if version:
            states = [state for state in states if state.version == version]
            if not states:
                there = plain_names(state.version for state in self.versions(name))
                raise Problem(404, f"model {name} has no version {version}; it has: {there}")
        for state in states:
            if state.model is not None and state.state == "ready":
                return state.model
        if states[0].state == "loading":
            raise Problem(503, f"model {name} is still loading", retry_after=1, reason="loading")
        raise Problem(503, f"model {name} did not load; /readyz and the server's log say why", reason="broken")
