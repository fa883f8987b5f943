"""The pipeline in this process as a bulk run sees it: groups become chunks of items, and chunks are answered.

`Parser` works on the reader thread, `LocalDoor` on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred

from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.signature import STRING, Signature, TensorSpec
from rowserve.handlers.items import Answer, Item, ModelFace, Options, Outcome, Picture, Priority, plain_names
from rowserve.handlers.native_rows import Wants
from rowserve.handlers.ndjson import LineItem, LineReader, Mode, PathLine, encode_lines
from rowserve.handlers.problem import Problem
from rowserve.server.assembly import Assembly
from rowserve.server.models import ServedModel
from rowserve.tools.bulk_job import Reply
from rowserve.tools.feed import Chunk
from rowserve.tools.groups import Columns, Group, Lines
from rowserve.tools.picture_files import read_file

CHUNK_ROWS = 256
CHUNK_PICTURES = 32
CHUNK_BYTES = 8 << 20
TEXT = 4  # bytes of JSON, about, for each byte of an output


class BadSource(ValueError):
    """A source that does not fit the model; the message says how."""


class Parser:
    """Makes the chunks of one model's signature out of groups; lines are numbered from 1.

    `encoded`: whether answers will be printed, and so take memory once more.
    """

    def __init__(self, face: ModelFace, signature: Signature, *, largest_file: int, encoded: bool) -> None:
        self._signature = signature
        self._readers = {mode: LineReader(face, signature, mode) for mode in Mode}
        self._largest_file = largest_file
        sizes = [spec.row_bytes or 0 for spec in signature.outputs]
        self._row_bytes = sum(sizes) * (1 + TEXT if encoded else 1)
        inputs = sum(spec.row_bytes or 0 for spec in signature.row_inputs)
        self.rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, self._row_bytes + inputs)))
        self._first = 1

    def chunks(self, groups: Iterable[Group]) -> Iterator[Chunk]:
        """Chunks, in order."""
        for group in groups:
            if isinstance(group, Lines):
                reader = self._readers[group.mode]
                for at in range(0, len(group.lines), self.rows):
                    yield from self._split(reader.read(group.lines[at : at + self.rows]))
            elif isinstance(group, Columns):
                yield from self._split(self._columns(group))
            else:
                yield from self._split([PathLine(path) for path in group.paths])

    def _split(self, items: Sequence[LineItem]) -> Iterator[Chunk]:
        """Chunks of bounded size out of items, the files read that are named among them."""
        begun: list[Item] = []
        names: list[str | None] = []
        nbytes = 0
        for item in items:
            made, name = (self._picture(item.path), item.path) if isinstance(item, PathLine) else (item, None)
            rows = made.count if isinstance(made, Rows) and not self._signature.alone else 1
            begun.append(made)
            names += [name] * rows
            nbytes += self._bytes(made, rows)
            if nbytes >= CHUNK_BYTES or (isinstance(made, Picture) and len(begun) >= CHUNK_PICTURES):
                yield self._chunk(begun, names, nbytes)
                begun, names, nbytes = [], [], 0
        if begun:
            yield self._chunk(begun, names, nbytes)

    def _chunk(self, items: list[Item], names: list[str | None], nbytes: int) -> Chunk:
        named = any(name is not None for name in names)
        chunk = Chunk(self._first, len(names), nbytes, items, names if named else None)
        self._first += chunk.rows
        return chunk

    def _bytes(self, item: Item, rows: int) -> int:
        if isinstance(item, Picture):
            return len(item.upload) + self._row_bytes
        return (item.nbytes if isinstance(item, Rows) else 0) + rows * self._row_bytes

    def _picture(self, path: str) -> Picture | Problem:
        reader = self._readers[Mode.PATHS]
        if not reader.takes_pictures:
            return reader.picture(b"")  # says why not
        content = read_file(path, self._largest_file)
        return content if isinstance(content, Problem) else reader.picture(content)

    def _columns(self, group: Columns) -> list[LineItem]:
        inputs = self._signature.inputs
        arrays = group.arrays
        if "" in arrays and len(inputs) == 1:
            arrays = {inputs[0].name: arrays[""]}
        if set(arrays) != {spec.name for spec in inputs}:
            there = plain_names(repr(name) for name in arrays if name) if "" not in arrays else "one nameless array"
            raise BadSource(f"the inputs are {plain_names(spec.name for spec in inputs)}; the file has {there}")
        if self._signature.static_inputs:
            raise BadSource("a model with inputs without a batch dimension takes .jsonl, not arrays")
        rows = Rows({spec.name: column(spec, arrays[spec.name]) for spec in inputs}, group.count)
        if self._signature.alone:
            return [rows.slice(at, at + 1) for at in range(rows.count)]
        return [rows.slice(at, min(at + self.rows, rows.count)) for at in range(0, rows.count, self.rows)]


def column(spec: TensorSpec, array: Array) -> Array:
    """Rows of an input out of a file's array. Raises BadSource where they do not fit, or would lose anything."""
    if not spec.accepts(array.shape[1:]):
        wanted = ["any" if size is None else size for size in spec.shape or ()]
        raise BadSource(f"input {spec.name} takes rows of shape {wanted}; the file has {list(array.shape[1:])}")
    if spec.dtype == STRING:
        if array.dtype.kind == "U":
            array = np.char.encode(array, "utf-8")
        if array.dtype.kind != "S":
            raise BadSource(f"input {spec.name} takes strings; the file has {array.dtype}")
        return array.astype(object)
    kinds = "same_kind" if spec.numpy_dtype.kind in "fV" and array.dtype.kind in "fiub" else "safe"
    if not np.can_cast(array.dtype, spec.numpy_dtype, kinds):  # type: ignore[arg-type]
        raise BadSource(f"input {spec.name} takes {spec.dtype}; the file has {array.dtype}")
    return np.ascontiguousarray(array, dtype=spec.numpy_dtype)


