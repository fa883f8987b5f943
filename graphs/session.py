"""One loaded model: named rows in, named arrays out.

Graph thread only. It pads and splits to the sizes that may run, and trusts no shape that comes back.
"""

from __future__ import annotations

import numpy as np

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import GraphFailed
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature, TensorSpec


class GraphSession:
    """The interface of every engine: `description`, `run`, `close`.

    `run` takes rows that fit the signature's inputs (the handlers see to that) and gives every output of it:
    [count, *row shape] in the order of the rows; of a signature that is `alone`, the whole arrays. It raises
    RowBroken when the values fed are to blame (which of them is the caller's to find out), else GraphFailed.
    """

    def __init__(self, graph: LoadedGraph, description: ModelDescription) -> None:
        self.description = description
        self._graph = graph
        self._runs = {
            name: _RowRun(graph, signature, description.sizes.get(name, ()))
            for name, signature in description.signatures.items()
        }

    def run(self, signature: str, rows: Rows) -> dict[str, Array]:
        """The outputs of these rows."""
        return self._runs[signature](rows)

    def settle(self, signature: str, rows: Rows) -> int | None:
        """Choose the quickest way to run, by rows of a size that may run as they are. Gives the most rows that will run
        at once, None where it is as many as are asked for."""
        arrays = {**rows.arrays, **rows.static}
        return self._graph.settle(signature, arrays, whole=signature in self.description.sizes)

    def close(self) -> None:
        """Free the graph; nothing runs afterwards."""
        self._runs.clear()
        self._graph.close()


class _RowRun:
    """One signature with the sizes its batches may have: () means any."""

    def __init__(self, graph: LoadedGraph, signature: Signature, sizes: tuple[int, ...]) -> None:
        self._call = graph.call
        self._signature = signature
        self._name = signature.name
        self._sizes = (signature.batch,) if signature.batch is not None else sizes
        self._outputs = [(spec.name, spec.shape, spec.row_bytes is not None) for spec in signature.outputs]

    def __call__(self, rows: Rows) -> dict[str, Array]:
        arrays = {**rows.arrays, **rows.static} if rows.static else rows.arrays
        if self._signature.alone:
            return self._check_whole(self._call(self._name, arrays))
        if not rows.count:
            return {spec.name: empty(spec) for spec in self._signature.outputs}
        if not self._sizes or rows.count in self._sizes:
            return self._check(self._call(self._name, arrays), rows.count)
        return self._in_sizes(rows)

    def _in_sizes(self, rows: Rows) -> dict[str, Array]:
        """Run in pieces of the sizes that may run, the last one filled up with rows that are there."""
        parts, at = [], 0
        for size in sizes_for(rows.count, self._sizes):
            piece = rows.slice(at, min(at + size, rows.count))
            arrays = {name: fill(array, size) for name, array in piece.arrays.items()}
            found = self._check(self._call(self._name, {**arrays, **rows.static}), size)
            parts.append({name: array[: piece.count] for name, array in found.items()})
            at += piece.count
        if len(parts) == 1:
            return parts[0]
        try:
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except ValueError:
            raise GraphFailed(f"signature {self._name}: the shape of a row's answer changed between two runs") from None

    def _check(self, found: dict[str, Array], count: int) -> dict[str, Array]:
        for name, shape, fixed in self._outputs:
            have = found[name].shape
            if not have or have[0] != count or (fixed and have[1:] != shape):
                want = f"[{count}, {', '.join(map(str, shape or ())) if fixed else '…'}]"
                raise GraphFailed(f"output {name} of signature {self._name} came back as {list(have)}, not {want}")
        return found

    def _check_whole(self, found: dict[str, Array]) -> dict[str, Array]:
        for spec in self._signature.outputs:
            if not spec.accepts(found[spec.name].shape):
                have = list(found[spec.name].shape)
                raise GraphFailed(f"output {spec.name} of signature {self._name} came back as {have}, not {spec.shape}")
        return found


def sizes_for(count: int, sizes: tuple[int, ...]) -> list[int]:
    """The sizes of the runs that carry `count` rows: the largest while it is filled, then the smallest that
    holds the rest.
    """
    largest = sizes[-1]
    whole, rest = divmod(count, largest)
    return [largest] * whole + ([next(size for size in sizes if size >= rest)] if rest else [])


def fill(array: Array, size: int) -> Array:
    """`array` with its first row repeated at the end until it has `size` rows."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[:1], missing, axis=0)])


def empty(spec: TensorSpec) -> Array:
    """No rows of an output."""
    return np.empty((0, *(dimension or 0 for dimension in spec.shape or ())), dtype=spec.numpy_dtype)
