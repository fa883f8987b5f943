"""What a handler finds in a request, and the answer it is given to encode.

Pure values, safe on any thread: every format parses to a `Request` and encodes an `Answer`; none knows cache
or batcher.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from rowserve.graphs.rows import Array, Buffer, RowLayout, Rows
from rowserve.graphs.signature import DEFAULT_SIGNATURE, Signature
from rowserve.handlers.problem import Problem

E = TypeVar("E")


class Outcome(StrEnum):
    """How a row was answered."""

    HIT = "hit"
    COLLAPSED = "collapsed"
    COMPUTED = "computed"
    BYPASSED = "bypassed"
    FAILED = "failed"


class Priority(StrEnum):
    """`interactive` goes first; `bulk` fills what is left and gets at least one row in eight."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class PictureDecoder(Protocol):
    """Settings and code that turn an upload into a row; runs on the decode pool."""

    @property
    def identity(self) -> bytes:
        """Names the settings and the decoding code: another identity is another alias."""

    def peak_bytes(self, upload: Buffer) -> int:
        """The memory that `decode` takes, beside the row, by what the first bytes tell. Raises Problem (413, 422)."""

    def decode(self, upload: Buffer) -> Rows:
        """One row. Raises Problem (413, 422)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture still undecoded: one row, if it decodes."""

    upload: Buffer
    decoder: PictureDecoder


Item = Rows | Picture | Problem
"""Rows (any number that came together), a picture, or an error of its own (one row that failed)."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What the request asks of the cache; `max_age` in seconds.

    `throw_away` rows meet nobody else's, and are forgotten soon after they were last asked for.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    throw_away: bool = False


NO_WISH = CachePolicy()


@dataclass(frozen=True, slots=True)
class Options:
    """How a request wants its rows answered. `timeout` is in seconds from now; None waits for ever."""

    protocol: str = "rows"
    priority: Priority = Priority.INTERACTIVE
    timeout: float | None = None
    cache: CachePolicy = NO_WISH


@dataclass(slots=True)
class Timing:
    """Where a request's time went, in seconds."""

    decode: float = 0.0
    cache: float = 0.0
    queue: float = 0.0
    graph: float = 0.0

    def add(self, other: Timing) -> None:
        """Adds the time of what came after this."""
        self.decode += other.decode
        self.cache += other.cache
        self.queue += other.queue
        self.graph += other.graph


@dataclass(slots=True)
class Answer:
    """The rows of a request, in its order.

    `packed[i]` is row i in `layout` (the signature's outputs), or None where `errors[i]` says why not.
    Where `alone`, the request's items ran one by one: `packed[i]` is item i's whole output, leading dimension
    and all. `forward` says why rows were not taken from the cache, in the words of RFC 9211: `miss`, `request` (the
    client would have none), or `stale` (one was there, but too old for it).
    """

    layout: RowLayout
    packed: list[Buffer | None]
    outcomes: list[Outcome]
    errors: dict[int, Problem] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    alone: bool = False
    forward: str = "miss"

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def nbytes(self) -> int:
        """Bytes of all packed rows."""
        size = self.layout.row_bytes
        if size is not None and not self.alone:
            return size * len(self.packed)
        return sum(len(row) for row in self.packed if row is not None)

    def row(self, index: int, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Row `index`: each output in its row shape. Raises the row's Problem.

        Where the rows ran alone, an output that followed a leading dimension of 1 comes without it.
        """
        packed = self.packed[index]
        if packed is None:
            raise self.errors[index].anew()
        arrays = self.layout.unpack(packed)
        if self.alone:
            # The dots: else a single string would come as it is, not as an array.
            arrays = {name: array[0, ...] if array.shape[:1] == (1,) else array for name, array in arrays.items()}
        return arrays if names is None else {name: arrays[name] for name in names}

    def stacked(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """All rows as arrays [rows, ...]. Raises the first row's Problem, or rows.ShapesDiffer."""
        if self.errors:
            raise self.errors[min(self.errors)].anew()
        rows = [row for row in self.packed if row is not None]
        if self.alone and len(rows) == 1:
            arrays = self.layout.unpack(rows[0])
            return arrays if names is None else {name: arrays[name] for name in names}
        return self.layout.stack(rows, names)

    def count(self) -> Mapping[Outcome, int]:
        """Rows by outcome."""
        return {outcome: self.outcomes.count(outcome) for outcome in Outcome}


# Not frozen, like Rows: every request makes one, and a frozen one costs three times as much.
@dataclass(slots=True)
class Encoded:
    """An answer on the wire, without the transport. `reason` is the reason phrase, where it is not the usual one."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    reason: str = ""


@dataclass(slots=True)
class Question(Generic[E]):
    """A request that has been read: rows of a signature, how they are wanted, and how their answer is written.

    `encode` raises Problem for an answer that its form cannot hold.
    """

    signature: Signature
    items: Sequence[Item]
    options: Options
    encode: Callable[[Answer], E]


@dataclass(frozen=True)
class Labels:
    """Names of a classifier's outputs: `names[i]` belongs to element i of the row of output `output`."""

    output: str
    names: Sequence[str]

    @cached_property
    def entries(self) -> list[bytes]:
        """Each class as JSON up to its score: `{"index":7,"label":"cat","score":`."""
        named = enumerate(self.names)
        return [b'{"index":%d,"label":%b,"score":' % (i, json.dumps(name).encode()) for i, name in named]


@dataclass(frozen=True)
class ModelFace:
    """What a handler may know of a served model version.

    `decoders` holds, by signature, how pictures become its rows, or the Problem (422) that says why they
    cannot. `plans` is a handler's memory of how requests are read. `default` is the signature of who names none,
    `engine` what runs the model: tensorflow or openvino.
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]
    labels: Labels | None = None
    decoders: Mapping[str, PictureDecoder | Problem] = field(default_factory=dict)
    plans: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    default: str = DEFAULT_SIGNATURE
    engine: str = "tensorflow"

    def signature(self, name: str = "") -> Signature:
        """The signature of that name; of "", the default one or the only one. Raises Problem 400."""
        wanted = name or self.default
        found = self.signatures.get(wanted)
        if found is None and not name and len(self.signatures) == 1:
            found = next(iter(self.signatures.values()))
        if found is None:
            there = plain_names(sorted(self.signatures))
            raise Problem(400, f"model {self.name} has no signature {wanted!r}; it has: {there}")
        return found


def plain_names(names: Iterable[Any]) -> str:
    """Names as an error lists them: `a, b`, or `none`."""
    return ", ".join(str(name) for name in names) or "none"