class LocalDoor:
    """Answers chunks by the pipeline, as bulk."""

    def __init__(
        self, assembly: Assembly, model: ServedModel, signature: Signature, wants: Wants | None, protocol: str
    ) -> None:
        self._pipeline = assembly.pipeline
        self._cache = assembly.cache
        self._model = model
        self._signature = signature
        self._wants = wants
        self._options = Options(protocol=protocol, priority=Priority.BULK)

    def ask(self, chunk: Chunk) -> Reply | Deferred[Reply]:
        """See Door."""
        answer = self._pipeline.answer(self._model, self._signature, chunk.items, self._options)
        if isinstance(answer, Answer):
            return self._reply(chunk, answer)
        reply: Any = answer
        reply.addCallback(partial(self._reply, chunk))
        return reply  # type: ignore[no-any-return]

    def _reply(self, chunk: Chunk, answer: Answer) -> Reply:
        broken = [problem.detail for problem in answer.errors.values() if problem.reason == "broken"]
        return Reply(
            self._encoder(chunk, answer), answer.count(), answer.errors, broken[0] if broken else ""
        )

    def _encoder(self, chunk: Chunk, answer: Answer) -> Callable[[], bytes]:
        if self._wants is None:
            return bytes
        return partial(encode_lines, self._model.face, answer, self._wants, chunk.first, chunk.names)

    def finish(self) -> Deferred[str]:
        """See Door."""
        done: Deferred[str] = Deferred()
        self._pipeline.when_kept(
            lambda: self._cache.sync(lambda error: done.callback("" if error is None else str(error)))
        )
        return done


class DryDoor:
    """Counts what the cache has; computes, decodes and keeps nothing. What it would compute it counts as `computed`."""

    def __init__(self, assembly: Assembly, model: ServedModel, signature: Signature) -> None:
        self._pipeline = assembly.pipeline
        self._model = model
        self._served = model.served(signature)

    def ask(self, chunk: Chunk) -> Reply:
        """See Door."""
        outcomes = dict.fromkeys(Outcome, 0)
        for item in chunk.items:
            if isinstance(item, Problem):
                outcomes[Outcome.FAILED] += 1
                continue
            rows = item.count if isinstance(item, Rows) and not self._served.alone else 1
            hits = self._hits(item) if self._served.cached else 0
            outcomes[Outcome.HIT] += hits
            outcomes[Outcome.COMPUTED] += rows - hits
        faults = {i: item for i, item in enumerate(chunk.items) if isinstance(item, Problem)}
        return Reply(bytes, outcomes, faults if len(chunk.items) == chunk.rows else {})

    def _hits(self, item: Rows | Picture) -> int:
        served, pipeline = self._served, self._pipeline
        keys: list[bytes | None]
        if isinstance(item, Rows):
            keys = [*served.generation(item.static).row_keys(served.inputs.pack(item.arrays, item.count))]
        else:
            keys = [*pipeline.cache.lookup_aliases([pipeline.alias(served, item)])]
        found = pipeline.look_up(served, keys, Options())
        return sum(packed is not None for packed in found)

    def finish(self) -> Deferred[str]:
        """See Door."""
        done: Deferred[str] = Deferred()
        done.callback("")
        return done
